//! Reads the keys of Secrets and ConfigMaps. Problems never contain a value.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::object::Object;
use crate::report::Report;
use crate::resolved::{SecretData, SecretValue};

/// Reads the keys of a Secret. `data` is base64, and `stringData` takes precedence.
pub fn secret(report: &mut Report<'_>) -> SecretData {
    let mut keys = BTreeMap::new();
    for (key, text) in strings("data", report) {
        match STANDARD.decode(text.split_whitespace().collect::<String>()) {
            Ok(bytes) => drop(keys.insert(key, SecretValue::new(bytes))),
            Err(_) => report.error(
                &format!("data.{key}"),
                "is not valid base64; encode it, or move the plain text to stringData",
            ),
        }
    }
    keys.extend(
        strings("stringData", report)
            .into_iter()
            .map(|(key, text)| (key, SecretValue::new(text))),
    );
    SecretData(keys)
}

/// Reads the keys of a ConfigMap.
pub fn config_map(report: &mut Report<'_>) -> BTreeMap<String, String> {
    strings("data", report).into_iter().collect()
}

/// Rejects an object that is encrypted with SOPS. Otherwise its ciphertext would be used as values.
pub fn reject_encrypted(report: &mut Report<'_>) {
    if report.object.value.get("sops").is_some() || is_encrypted(report.object) {
        report.error(
            "",
            "is encrypted with SOPS, which is not supported; decrypt it (sops --decrypt) or use \
             rules from a cluster",
        );
    }
}

fn is_encrypted(object: &Object) -> bool {
    let encrypted = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("ENC["));
    ["data", "stringData"]
        .iter()
        .filter_map(|field| object.value[field].as_object())
        .any(|map| map.values().any(encrypted))
}

fn strings(field: &str, report: &mut Report<'_>) -> Vec<(String, String)> {
    let object = report.object;
    let no_map = Map::new();
    let map = match &object.value[field] {
        Value::Null => &no_map,
        Value::Object(map) => map,
        _ => {
            report.error(field, "must be a map of keys to strings");
            &no_map
        }
    };
    let mut texts = Vec::with_capacity(map.len());
    for (key, value) in map {
        match value {
            Value::String(text) => texts.push((key.clone(), text.clone())),
            Value::Null => texts.push((key.clone(), String::new())),
            _ => report.error(
                &format!("{field}.{key}"),
                "must be a string; put it in quotes",
            ),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn read(fields: Value) -> (SecretData, Vec<String>) {
        let fields = fields.as_object().unwrap().clone();
        let object = fields
            .into_iter()
            .fold(
                testing::secret("s", Value::Null),
                |manifest, (field, value)| manifest.set(&format!("/{field}"), value),
            )
            .object();
        let mut report = Report::new(&object);
        reject_encrypted(&mut report);
        let data = secret(&mut report);
        (
            data,
            report.problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn string_data_takes_precedence_over_data() {
        let (data, problems) =
            read(json!({"data": {"a": "eA==", "b": "eQ==\n"}, "stringData": {"a": "plain"}}));
        assert_eq!((data.text("a"), data.text("b")), (Some("plain"), Some("y")));
        assert!(problems.is_empty());
    }

    #[test]
    fn an_invalid_value_is_reported_and_not_shown() {
        let problems = read(json!({"data": {"token": "s3cret!", "number": 7}})).1;
        assert_eq!(
            problems,
            [
                "Secret apps/s: data.number: must be a string; put it in quotes",
                "Secret apps/s: data.token: is not valid base64; \
                 encode it, or move the plain text to stringData",
            ]
        );
    }

    #[test]
    fn an_object_encrypted_with_sops_is_rejected() {
        for fields in [
            json!({"sops": {"mac": "x"}}),
            json!({"stringData": {"a": "ENC[AES256_GCM,data:x]"}}),
        ] {
            assert!(read(fields.clone()).1[0].contains("SOPS"), "{fields}");
        }
    }
}
