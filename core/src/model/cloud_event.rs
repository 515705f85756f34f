//! An event as a CloudEvent 1.0 in structured JSON, for consumers without protobuf.
//!
//! `tidings tap --output cloudevents` and `tidings bridge` write it. Its schema is
//! `proto/tidings/v1/cloudevent.schema.json`: attributes and fields are only added.
//!
//! | attribute | value |
//! |---|---|
//! | `id` | the id of the event |
//! | `source` | `/clusters/<cluster>/<reporting controller>`, percent-encoded |
//! | `type` | [`TYPE`] |
//! | `subject` | `<kind>/<namespace>/<name>`, `<kind>/<name>` without a namespace |
//! | `time` | when it happened; if the sender gave no time, when ingest received it |
//! | `cluster`, `severity` | extensions: the cluster, and the severity as in the subject |
//! | `data` | the event as [`to_json`] writes it |

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tidings_proto::v1::{Event, ObjectReference};

use crate::model::time::from_proto;
use crate::model::{flux, subject};

/// The `type` of every event. A change that is not additive would have another one.
pub const TYPE: &str = "dev.tidings.event.v1";
/// The media type of a CloudEvent in structured JSON.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// What a segment of a path may contain (RFC 3986, unreserved characters).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The event as JSON: Flux's fields, and `id`, `cluster` and `receivedAt` of Tidings.
pub fn to_json(event: &Event) -> Value {
    let mut value = flux::to_value(event, &event.metadata);
    value["id"] = event.id.clone().into();
    value["cluster"] = event.cluster.clone().into();
    value["receivedAt"] = match from_proto(event.received_at) {
        Some(time) => format!("{time:.3}").into(),
        None => Value::Null,
    };
    value
}

/// The event as a CloudEvent. `None` if it has no id, which no event of an ingest lacks.
///
/// # Guarantees
/// The same event gives the same CloudEvent in every process.
pub fn cloud_event(event: &Event) -> Option<Value> {
    if event.id.is_empty() {
        return None;
    }
    let mut attributes = Map::new();
    let mut set = |name: &str, value: &str| attributes.insert(name.to_owned(), text(value).into());
    set("specversion", "1.0");
    set("id", &event.id);
    set("source", &source(event));
    set("type", TYPE);
    if let Some(subject) = event.involved_object.as_ref().and_then(object_path) {
        set("subject", &subject);
    }
    if let Some(time) = time(event) {
        set("time", &time);
    }
    set("datacontenttype", "application/json");
    // An empty attribute is not allowed; a foreign client may publish an event without a cluster.
    if !event.cluster.is_empty() {
        set("cluster", &event.cluster);
    }
    set("severity", subject::severity_token(&event.severity));
    attributes.insert("data".to_owned(), to_json(event));
    Some(Value::Object(attributes))
}

fn source(event: &Event) -> String {
    let encoded = |text| utf8_percent_encode(text, SEGMENT).to_string();
    let cluster = encoded(&event.cluster);
    match event.reporting_controller.as_str() {
        "" => format!("/clusters/{cluster}"),
        controller => format!("/clusters/{cluster}/{}", encoded(controller)),
    }
}

fn object_path(object: &ObjectReference) -> Option<String> {
    let parts = [&object.kind, &object.namespace, &object.name];
    let given: Vec<&str> = parts
        .into_iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    (!given.is_empty()).then(|| given.join("/"))
}

fn time(event: &Event) -> Option<String> {
    let happened = event.timestamp.as_ref().and_then(flux::rfc3339);
    happened.or_else(|| Some(format!("{:.3}", from_proto(event.received_at)?)))
}

/// A text without the characters that an attribute must not contain: controls and noncharacters.
fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(is_forbidden) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(is_forbidden, "\u{fffd}"))
}

fn is_forbidden(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use tidings_proto::Timestamp;

    use super::*;

    fn event() -> Event {
        Event {
            id: "id-1".into(),
            cluster: "prod eu/1".into(),
            involved_object: Some(ObjectReference {
                kind: "HelmRelease".into(),
                namespace: "apps".into(),
                name: "web".into(),
                ..ObjectReference::default()
            }),
            severity: "warning".into(),
            timestamp: Some(Timestamp {
                seconds: 1_767_323_045,
                nanos: 0,
            }),
            message: "failed".into(),
            reason: "InstallFailed".into(),
            reporting_controller: "helm-controller".into(),
            received_at: Some(Timestamp {
                seconds: 1_767_323_046,
                nanos: 7_000_000,
            }),
            ..Event::default()
        }
    }

    #[test]
    fn every_attribute_follows_from_the_event() {
        let mapped = cloud_event(&event()).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0",
            "id": "id-1",
            "source": "/clusters/prod%20eu%2F1/helm-controller",
            "type": "dev.tidings.event.v1",
            "subject": "HelmRelease/apps/web",
            "time": "2026-01-02T03:04:05Z",
            "datacontenttype": "application/json",
            "cluster": "prod eu/1",
            "severity": "warn",
            "data": {
                "involvedObject": {"kind": "HelmRelease", "namespace": "apps", "name": "web"},
                "severity": "warning",
                "timestamp": "2026-01-02T03:04:05Z",
                "message": "failed",
                "reason": "InstallFailed",
                "reportingController": "helm-controller",
                "id": "id-1",
                "cluster": "prod eu/1",
                "receivedAt": "2026-01-02T03:04:06.007Z",
            },
        });
        assert_eq!(mapped, expected);
    }

    #[test]
    fn what_the_event_lacks_is_omitted_or_replaced() {
        let bare = Event {
            id: "id-2".into(),
            received_at: event().received_at,
            ..Event::default()
        };
        let mapped = cloud_event(&bare).unwrap();
        assert_eq!(mapped["source"], "/clusters/");
        assert_eq!(mapped["time"], "2026-01-02T03:04:06.007Z");
        assert_eq!(mapped["severity"], "other");
        for name in ["subject", "cluster"] {
            assert!(mapped.get(name).is_none(), "{name}");
        }
        let of_cluster = ObjectReference {
            kind: "Node".into(),
            name: "one".into(),
            ..ObjectReference::default()
        };
        assert_eq!(object_path(&of_cluster).as_deref(), Some("Node/one"));
        assert_eq!(cloud_event(&Event::default()), None);
    }

    #[test]
    fn attributes_have_no_forbidden_characters_and_data_keeps_them() {
        let mut foreign = event();
        foreign.cluster = "a\u{1b}b\u{fffe}c\u{fdd0}é".into();
        let mapped = cloud_event(&foreign).unwrap();
        assert_eq!(mapped["cluster"], "a\u{fffd}b\u{fffd}c\u{fffd}é");
        assert_eq!(mapped["data"]["cluster"], foreign.cluster);
    }
}
