//! Secrets and ConfigMaps, as manifests hold them. Nothing here ever shows a value.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::object::Object;
use crate::resolved::{SecretData, SecretValue};
use crate::resource::Report;

/// Reads a Secret: `data` is base64, and `stringData` goes before it.
pub fn secret(report: &mut Report<'_>) -> SecretData {
    let mut keys = BTreeMap::new();
    for (key, text) in texts("data", report) {
        match STANDARD.decode(text.split_whitespace().collect::<String>()) {
            Ok(bytes) => drop(keys.insert(key, SecretValue::new(bytes))),
            Err(_) => report.error(
                &format!("data.{key}"),
                "is not base64; write plain text under stringData instead",
            ),
        }
    }
    keys.extend(
        texts("stringData", report)
            .into_iter()
            .map(|(key, text)| (key, SecretValue::new(text))),
    );
    SecretData(keys)
}

/// Reads the texts of a ConfigMap.
pub fn config_map(report: &mut Report<'_>) -> BTreeMap<String, String> {
    texts("data", report).into_iter().collect()
}

/// Refuses an object that SOPS has encrypted: its values would be taken for real ones.
pub fn refuse_encrypted(report: &mut Report<'_>) {
    if report.object.value.get("sops").is_some() || is_encrypted(report.object) {
        let sentence = "is encrypted with SOPS, which is not read; decrypt it into the rules (sops --decrypt), \
                        or let a cluster hold it";
        report.error("", sentence);
    }
}

fn is_encrypted(object: &Object) -> bool {
    let encrypted = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("ENC["));
    ["data", "stringData"]
        .iter()
        .filter_map(|field| object.value[field].as_object())
        .any(|map| map.values().any(encrypted))
}

fn texts(field: &str, report: &mut Report<'_>) -> Vec<(String, String)> {
    let object = report.object;
    let no_map = Map::new();
    let map = match &object.value[field] {
        Value::Null => &no_map,
        Value::Object(map) => map,
        _ => {
            report.error(field, "must be a map of keys to texts");
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
                "must be a text; put it in quotes",
            ),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: Value) -> (SecretData, Vec<String>) {
        let mut value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "apps"}});
        value
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let object = Object::new(value);
        let mut report = Report::new(&object);
        refuse_encrypted(&mut report);
        let data = secret(&mut report);
        (
            data,
            report.problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn string_data_goes_before_data() {
        let (data, problems) =
            read(json!({"data": {"a": "eA==", "b": "eQ==\n"}, "stringData": {"a": "plain"}}));
        assert_eq!((data.text("a"), data.text("b")), (Some("plain"), Some("y")));
        assert!(problems.is_empty());
    }

    #[test]
    fn what_is_not_base64_is_told_without_its_value() {
        let problems = read(json!({"data": {"token": "s3cret!", "number": 7}})).1;
        assert_eq!(
            problems,
            [
                "Secret apps/s: data.number: must be a text; put it in quotes",
                "Secret apps/s: data.token: is not base64; write plain text under stringData instead",
            ]
        );
    }

    #[test]
    fn what_sops_has_encrypted_is_refused() {
        for fields in [
            json!({"sops": {"mac": "x"}}),
            json!({"stringData": {"a": "ENC[AES256_GCM,data:x]"}}),
        ] {
            assert!(read(fields.clone()).1[0].contains("SOPS"), "{fields}");
        }
    }
}
