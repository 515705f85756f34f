//! Converts a Kubernetes Event to the form of an event received over HTTP. Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use tidings_core::model::flux;
use tidings_core::runtime::config::Severity;

use crate::decode::{RawEvent, RawObject};

/// The prefix that client-go adds when it combines similar Events.
const AGGREGATED_PREFIX: &str = "(combined from similar events): ";

/// When an Event occurred, by the clock of its reporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTimes {
    /// The first occurrence.
    pub first: Timestamp,
    /// The latest occurrence.
    pub last: Timestamp,
}

/// The times of an Event: from its series, else from the fields that older clients update, else
/// from the Event itself.
pub fn times(event: &Event) -> EventTimes {
    let created = event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    let at = event.event_time.as_ref().map(|time| time.0);
    let series = event
        .series
        .as_ref()
        .map(|series| series.last_observed_time.0);
    let [first, last] = [
        &event.deprecated_first_timestamp,
        &event.deprecated_last_timestamp,
    ]
    .map(|time| time.as_ref().map(|time| time.0));
    let last = series.or(last).or(at).or(created).unwrap_or_default();
    EventTimes {
        first: first.or(at).or(created).unwrap_or(last).min(last),
        last,
    }
}

/// When the API server stored this state of the Event, by its own clock, in whole seconds.
pub fn stored_at(event: &Event) -> Option<Timestamp> {
    let written = event
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.time.as_ref());
    written
        .chain(&event.metadata.creation_timestamp)
        .map(|time| time.0)
        .max()
}

/// Converts an Event. `repeat` is the number of intervals since the first occurrence. If it is not
/// 0, the event gets a token, and so another dedupe key.
pub fn raw_event<'a>(event: &'a Event, severities: &[Severity], repeat: u64) -> RawEvent<'a> {
    let source = event.deprecated_source.as_ref();
    let controller = non_empty(&event.reporting_controller)
        .or_else(|| source.and_then(|source| non_empty(&source.component)));
    let instance = non_empty(&event.reporting_instance)
        .or_else(|| source.and_then(|source| non_empty(&source.host)));
    let involved_object = object(event);
    let note = event.note.as_deref().unwrap_or_default();
    RawEvent {
        severity: Cow::Owned(severity(event, severities).to_owned()),
        timestamp: Some(times(event).last.as_second()),
        message: note.strip_prefix(AGGREGATED_PREFIX).unwrap_or(note).into(),
        reason: event.reason.as_deref().unwrap_or_default().into(),
        metadata: metadata(event, flux::api_group(&involved_object.api_version), repeat),
        reporting_controller: controller.unwrap_or_default().into(),
        reporting_instance: instance.unwrap_or_default().into(),
        involved_object,
    }
}

/// The annotations, and a token if `repeat` is not 0. [`crate::normalize`] keeps only annotations
/// with Flux's prefixes.
fn metadata<'a>(event: &'a Event, group: &str, repeat: u64) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let annotations = event.metadata.annotations.iter().flatten();
    let mut metadata: Vec<(Cow<str>, Cow<str>)> = annotations
        .map(|(key, value)| (Cow::from(key), Cow::from(value)))
        .collect();
    if repeat > 0 {
        let key = format!("{group}/token");
        let own = event
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(&key));
        let token = format!("{}#{repeat}", own.map_or("", String::as_str));
        // The last value of a repeated key wins.
        metadata.push((key.into(), token.into()));
    }
    metadata
}

/// The involved object. A cluster-scoped object, such as a Node, gets the Event's namespace,
/// because the event sources of Alerts have a namespace.
fn object(event: &Event) -> RawObject<'_> {
    static NO_OBJECT: ObjectReference = ObjectReference {
        api_version: None,
        field_path: None,
        kind: None,
        name: None,
        namespace: None,
        resource_version: None,
        uid: None,
    };
    let object = event.regarding.as_ref().unwrap_or(&NO_OBJECT);
    fn text(field: &Option<String>) -> Cow<'_, str> {
        field.as_deref().unwrap_or_default().into()
    }
    RawObject {
        api_version: text(&object.api_version),
        kind: text(&object.kind),
        namespace: non_empty(&object.namespace)
            .or_else(|| non_empty(&event.metadata.namespace))
            .unwrap_or_default()
            .into(),
        name: text(&object.name),
        uid: text(&object.uid),
        resource_version: text(&object.resource_version),
        field_path: text(&object.field_path),
    }
}

fn severity<'a>(event: &Event, severities: &'a [Severity]) -> &'a str {
    let mapped = |name: &Option<String>| {
        severities
            .iter()
            .find(|severity| Some(&severity.of) == name.as_ref())
    };
    match mapped(&event.reason).or_else(|| mapped(&event.type_)) {
        Some(severity) => &severity.severity,
        None if event.type_.as_deref() == Some("Warning") => "error",
        None => "info",
    }
}

fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::normalize;

    fn event(fields: Value) -> Event {
        let mut event = json!({
            "metadata": {
                "namespace": "apps",
                "name": "api.1",
                "creationTimestamp": "2026-01-02T03:04:05Z",
            },
            "eventTime": null,
            "type": "Warning",
            "reason": "BackOff",
            "note": "Back-off restarting",
            "regarding": {"kind": "Pod", "apiVersion": "v1", "namespace": "apps", "name": "api"},
        });
        let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) else {
            unreachable!()
        };
        event.extend(fields);
        serde_json::from_value(Value::Object(event.clone())).unwrap()
    }

    fn normalized(event: &Event, repeat: u64) -> tidings_core::Event {
        normalize::normalize(
            raw_event(event, &[], repeat),
            "default",
            Timestamp::UNIX_EPOCH,
            None,
        )
        .unwrap()
    }

    #[test]
    fn an_event_is_converted_to_fluxs_fields() {
        let event = event(json!({
            "note": "(combined from similar events): Back-off",
            "deprecatedSource": {"component": "kubelet", "host": "node-1"},
            "deprecatedFirstTimestamp": "2026-01-02T03:04:05Z",
            "deprecatedLastTimestamp": "2026-01-02T03:04:15Z",
        }));
        let raw = raw_event(&event, &[], 0);
        assert_eq!(
            (
                raw.message.as_ref(),
                raw.reason.as_ref(),
                raw.severity.as_ref()
            ),
            ("Back-off", "BackOff", "error")
        );
        assert_eq!(
            (
                raw.reporting_controller.as_ref(),
                raw.reporting_instance.as_ref()
            ),
            ("kubelet", "node-1")
        );
        assert_eq!(raw.timestamp, Some(1_767_323_055));
        assert_eq!(
            (
                raw.involved_object.kind.as_ref(),
                raw.involved_object.namespace.as_ref()
            ),
            ("Pod", "apps")
        );
    }

    #[test]
    fn the_times_are_those_of_the_first_and_latest_occurrence() {
        let at = |seconds: i64| Timestamp::from_second(1_767_323_045 + seconds).unwrap();
        for (fields, first, last) in [
            (json!({}), 0, 0),
            (json!({"eventTime": "2026-01-02T03:04:10.000000Z"}), 5, 5),
            (
                json!({
                    "deprecatedFirstTimestamp": "2026-01-02T03:04:06Z",
                    "deprecatedLastTimestamp": "2026-01-02T03:04:25Z",
                }),
                1,
                20,
            ),
            (
                json!({
                    "eventTime": "2026-01-02T03:04:10.000000Z",
                    "series": {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"},
                }),
                5,
                60,
            ),
            (
                json!({
                    "deprecatedFirstTimestamp": "2026-01-02T03:04:06Z",
                    "deprecatedLastTimestamp": "2026-01-02T03:04:05Z",
                }),
                0,
                0,
            ),
        ] {
            assert_eq!(
                times(&event(fields.clone())),
                EventTimes {
                    first: at(first),
                    last: at(last)
                },
                "{fields}"
            );
        }
    }

    #[test]
    fn the_severity_follows_from_the_reason_then_the_type() {
        let severities =
            [("BackOff", "warn"), ("Normal", "trace")].map(|(of, severity)| Severity {
                of: of.to_owned(),
                severity: severity.to_owned(),
            });
        for (kind, reason, plain, mapped) in [
            ("Warning", "BackOff", "error", "warn"),
            ("Warning", "Failed", "error", "error"),
            ("Normal", "Pulled", "info", "trace"),
            ("Normal", "BackOff", "info", "warn"),
            ("Other", "Pulled", "info", "info"),
        ] {
            let event = event(json!({"type": kind, "reason": reason}));
            assert_eq!(
                (severity(&event, &[]), severity(&event, &severities)),
                (plain, mapped),
                "{kind} {reason}"
            );
        }
    }

    #[test]
    fn annotations_with_fluxs_prefixes_are_metadata() {
        let annotations = json!({
            "a.b/revision": "1",
            "event.toolkit.fluxcd.io/x": "y",
            "other/z": "",
            "a.b/token": "t",
        });
        let event = event(json!({
            "metadata": {"namespace": "apps", "annotations": annotations},
            "regarding": {"kind": "A", "apiVersion": "a.b/v1", "name": "x"},
        }));
        let keys: Vec<_> = normalized(&event, 0).metadata.into_keys().collect();
        assert_eq!(keys, ["a.b/revision", "event.toolkit.fluxcd.io/x"]);
        assert!(!normalized(&event, 3).metadata.contains_key("a.b/token"));
    }

    #[test]
    fn a_recurring_event_has_another_dedupe_key_in_each_interval() {
        let plain = event(json!({}));
        let posted = json!({
            "involvedObject": {
                "kind": "Pod", "apiVersion": "v1", "namespace": "apps", "name": "api",
            },
            "severity": "error",
            "message": "Back-off restarting",
            "reason": "BackOff",
        })
        .to_string();
        let by_http =
            normalize::parse_event(posted.as_bytes(), "default", Timestamp::UNIX_EPOCH, None)
                .unwrap();
        let key = |repeat| normalized(&plain, repeat).dedupe_key;
        assert_eq!(
            key(0),
            by_http.dedupe_key,
            "the first occurrence has the same key as over HTTP"
        );
        assert!(key(1) != key(0) && key(2) != key(1) && key(1) == key(1));
    }

    #[test]
    fn an_object_without_a_namespace_gets_the_events_namespace() {
        let node = event(json!({
            "metadata": {"namespace": "default"},
            "regarding": {"kind": "Node", "name": "node-1"},
        }));
        assert_eq!(
            raw_event(&node, &[], 0).involved_object.namespace,
            "default"
        );
    }

    #[test]
    fn the_time_of_storage_is_the_latest_time_of_the_api_server() {
        let event = event(json!({"metadata": {
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [
                {"time": "2026-01-02T03:04:09Z"}, {"time": "2026-01-02T03:04:07Z"}, {},
            ],
        }}));
        assert_eq!(
            stored_at(&event).map(Timestamp::as_second),
            Some(1_767_323_049)
        );
        assert_eq!(stored_at(&Event::default()), None);
    }
}
