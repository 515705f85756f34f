//! Compares a value with a JSON schema that uses a few keywords. Another keyword in the schema is a
//! failure, so that none is ignored.

use regex::Regex;
use serde_json::Value;

/// The published schema of a CloudEvent.
pub fn cloud_event_schema() -> Value {
    serde_json::from_str(include_str!(
        "../../proto/tidings/v1/cloudevent.schema.json"
    ))
    .expect("the schema is JSON")
}

/// Asserts that a value is valid, and that the schema lists every field that it has.
pub fn assert_valid(schema: &Value, value: &Value) {
    let problems = problems(schema, schema, value, "");
    assert_eq!(problems, Vec::<String>::new(), "{value:#}");
}

/// The problems of a value, each with its path.
pub fn problems(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut require = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{path}: {what}"));
        }
    };
    let mut nested = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "const" => require(value == rule, "another constant"),
            "enum" => require(rule.as_array().unwrap().contains(value), "not in the enum"),
            "type" => require(has_type(value, rule.as_str().unwrap()), "another type"),
            "minLength" => require(
                value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap()),
                "too short",
            ),
            "pattern" => require(
                value
                    .as_str()
                    .is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
                "does not match the pattern",
            ),
            "required" => {
                for name in rule.as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    require(value.get(name).is_some(), &format!("{name} is missing"));
                }
            }
            "anyOf" => require(
                rule.as_array()
                    .unwrap()
                    .iter()
                    .any(|one| problems(root, one, value, path).is_empty()),
                "none of anyOf",
            ),
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                let target = root.pointer(pointer).expect("the schema has the target");
                nested.extend(problems(root, target, value, path));
            }
            "properties" | "additionalProperties" => {}
            other => panic!("keyword {other} is not known"),
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        let is_object = schema.get("properties").is_some() || schema["type"] == "object";
        let known = schema["properties"].get(name);
        match known.or_else(|| schema.get("additionalProperties")) {
            Some(rule) => nested.extend(problems(root, rule, field, &path)),
            None if is_object => nested.push(format!("{path}: not in the schema")),
            None => {}
        }
    }
    found.extend(nested);
    found
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "null" => value.is_null(),
        other => panic!("type {other} is not known"),
    }
}

#[test]
fn a_cloud_event_with_a_mistake_is_not_valid() {
    let schema = cloud_event_schema();
    let event = tidings_core::Event {
        id: "id-1".into(),
        cluster: "hub".into(),
        ..Default::default()
    };
    let valid = tidings_core::model::cloud_event::cloud_event(&event).unwrap();
    assert_valid(&schema, &valid);
    for (field, mistake) in [
        ("specversion", "0.3"),
        ("id", ""),
        ("source", "a source"),
        ("time", "yesterday"),
        ("severity", "loud"),
        ("data", "text"),
        ("unknown", "field"),
    ] {
        let mut wrong = valid.clone();
        wrong[field] = mistake.into();
        assert_ne!(
            problems(&schema, &schema, &wrong, ""),
            Vec::<String>::new(),
            "{field}"
        );
    }
}
