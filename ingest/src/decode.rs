//! Decodes the JSON of an event as Flux's notification API does. Strings are borrowed from the
//! body.
//!
//! Field names are case-sensitive, and unknown fields are ignored. The last value of a repeated
//! field wins. Null leaves a field unchanged; a metadata value of null is the empty string. Each
//! byte that is not UTF-8 becomes U+FFFD.

mod value;

use std::borrow::Cow;
use std::fmt;
use std::str;

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};

use value::{Any, Entries, Ignored, Text, Time};

/// An event as it was sent, before validation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEvent<'a> {
    /// The object that the event is about.
    pub involved_object: RawObject<'a>,
    /// Free text; by convention trace, info or error.
    pub severity: Cow<'a, str>,
    /// Seconds since 1970, if the sender set a time.
    pub timestamp: Option<i64>,
    /// What happened, for people.
    pub message: Cow<'a, str>,
    /// What happened, as a CamelCase word.
    pub reason: Cow<'a, str>,
    /// Keys with their prefix, in the order sent, including repeated keys.
    pub metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The controller that sent the event.
    pub reporting_controller: Cow<'a, str>,
    /// The host or pod of the controller.
    pub reporting_instance: Cow<'a, str>,
}

/// A reference to an object, as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Kubernetes' ObjectReference")]
pub struct RawObject<'a> {
    pub api_version: Cow<'a, str>,
    pub kind: Cow<'a, str>,
    pub namespace: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub uid: Cow<'a, str>,
    pub resource_version: Cow<'a, str>,
    pub field_path: Cow<'a, str>,
}

/// The body as text. Valid UTF-8 is not copied.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // One for each byte, as in Go. Rust's standard library writes one for a whole sequence.
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Decodes an event.
///
/// # Errors
/// The text is not one JSON document, or a field has the wrong type. The error names the field.
pub fn decode(text: &str) -> Result<RawEvent<'_>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let event = Any(EventVisitor).deserialize(&mut json)?;
    json.end()?;
    Ok(event)
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = RawEvent<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object with an event")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(RawEvent::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut event = RawEvent::default();
        while let Some(key) = map.next_key_seed(Any(Text("a field name")))?.flatten() {
            match &*key {
                "involvedObject" => set(
                    &mut event.involved_object,
                    map.next_value_seed(Any(ObjectVisitor))?,
                ),
                "timestamp" => set(&mut event.timestamp, map.next_value_seed(Any(Time))?),
                "metadata" => event.metadata = map.next_value_seed(Any(Entries))?,
                key => match event.text_field(key) {
                    Some((name, field)) => set(field, map.next_value_seed(Any(Text(name)))?),
                    None => map.next_value_seed(Any(Ignored))?,
                },
            }
        }
        Ok(event)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Option<RawObject<'de>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object in involvedObject")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = RawObject::default();
        while let Some(key) = map.next_key_seed(Any(Text("a field name")))?.flatten() {
            match object.text_field(&key) {
                Some((name, field)) => set(field, map.next_value_seed(Any(Text(name)))?),
                None => map.next_value_seed(Any(Ignored))?,
            }
        }
        Ok(Some(object))
    }
}

impl<'a> RawEvent<'a> {
    fn text_field(&mut self, key: &str) -> Option<(&'static str, &mut Cow<'a, str>)> {
        Some(match key {
            "severity" => ("severity", &mut self.severity),
            "message" => ("message", &mut self.message),
            "reason" => ("reason", &mut self.reason),
            "reportingController" => ("reportingController", &mut self.reporting_controller),
            "reportingInstance" => ("reportingInstance", &mut self.reporting_instance),
            _ => return None,
        })
    }
}

impl<'a> RawObject<'a> {
    fn text_field(&mut self, key: &str) -> Option<(&'static str, &mut Cow<'a, str>)> {
        Some(match key {
            "apiVersion" => ("involvedObject.apiVersion", &mut self.api_version),
            "kind" => ("involvedObject.kind", &mut self.kind),
            "namespace" => ("involvedObject.namespace", &mut self.namespace),
            "name" => ("involvedObject.name", &mut self.name),
            "uid" => ("involvedObject.uid", &mut self.uid),
            "resourceVersion" => ("involvedObject.resourceVersion", &mut self.resource_version),
            "fieldPath" => ("involvedObject.fieldPath", &mut self.field_path),
            _ => return None,
        })
    }
}

/// Null leaves the field unchanged.
fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        decode(json).unwrap().message.into_owned()
    }

    #[test]
    fn the_last_repeated_field_wins_and_null_changes_nothing() {
        assert_eq!(
            message(r#"{"message":"first","message":"second"}"#),
            "second"
        );
        assert_eq!(message(r#"{"message":"first","message":null}"#), "first");
        assert_eq!(message(r#"{"MESSAGE":"first"}"#), "");
        let event = decode(
            r#"{"involvedObject":{"kind":"A"},"involvedObject":{"name":"b"},"timestamp":null}"#,
        )
        .unwrap();
        assert_eq!(
            (
                &*event.involved_object.kind,
                &*event.involved_object.name,
                event.timestamp
            ),
            ("", "b", None)
        );
    }

    #[test]
    fn null_in_metadata_is_the_empty_string() {
        let event = decode(r#"{"metadata":{"a":null,"b":"1"}}"#).unwrap();
        assert_eq!(
            event.metadata,
            [("a".into(), "".into()), ("b".into(), "1".into())]
        );
        assert_eq!(decode(r#"{"metadata":null}"#).unwrap().metadata, []);
    }

    #[test]
    fn each_byte_that_is_not_utf8_becomes_a_replacement_character() {
        assert_eq!(text(b"a\xffb\xc3(c"), "a\u{fffd}b\u{fffd}(c");
        assert_eq!(text(b"\xe2\x82"), "\u{fffd}\u{fffd}");
        assert!(matches!(text("é".as_bytes()), Cow::Borrowed("é")));
    }

    #[test]
    fn an_error_names_the_field_and_the_expected_type() {
        for (json, expected) in [
            (
                "[]",
                "invalid type: sequence, expected a JSON object with an event",
            ),
            (
                r#"{"severity":1}"#,
                "invalid type: integer `1`, expected a string in severity",
            ),
            (
                r#"{"message":{"a":1}}"#,
                "invalid type: map, expected a string in message",
            ),
            (
                r#"{"involvedObject":[]}"#,
                "invalid type: sequence, expected a JSON object in involvedObject",
            ),
            (
                r#"{"involvedObject":{"uid":true}}"#,
                "invalid type: boolean `true`, expected a string in involvedObject.uid",
            ),
            (
                r#"{"metadata":["a"]}"#,
                "invalid type: sequence, expected a JSON object with string values in metadata",
            ),
            (
                r#"{"metadata":{"a/b":1}}"#,
                "invalid type: integer `1`, expected a string in metadata.a/b",
            ),
            (
                r#"{"timestamp":""}"#,
                r#"invalid value: string "", expected an RFC 3339 time in timestamp"#,
            ),
            (
                r#"{"timestamp":1767323045}"#,
                "invalid type: integer `1767323045`, expected an RFC 3339 time in timestamp",
            ),
        ] {
            let error = decode(json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }

    #[test]
    fn anything_but_one_json_document_is_rejected() {
        for json in [
            "",
            "  ",
            "hello",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            "/* c */{}",
            "{'a':1}",
            r#"{"a":NaN}"#,
            "{\"a\":\"\n\"}",
        ] {
            assert!(decode(json).is_err(), "{json}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_up_to_the_depth_limit() {
        let nested = |depth| {
            format!(
                "{{\"extra\":{}1{},\"message\":\"m\"}}",
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
        assert_eq!(message(&nested(100)), "m");
        assert!(
            decode(&nested(10_001))
                .unwrap_err()
                .to_string()
                .starts_with("recursion limit exceeded")
        );
        assert_eq!(
            message(r#"{"extra":{"a":[1,-1,1.5,true,null,"x"]},"message":"m"}"#),
            "m"
        );
    }
}
