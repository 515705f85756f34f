//! A report's bytes as they were sent: JSON by the rules of Flux's notification API, borrowed from
//! the body.
//!
//! Field names are exact and unknown fields are read over. The last one of a repeated field wins;
//! null leaves a field as it is, and as a metadata value is the empty text. Bytes that are not
//! UTF-8 become U+FFFD, one for each.

mod value;

use std::borrow::Cow;
use std::fmt;
use std::str;

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};

use value::{Entries, Of, Skipped, Text, Time};

/// An event as it was sent, before anything is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEvent<'a> {
    /// What it is about.
    pub involved_object: RawObject<'a>,
    /// Any text; trace, info, error by custom.
    pub severity: Cow<'a, str>,
    /// Seconds since 1970, where the sender told a time.
    pub timestamp: Option<i64>,
    /// What happened, for people.
    pub message: Cow<'a, str>,
    /// What happened, as a word.
    pub reason: Cow<'a, str>,
    /// Every key with its prefix, in the order in which they were sent, repetitions included.
    pub metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The sender.
    pub reporting_controller: Cow<'a, str>,
    /// The sender's host.
    pub reporting_instance: Cow<'a, str>,
}

/// The object that an event is about, as it was sent.
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

/// The body as text. What is valid already is not copied.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // One for each byte, as Go does it; the standard library would write one for a whole cut
        // sequence.
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Decodes a report.
///
/// # Errors
/// The text is not one JSON document, or a field has a value of the wrong type: the error names the
/// field.
pub fn decode(text: &str) -> Result<RawEvent<'_>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let event = Of(EventVisitor).deserialize(&mut json)?;
    json.end()?;
    Ok(event)
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = RawEvent<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event, which is a JSON object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(RawEvent::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut event = RawEvent::default();
        while let Some(key) = map.next_key_seed(Of(Text("a field's name")))?.flatten() {
            match &*key {
                "involvedObject" => set(
                    &mut event.involved_object,
                    map.next_value_seed(Of(ObjectVisitor))?,
                ),
                "timestamp" => set(&mut event.timestamp, map.next_value_seed(Of(Time))?),
                "metadata" => event.metadata = map.next_value_seed(Of(Entries))?,
                key => match event.text_field(key) {
                    Some((name, field)) => set(field, map.next_value_seed(Of(Text(name)))?),
                    None => map.next_value_seed(Of(Skipped))?,
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
        while let Some(key) = map.next_key_seed(Of(Text("a field's name")))?.flatten() {
            match object.text_field(&key) {
                Some((name, field)) => set(field, map.next_value_seed(Of(Text(name)))?),
                None => map.next_value_seed(Of(Skipped))?,
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

/// Null leaves what is there.
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
    fn the_last_of_a_repeated_field_wins_and_null_leaves_it() {
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
    fn null_in_metadata_is_the_empty_text() {
        let event = decode(r#"{"metadata":{"a":null,"b":"1"}}"#).unwrap();
        assert_eq!(
            event.metadata,
            [("a".into(), "".into()), ("b".into(), "1".into())]
        );
        assert_eq!(decode(r#"{"metadata":null}"#).unwrap().metadata, []);
    }

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters_one_by_one() {
        assert_eq!(text(b"a\xffb\xc3(c"), "a\u{fffd}b\u{fffd}(c");
        assert_eq!(text(b"\xe2\x82"), "\u{fffd}\u{fffd}");
        assert!(matches!(text("é".as_bytes()), Cow::Borrowed("é")));
    }

    #[test]
    fn an_error_names_the_field_and_what_is_expected() {
        for (json, sentence) in [
            (
                "[]",
                "invalid type: sequence, expected an event, which is a JSON object",
            ),
            (
                r#"{"severity":1}"#,
                "invalid type: integer `1`, expected text in severity",
            ),
            (
                r#"{"message":{"a":1}}"#,
                "invalid type: map, expected text in message",
            ),
            (
                r#"{"involvedObject":[]}"#,
                "invalid type: sequence, expected a JSON object in involvedObject",
            ),
            (
                r#"{"involvedObject":{"uid":true}}"#,
                "invalid type: boolean `true`, expected text in involvedObject.uid",
            ),
            (
                r#"{"metadata":["a"]}"#,
                "invalid type: sequence, expected a JSON object of texts in metadata",
            ),
            (
                r#"{"metadata":{"a/b":1}}"#,
                "invalid type: integer `1`, expected text in metadata.a/b",
            ),
            (
                r#"{"timestamp":""}"#,
                r#"invalid value: string "", expected a time as in RFC 3339 in timestamp"#,
            ),
            (
                r#"{"timestamp":1767323045}"#,
                "invalid type: integer `1767323045`, expected a time as in RFC 3339 in timestamp",
            ),
        ] {
            let error = decode(json).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_not_one_json_document_is_refused() {
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
    fn unknown_fields_are_read_over_but_not_to_any_depth() {
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
