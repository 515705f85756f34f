//! Decodes the JSON of an event as Flux's notification API does, which uses Go's `encoding/json`.
//! Strings are borrowed from the body.
//!
//! Field names are equal in upper and lower case. Unknown fields are skipped: only their syntax
//! matters, not the range of a number. The last value of a repeated field wins, and repeated
//! objects are merged. Null leaves a text unchanged and empties metadata and timestamp; a metadata
//! value of null is the empty string. Each byte that is not UTF-8, and each escaped surrogate
//! without a partner, becomes U+FFFD.

mod field_name;
mod text;
mod value;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};

use field_name::is_field;
pub use text::text;
use text::{is_too_deep, without_lone_surrogates};
use value::{Any, Entries, Text, Time};

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

/// Passes a decoded event to `use_event`.
///
/// # Errors
/// The text is not one JSON document, is nested too deeply, or a field has the wrong type. The
/// error names the field.
pub fn decode<T>(
    json: &str,
    use_event: impl FnOnce(RawEvent<'_>) -> T,
) -> Result<T, serde_json::Error> {
    if is_too_deep(json) {
        return Err(serde_json::Error::custom("the JSON is nested too deeply"));
    }
    let json = without_lone_surrogates(json);
    let mut json = serde_json::Deserializer::from_str(&json);
    let mut event = RawEvent::default();
    Any(Fields(&mut event)).deserialize(&mut json)?;
    json.end()?;
    Ok(use_event(event))
}

/// Sets the fields of an event or of its object.
struct Fields<'t, T>(&'t mut T);

impl<'de> Visitor<'de> for Fields<'_, RawEvent<'de>> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object with an event")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let event = self.0;
        while let Some(key) = map.next_key_seed(Any(Text("a field name")))?.flatten() {
            if is_field(&key, "involvedObject") {
                map.next_value_seed(Any(Fields(&mut event.involved_object)))?;
            } else if is_field(&key, "timestamp") {
                event.timestamp = map.next_value_seed(Any(Time))?;
            } else if is_field(&key, "metadata") {
                map.next_value_seed(Any(Entries(&mut event.metadata)))?;
            } else {
                set_text(&mut map, event.text_field(&key))?;
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Fields<'_, RawObject<'de>> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object in involvedObject")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(key) = map.next_key_seed(Any(Text("a field name")))?.flatten() {
            set_text(&mut map, self.0.text_field(&key))?;
        }
        Ok(())
    }
}

impl<'a> RawEvent<'a> {
    fn text_field(&mut self, key: &str) -> Option<(&'static str, &mut Cow<'a, str>)> {
        let fields = [
            ("severity", &mut self.severity),
            ("message", &mut self.message),
            ("reason", &mut self.reason),
            ("reportingController", &mut self.reporting_controller),
            ("reportingInstance", &mut self.reporting_instance),
        ];
        fields.into_iter().find(|(name, _)| is_field(key, name))
    }
}

impl<'a> RawObject<'a> {
    fn text_field(&mut self, key: &str) -> Option<(&'static str, &mut Cow<'a, str>)> {
        let fields = [
            ("involvedObject.apiVersion", &mut self.api_version),
            ("involvedObject.kind", &mut self.kind),
            ("involvedObject.namespace", &mut self.namespace),
            ("involvedObject.name", &mut self.name),
            ("involvedObject.uid", &mut self.uid),
            ("involvedObject.resourceVersion", &mut self.resource_version),
            ("involvedObject.fieldPath", &mut self.field_path),
        ];
        fields
            .into_iter()
            .find(|(name, _)| is_field(key, name.trim_start_matches("involvedObject.")))
    }
}

/// Reads the value of a key into its field. Null leaves the field unchanged, and the value of an
/// unknown key is skipped.
fn set_text<'de, A: MapAccess<'de>>(
    map: &mut A,
    field: Option<(&'static str, &mut Cow<'de, str>)>,
) -> Result<(), A::Error> {
    let Some((name, field)) = field else {
        return map.next_value::<IgnoredAny>().map(drop);
    };
    if let Some(value) = map.next_value_seed(Any(Text(name)))? {
        *field = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::value::MAX_METADATA_KEYS;
    use super::*;

    fn message(json: &str) -> String {
        decode(json, |event| event.message.into_owned()).unwrap()
    }

    fn metadata(json: &str) -> Vec<(String, String)> {
        let owned = |(key, value): (Cow<'_, str>, Cow<'_, str>)| (key.into(), value.into());
        decode(json, |event| {
            event.metadata.into_iter().map(owned).collect()
        })
        .unwrap()
    }

    #[test]
    fn the_last_repeated_field_wins_and_repeated_objects_are_merged() {
        assert_eq!(
            message(r#"{"message":"first","message":"second"}"#),
            "second"
        );
        assert_eq!(message(r#"{"message":"first","message":null}"#), "first");
        assert_eq!(message(r#"{"MESSAGE":"first"}"#), "first");
        assert_eq!(
            message(r#"{"message":"first","Message":"second"}"#),
            "second"
        );
        let repeated = r#"{"involvedObject":{"kind":"A","name":"a"},"InvolvedObject":{"NAME":"b"},
            "involvedObject":null,"timestamp":"2026-01-02T03:04:05Z","timestamp":null}"#;
        let (kind, name, timestamp) = decode(repeated, |event| {
            let object = event.involved_object;
            (
                object.kind.into_owned(),
                object.name.into_owned(),
                event.timestamp,
            )
        })
        .unwrap();
        assert_eq!((&*kind, &*name, timestamp), ("A", "b", None));
        let pairs = [("a".into(), "1".into()), ("b".into(), "2".into())];
        assert_eq!(
            metadata(r#"{"metadata":{"a":"1"},"metadata":{"b":"2"}}"#),
            pairs
        );
    }

    #[test]
    fn null_in_metadata_is_the_empty_string_and_null_empties_metadata() {
        let pairs = [("a".into(), "".into()), ("b".into(), "1".into())];
        assert_eq!(metadata(r#"{"metadata":{"a":null,"b":"1"}}"#), pairs);
        assert_eq!(metadata(r#"{"metadata":{"a":"1"},"metadata":null}"#), []);
    }

    #[test]
    fn the_number_of_metadata_keys_is_limited() {
        let keys = |count| {
            let keys: Vec<String> = (0..count).map(|key| format!(r#""{key}":"""#)).collect();
            format!(r#"{{"metadata":{{{}}}}}"#, keys.join(","))
        };
        assert_eq!(metadata(&keys(MAX_METADATA_KEYS)).len(), MAX_METADATA_KEYS);
        let error = decode(&keys(MAX_METADATA_KEYS + 1), |_| ()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("metadata has more than 16384 keys")
        );
    }

    #[test]
    fn a_lone_surrogate_becomes_a_replacement_character_in_every_field() {
        assert_eq!(
            message(r#"{"message":"a\ud800b \ud83d\ude80"}"#),
            "a\u{fffd}b 🚀"
        );
        assert_eq!(
            message(r#"{"\udfff":{"\ud800":["\udc00"]},"message":"m"}"#),
            "m"
        );
        let pairs = [("\u{fffd}".into(), "\u{fffd}\u{fffd}".into())];
        assert_eq!(metadata(r#"{"metadata":{"\ud800":"\udc00\udc00"}}"#), pairs);
    }

    #[test]
    fn a_number_in_an_unknown_field_has_no_range() {
        for number in [
            "1e999",
            "-1e-999",
            "123456789012345678901234567890",
            "0.1E+400",
        ] {
            let json = format!(r#"{{"a":{number},"b":[{{"c":{number}}}],"message":"m"}}"#);
            assert_eq!(message(&json), "m", "{number}");
            assert!(decode(&format!(r#"{{"message":{number}}}"#), |_| ()).is_err());
        }
        for number in ["01", "1.", "-", "1e", "+1", ".5"] {
            assert!(
                decode(&format!(r#"{{"a":{number}}}"#), |_| ()).is_err(),
                "{number}"
            );
        }
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
            let error = decode(json, |_| ()).unwrap_err().to_string();
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
            assert!(decode(json, |_| ()).is_err(), "{json}");
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
        assert_eq!(message(&nested(9_999)), "m");
        let error = decode(&nested(10_000), |_| ()).unwrap_err().to_string();
        assert!(
            error.starts_with("the JSON is nested too deeply"),
            "{error}"
        );
        assert_eq!(
            message(r#"{"extra":{"a":[1,-1,1.5,true,null,"x"]},"message":"m"}"#),
            "m"
        );
    }
}
