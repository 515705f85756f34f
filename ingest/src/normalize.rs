//! Turns a decoded event into the event to store: filters metadata and computes ids. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use thiserror::Error;
use tidings_core::model::flux;
use tidings_core::model::id::{self, Discriminators};
use tidings_core::model::time::to_proto;
use tidings_core::{Event, ObjectLabels, ObjectReference, ProtoTimestamp};

use crate::decode::{self, RawEvent, RawObject};

/// How many characters are kept of the start and of the end of a decoding error, which quotes the
/// input and may be large.
const MAX_QUOTED_CHARS: usize = 150;

/// Why a request body is not an event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidEvent {
    /// Not one JSON document.
    #[error("the event is not valid JSON: {0}")]
    Json(String),
    /// A field has the wrong type, or a time is none.
    #[error("the event has a value that it cannot have: {0}")]
    Value(String),
    /// The involved object is incomplete, so no Alert could match.
    #[error("involvedObject.{0} is missing or empty; set it to the object that the event is about")]
    MissingField(&'static str),
}

/// Parses the JSON of an event and sets cluster and ids.
///
/// # Guarantees
/// Pure: equal arguments give an equal event.
///
/// # Errors
/// See [`InvalidEvent`]. Sending the same body again does not help.
pub fn parse_event(
    bytes: &[u8],
    cluster: &str,
    received_at: jiff::Timestamp,
    labels: Option<ObjectLabels>,
) -> Result<Event, InvalidEvent> {
    let text = decode::text(bytes);
    decode::decode(&text, |raw| normalize(raw, cluster, received_at, labels)).map_err(|error| {
        let text = shorten(error.to_string());
        match error.is_data() {
            true => InvalidEvent::Value(text),
            false => InvalidEvent::Json(text),
        }
    })?
}

/// Turns a decoded event into the event to store, with cluster and ids.
///
/// # Errors
/// [`InvalidEvent::MissingField`] if the object has no kind or no name.
pub fn normalize(
    raw: RawEvent<'_>,
    cluster: &str,
    received_at: jiff::Timestamp,
    labels: Option<ObjectLabels>,
) -> Result<Event, InvalidEvent> {
    let object = raw.involved_object;
    if object.kind.is_empty() {
        return Err(InvalidEvent::MissingField("kind"));
    }
    if object.name.is_empty() {
        return Err(InvalidEvent::MissingField("name"));
    }
    let (metadata, discriminators) =
        split_metadata(raw.metadata, flux::api_group(&object.api_version));
    let mut event = Event {
        cluster: cluster.to_owned(),
        involved_object: Some(to_reference(object)),
        severity: raw.severity.into_owned(),
        timestamp: raw
            .timestamp
            .map(|seconds| ProtoTimestamp { seconds, nanos: 0 }),
        message: raw.message.into_owned(),
        reason: raw.reason.into_owned(),
        metadata,
        reporting_controller: raw.reporting_controller.into_owned(),
        reporting_instance: raw.reporting_instance.into_owned(),
        received_at: Some(to_proto(received_at)),
        labels,
        ..Event::default()
    };
    event.dedupe_key = id::dedupe_key(&event, &discriminators);
    event.id = id::event_id(&event.dedupe_key, received_at.as_nanosecond());
    Ok(event)
}

/// Keeps keys with the prefix of event annotations or of the object's API group (`/` for the core
/// group). Removes keys that only distinguish events.
fn split_metadata(
    entries: Vec<(Cow<'_, str>, Cow<'_, str>)>,
    group: &str,
) -> (BTreeMap<String, String>, Discriminators) {
    let mut discriminators = Discriminators::default();
    let mut metadata = BTreeMap::new();
    for (key, value) in entries {
        let own = key
            .strip_prefix(group)
            .and_then(|rest| rest.strip_prefix('/'));
        let annotation = key
            .strip_prefix(flux::EVENT_GROUP)
            .is_some_and(|rest| rest.starts_with('/'));
        match own {
            Some("originRevision") => {
                discriminators.origin_revision = Some(value.as_ref().to_owned())
            }
            Some("revision") => discriminators.revision = Some(value.as_ref().to_owned()),
            Some("token") => discriminators.token = Some(value.as_ref().to_owned()),
            _ => {}
        }
        let is_removed = own.is_some_and(|name| {
            name == "token"
                || name.eq_ignore_ascii_case("checksum")
                || name.eq_ignore_ascii_case("digest")
        });
        if (own.is_some() || annotation) && !is_removed {
            metadata.insert(key.into_owned(), value.into_owned());
        }
    }
    (metadata, discriminators)
}

fn to_reference(object: RawObject<'_>) -> ObjectReference {
    ObjectReference {
        api_version: object.api_version.into_owned(),
        kind: object.kind.into_owned(),
        namespace: object.namespace.into_owned(),
        name: object.name.into_owned(),
        uid: object.uid.into_owned(),
        resource_version: object.resource_version.into_owned(),
        field_path: object.field_path.into_owned(),
    }
}

fn shorten(text: String) -> String {
    let length = text.chars().count();
    if length <= 2 * MAX_QUOTED_CHARS {
        return text;
    }
    let start: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    let end: String = text.chars().skip(length - MAX_QUOTED_CHARS).collect();
    format!("{start} … {end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: jiff::Timestamp = jiff::Timestamp::constant(1_767_323_045, 500);

    fn with_metadata(api_version: &str, metadata: &str) -> Event {
        let object = format!(r#"{{"apiVersion":"{api_version}","kind":"A","name":"b"}}"#);
        let json = format!(r#"{{"involvedObject":{object},"metadata":{metadata}}}"#);
        parse_event(json.as_bytes(), "default", NOW, None).unwrap()
    }

    fn kept(api_version: &str, metadata: &str) -> String {
        with_metadata(api_version, metadata)
            .metadata
            .into_keys()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn only_annotations_and_keys_of_the_objects_group_are_kept() {
        for (api_version, metadata, expected) in [
            (
                "a.b/v1",
                r#"{"a.b/x":"","event.toolkit.fluxcd.io/y":"","x":"","c.d/x":""}"#,
                "a.b/x event.toolkit.fluxcd.io/y",
            ),
            (
                "a.b/v1",
                r#"{"a.bx/r":"","a.b":"","xa.b/r":"","A.b/r":"","event.toolkit.fluxcd.ios/x":""}"#,
                "",
            ),
            (
                "a.b/v1",
                r#"{"a.b/":"","event.toolkit.fluxcd.io/":"","a.b/c/d":""}"#,
                "a.b/ a.b/c/d event.toolkit.fluxcd.io/",
            ),
            ("v1", r#"{"/x":"","x":"","v1/x":""}"#, "/x"),
            ("a/b/c", r#"{"a/x":"","/x":""}"#, "/x"),
            ("", r#"{"a.b/x":"","/x":""}"#, "/x"),
        ] {
            assert_eq!(
                kept(api_version, metadata),
                expected,
                "{api_version} {metadata}"
            );
        }
    }

    #[test]
    fn checksum_digest_and_token_of_the_objects_group_are_removed() {
        let event_group =
            r#"{"event.toolkit.fluxcd.io/digest":"","event.toolkit.fluxcd.io/token":""}"#;
        assert_eq!(
            kept("a.b/v1", event_group),
            "event.toolkit.fluxcd.io/digest event.toolkit.fluxcd.io/token"
        );
        assert_eq!(
            kept(
                "a.b/v1",
                r#"{"a.b/Checksum":"","a.b/DIGEST":"","a.b/token":"","a.b/Token":""}"#
            ),
            "a.b/Token"
        );
    }

    #[test]
    fn the_dedupe_key_covers_revision_and_token_and_no_other_metadata() {
        let key = |metadata: &str| with_metadata("a.b/v1", metadata).dedupe_key;
        let none = key("{}");
        for other in [
            r#"{"a.b/revision":""}"#,
            r#"{"a.b/originRevision":"1"}"#,
            r#"{"a.b/token":"1"}"#,
        ] {
            assert_ne!(key(other), none, "{other}");
        }
        for same in [
            r#"{"a.b/digest":"1"}"#,
            r#"{"a.b/commit_status":"update"}"#,
            r#"{"event.toolkit.fluxcd.io/revision":"1"}"#,
        ] {
            assert_eq!(key(same), none, "{same}");
        }
        assert_eq!(
            key(r#"{"a.b/revision":"1","a.b/revision":"2"}"#),
            key(r#"{"a.b/revision":"2"}"#)
        );
    }

    #[test]
    fn an_event_without_an_object_is_rejected() {
        let rejected = |json: &str| parse_event(json.as_bytes(), "default", NOW, None).unwrap_err();
        for json in [
            "{}",
            "null",
            r#"{"involvedObject":null}"#,
            r#"{"involvedObject":{"name":"a"}}"#,
        ] {
            assert_eq!(rejected(json), InvalidEvent::MissingField("kind"), "{json}");
        }
        assert_eq!(
            rejected(r#"{"involvedObject":{"kind":"A","name":""}}"#),
            InvalidEvent::MissingField("name")
        );
    }

    #[test]
    fn an_event_has_its_cluster_and_time_of_receipt() {
        let event = with_metadata("v1", "{}");
        assert_eq!(
            (event.cluster.as_str(), event.received_at),
            ("default", Some(to_proto(NOW)))
        );
        assert_eq!(
            to_proto(NOW),
            ProtoTimestamp {
                seconds: 1_767_323_045,
                nanos: 500
            }
        );
        let early = jiff::Timestamp::constant(-1, -1);
        assert_eq!(
            to_proto(early),
            ProtoTimestamp {
                seconds: -2,
                nanos: 999_999_999
            }
        );
        assert_ne!(
            parse_event(SAMPLE, "a", NOW, None).unwrap().id,
            parse_event(SAMPLE, "a", early, None).unwrap().id
        );
    }

    #[test]
    fn an_error_quotes_only_part_of_the_input() {
        let json = format!(r#"{{"involvedObject":"{}"}}"#, "é".repeat(1000));
        let message = parse_event(json.as_bytes(), "default", NOW, None)
            .unwrap_err()
            .to_string();
        assert!(
            message.len() < 1000 && message.contains("expected a JSON object in involvedObject"),
            "{message}"
        );
    }

    const SAMPLE: &[u8] = br#"{"involvedObject":{"kind":"A","name":"b"}}"#;

    fn event_json() -> impl Strategy<Value = serde_json::Value> {
        let key = prop_oneof![
            "(a\\.b|event\\.toolkit\\.fluxcd\\.io|)/(token|revision|digest|x|)",
            ".{0,8}",
        ];
        let metadata = prop::collection::btree_map(key, ".{0,8}", 0..6);
        let seconds = prop::option::of(-62_135_596_800i64..253_370_764_800);
        let api_version = prop_oneof![Just("a.b/v1"), Just("v1"), Just("")];
        (".{1,5}", ".{1,5}", api_version, ".{0,9}", metadata, seconds).prop_map(
            |(kind, name, api_version, message, metadata, seconds)| {
                let timestamp = seconds
                    .and_then(|seconds| flux::rfc3339(&ProtoTimestamp { seconds, nanos: 0 }));
                serde_json::json!({
                    "involvedObject": {"kind": kind, "name": name, "apiVersion": api_version},
                    "message": message,
                    "metadata": metadata,
                    "timestamp": timestamp,
                })
            },
        )
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_event(&bytes, "default", NOW, None);
        }

        #[test]
        fn a_damaged_event_does_not_panic(
            json in event_json(),
            at in 0usize..400,
            byte in any::<u8>(),
        ) {
            let mut bytes = json.to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse_event(&bytes, "default", NOW, None);
        }

        #[test]
        fn normalizing_a_normalized_event_changes_nothing(json in event_json()) {
            let once = parse_event(json.to_string().as_bytes(), "default", NOW, None).unwrap();
            let body = flux::to_json(&once, &once.metadata);
            let again = parse_event(&body, "default", NOW, None).unwrap();
            // The ids differ if a token was removed.
            let (id, dedupe_key) = (once.id.clone(), once.dedupe_key.clone());
            prop_assert_eq!(Event { id, dedupe_key, ..again }, once);
        }
    }
}
