//! The settings that differ from their defaults, for the first line of the log.

use serde_json::{Map, Value};

/// What differs from the default, without the rest. `Null` if nothing does.
pub(super) fn changed(value: Value, default: &Value) -> Value {
    let Value::Object(fields) = value else {
        return if value == *default {
            Value::Null
        } else {
            value
        };
    };
    let changed: Map<String, Value> = fields
        .into_iter()
        .map(|(key, field)| {
            let field = changed_field(field, default.get(&key));
            (key, field)
        })
        .filter(|(_, field)| !field.is_null())
        .collect();
    match changed.is_empty() {
        true => Value::Null,
        false => Value::Object(changed),
    }
}

fn changed_field(field: Value, default: Option<&Value>) -> Value {
    match default {
        Some(default) => changed(field, default),
        None => field,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_left() {
        let default = json!({"a": 1, "b": {"c": [], "d": null}, "e": {"f": 1}});
        for (value, expected) in [
            (
                json!({"a": 1, "b": {"c": [], "d": null}, "e": {"f": 1}}),
                json!(null),
            ),
            (json!({"a": 2, "b": {"c": [], "d": null}}), json!({"a": 2})),
            (
                json!({"a": 1, "b": {"c": ["x"], "d": "y"}}),
                json!({"b": {"c": ["x"], "d": "y"}}),
            ),
            (json!({"new": true}), json!({"new": true})),
        ] {
            assert_eq!(changed(value.clone(), &default), expected, "{value}");
        }
    }
}
