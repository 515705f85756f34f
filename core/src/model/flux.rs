//! An event as JSON of Flux's notification API (`event.toolkit.fluxcd.io`, v1beta1), byte for byte
//! as Flux's controllers write it.
//!
//! Field order and escaping are those of Go's `encoding/json`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use tidings_proto::Timestamp;
use tidings_proto::v1::{Event, ObjectReference};

/// The prefix of metadata keys that users set as annotations.
pub const EVENT_GROUP: &str = "event.toolkit.fluxcd.io";

/// The API group of an object's `apiVersion`. Empty for the core group and for an invalid text.
pub fn api_group(api_version: &str) -> &str {
    match api_version.split_once('/') {
        Some((group, version)) if !version.contains('/') => group,
        _ => "",
    }
}

/// A metadata value that the user set as an annotation (`event.toolkit.fluxcd.io/KEY`).
pub fn annotation<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    event
        .metadata
        .get(&format!("{EVENT_GROUP}/{key}"))
        .map(String::as_str)
}

/// A metadata value that the controller set: the key has the object's API group (`<group>/KEY`).
pub fn controller_metadata<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    let group = event
        .involved_object
        .as_ref()
        .map_or("", |object| api_group(&object.api_version));
    event
        .metadata
        .get(&format!("{group}/{key}"))
        .map(String::as_str)
}

/// Whether a value in the metadata of a delivery comes from the event: the controller set it, or an
/// annotation has the same value. Otherwise the Alert set it.
pub fn is_of_event(event: &Event, key: &str, value: &str) -> bool {
    controller_metadata(event, key).is_some() || annotation(event, key) == Some(value)
}

/// Whether the sender asks for an update of the commit status (`commit_status: update`).
pub fn is_status_update(event: &Event) -> bool {
    controller_metadata(event, "commit_status") == Some("update")
}

/// The event with the given metadata as Flux's JSON: times are in UTC and whole seconds, empty
/// metadata and an empty instance are omitted, and `<`, `>` and `&` are escaped.
pub fn to_json(event: &Event, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    to_go_json(&EventJson::new(event, metadata))
}

/// The size of [`to_json`] in bytes.
pub fn json_size(event: &Event, metadata: &BTreeMap<String, String>) -> usize {
    go_json_size(&EventJson::new(event, metadata)).unwrap_or_default()
}

/// The same as [`to_json`], as a value for expressions and templates.
pub fn to_value(event: &Event, metadata: &BTreeMap<String, String>) -> serde_json::Value {
    serde_json::to_value(EventJson::new(event, metadata)).unwrap_or_default()
}

/// A value as JSON with the escapes of Go: also `<`, `>`, `&`, U+2028 and U+2029. The size is
/// counted first, because a buffer that grows needs up to three times the memory.
pub fn to_go_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(go_json_size(value).unwrap_or_default());
    let written = value.serialize(&mut Serializer::with_formatter(&mut json, GoEscapes));
    // A Vec takes all bytes.
    written.map(|()| json).unwrap_or_default()
}

fn go_json_size(value: &impl Serialize) -> serde_json::Result<usize> {
    let mut size = Size(0);
    value.serialize(&mut Serializer::with_formatter(&mut size, GoEscapes))?;
    Ok(size.0)
}

struct Size(usize);

impl Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct GoEscapes;

impl Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let (bytes, mut written) = (fragment.as_bytes(), 0);
        for (at, byte) in bytes.iter().enumerate() {
            let (escape, length) = match (byte, &bytes[at + 1..]) {
                (b'<', _) => (b"\\u003c", 1),
                (b'>', _) => (b"\\u003e", 1),
                (b'&', _) => (b"\\u0026", 1),
                (0xe2, [0x80, 0xa8, ..]) => (b"\\u2028", 3),
                (0xe2, [0x80, 0xa9, ..]) => (b"\\u2029", 3),
                _ => continue,
            };
            writer.write_all(&bytes[written..at])?;
            writer.write_all(escape)?;
            written = at + length;
        }
        writer.write_all(&bytes[written..])
    }
}

/// Formats a time as RFC 3339 in UTC and whole seconds. `None` if it is out of range.
pub fn rfc3339(timestamp: &Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_second(timestamp.seconds).ok()?;
    strtime::format("%Y-%m-%dT%H:%M:%SZ", &time.to_zoned(TimeZone::UTC)).ok()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    involved_object: ObjectJson<'a>,
    severity: &'a str,
    timestamp: Option<String>,
    message: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    reporting_controller: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reporting_instance: &'a str,
}

impl<'a> EventJson<'a> {
    fn new(event: &'a Event, metadata: &'a BTreeMap<String, String>) -> Self {
        Self {
            involved_object: event
                .involved_object
                .as_ref()
                .map(ObjectJson::from)
                .unwrap_or_default(),
            severity: &event.severity,
            timestamp: event.timestamp.as_ref().and_then(rfc3339),
            message: &event.message,
            reason: &event.reason,
            metadata,
            reporting_controller: &event.reporting_controller,
            reporting_instance: &event.reporting_instance,
        }
    }
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct ObjectJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    field_path: &'a str,
}

impl<'a> From<&'a ObjectReference> for ObjectJson<'a> {
    fn from(object: &'a ObjectReference) -> Self {
        Self {
            kind: &object.kind,
            namespace: &object.namespace,
            name: &object.name,
            uid: &object.uid,
            api_version: &object.api_version,
            resource_version: &object.resource_version,
            field_path: &object.field_path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_flux_writes_it() {
        let object = ObjectReference {
            kind: "Kustomization".into(),
            name: "a".into(),
            ..Default::default()
        };
        let event = Event {
            involved_object: Some(object),
            severity: "info".into(),
            timestamp: Some(Timestamp {
                seconds: 1_767_323_045,
                nanos: 5,
            }),
            message: "<b> & \u{2028}é".into(),
            ..Default::default()
        };
        let metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let json = String::from_utf8(to_json(&event, &metadata)).unwrap();
        assert_eq!(json.len(), json_size(&event, &metadata));
        assert_eq!(
            json,
            [
                r#"{"involvedObject":{"kind":"Kustomization","name":"a"},"severity":"info","#,
                r#""timestamp":"2026-01-02T03:04:05Z","message":"\u003cb\u003e \u0026 \u2028é","#,
                r#""reason":"","metadata":{"k":"v"},"reportingController":""}"#,
            ]
            .concat()
        );
    }

    #[test]
    fn an_api_version_without_a_group_belongs_to_the_core_group() {
        for (api_version, group) in [
            (
                "kustomize.toolkit.fluxcd.io/v1",
                "kustomize.toolkit.fluxcd.io",
            ),
            ("v1", ""),
            ("a/b/c", ""),
            ("", ""),
        ] {
            assert_eq!(api_group(api_version), group, "{api_version}");
        }
    }
}
