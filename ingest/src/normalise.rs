//! From a report to the event that is stored: metadata cleaned up, ids drawn. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use thiserror::Error;
use tidings_core::model::flux;
use tidings_core::model::id::{self, Discriminators};
use tidings_core::model::time::to_proto;
use tidings_core::{Event, ObjectLabels, ObjectReference, ProtoTimestamp};

use crate::decode::{self, RawEvent, RawObject};

/// How much of a decoder's sentence is told at either end: it quotes what it read, which may be
/// large.
const QUOTED: usize = 150;

/// Why a report is not an event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It is not one JSON document, or a field has the wrong type.
    #[error("the event can't be read as JSON: {0}")]
    Unreadable(String),
    /// It does not say what it is about: no rule could ever match it.
    #[error("the event has no involvedObject.{0}, which says what it is about")]
    Missing(&'static str),
}

/// Turns the bytes of a report into an event of this cluster, with its ids.
///
/// # Guarantees
/// Pure: equal arguments give an equal event.
///
/// # Errors
/// See [`Refused`]; sending the same again can't help.
pub fn take(
    bytes: &[u8],
    cluster: &str,
    received_at: jiff::Timestamp,
    labels: Option<ObjectLabels>,
) -> Result<Event, Refused> {
    let text = decode::text(bytes);
    let raw =
        decode::decode(&text).map_err(|error| Refused::Unreadable(shorten(error.to_string())))?;
    normalise(raw, cluster, received_at, labels)
}

/// Turns a decoded report into an event of this cluster, with its ids.
///
/// # Errors
/// [`Refused::Missing`] when the object has no kind or no name.
pub fn normalise(
    raw: RawEvent<'_>,
    cluster: &str,
    received_at: jiff::Timestamp,
    labels: Option<ObjectLabels>,
) -> Result<Event, Refused> {
    let object = raw.involved_object;
    if object.kind.is_empty() {
        return Err(Refused::Missing("kind"));
    }
    if object.name.is_empty() {
        return Err(Refused::Missing("name"));
    }
    let (metadata, discriminators) = clean_up(raw.metadata, flux::api_group(&object.api_version));
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

/// Keeps the keys of the user's annotations and of the object's own group (the core group's prefix
/// is `/`); takes out what only tells events apart.
fn clean_up(
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
        let dropped = own.is_some_and(|name| {
            name == "token"
                || name.eq_ignore_ascii_case("checksum")
                || name.eq_ignore_ascii_case("digest")
        });
        if (own.is_some() || annotation) && !dropped {
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

fn shorten(sentence: String) -> String {
    let length = sentence.chars().count();
    if length <= 2 * QUOTED {
        return sentence;
    }
    let start: String = sentence.chars().take(QUOTED).collect();
    let end: String = sentence.chars().skip(length - QUOTED).collect();
    format!("{start} … {end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: jiff::Timestamp = jiff::Timestamp::constant(1_767_323_045, 500);

    fn with_metadata(api_version: &str, metadata: &str) -> Event {
        let json = format!(
            r#"{{"involvedObject":{{"apiVersion":"{api_version}","kind":"Kustomization","name":"apps"}},"metadata":{metadata}}}"#
        );
        take(json.as_bytes(), "default", NOW, None).unwrap()
    }

    fn kept(api_version: &str, metadata: &str) -> String {
        with_metadata(api_version, metadata)
            .metadata
            .into_keys()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn only_annotations_and_keys_of_the_objects_group_stay() {
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
    fn checksum_digest_and_token_of_the_objects_group_are_taken_out() {
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
    fn what_tells_events_apart_is_in_the_dedupe_key_and_nothing_else_of_the_metadata() {
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
    fn an_event_says_what_it_is_about() {
        let refusal = |json: &str| take(json.as_bytes(), "default", NOW, None).unwrap_err();
        for json in [
            "{}",
            "null",
            r#"{"involvedObject":null}"#,
            r#"{"involvedObject":{"name":"a"}}"#,
        ] {
            assert_eq!(refusal(json), Refused::Missing("kind"), "{json}");
        }
        assert_eq!(
            refusal(r#"{"involvedObject":{"kind":"A","name":""}}"#),
            Refused::Missing("name")
        );
    }

    #[test]
    fn an_event_bears_the_name_of_its_cluster_and_the_time_of_its_receipt() {
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
            take(SAMPLE, "a", NOW, None).unwrap().id,
            take(SAMPLE, "a", early, None).unwrap().id
        );
    }

    #[test]
    fn a_refusal_quotes_little_of_what_was_sent() {
        let json = format!(r#"{{"involvedObject":"{}"}}"#, "é".repeat(1000));
        let sentence = take(json.as_bytes(), "default", NOW, None)
            .unwrap_err()
            .to_string();
        assert!(
            sentence.len() < 1000 && sentence.contains("expected a JSON object in involvedObject"),
            "{sentence}"
        );
    }

    const SAMPLE: &[u8] = br#"{"involvedObject":{"kind":"A","name":"b"}}"#;

    fn report() -> impl Strategy<Value = serde_json::Value> {
        let key = prop_oneof![
            "(a\\.b|event\\.toolkit\\.fluxcd\\.io|)/(token|revision|digest|x|)",
            ".{0,8}",
        ];
        let metadata = prop::collection::btree_map(key, ".{0,8}", 0..6);
        let seconds = prop::option::of(-62_135_596_800i64..253_370_764_800);
        (".{1,5}", ".{1,5}", prop_oneof![Just("a.b/v1"), Just("v1"), Just("")], ".{0,9}", metadata, seconds).prop_map(
            |(kind, name, api_version, message, metadata, seconds)| {
                let timestamp = seconds.and_then(|seconds| flux::rfc3339(&ProtoTimestamp { seconds, nanos: 0 }));
                let object = serde_json::json!({"kind": kind, "name": name, "apiVersion": api_version});
                serde_json::json!({"involvedObject": object, "message": message, "metadata": metadata, "timestamp": timestamp})
            },
        )
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = take(&bytes, "default", NOW, None);
        }

        #[test]
        fn no_damage_to_a_report_makes_it_panic(report in report(), at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = report.to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = take(&bytes, "default", NOW, None);
        }

        #[test]
        fn what_was_normalised_stays_as_it_is(report in report()) {
            let once = take(report.to_string().as_bytes(), "default", NOW, None).unwrap();
            let again = take(&flux::to_json(&once, &once.metadata), "default", NOW, None).unwrap();
            // The ids differ where a token was taken out.
            let ids = Event { id: once.id.clone(), dedupe_key: once.dedupe_key.clone(), ..again };
            prop_assert_eq!(ids, once);
        }
    }
}
