//! Validation rules of the CRDs that the type of a field cannot express.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;
use tidings_core::model::object_state::ObjectState;

use crate::severities::Severities;

/// The pattern of the durations that [`duration::parse`](crate::duration::parse) accepts.
pub(super) const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$";

/// A duration must not be zero.
pub(super) const GREATER_THAN_ZERO: Validation = Validation {
    rule: "self.matches('[1-9]')",
    message: "must be greater than 0",
};

/// An entry of `x-kubernetes-validations`.
#[derive(Serialize)]
pub(super) struct Validation {
    rule: &'static str,
    message: &'static str,
}

/// The schema has no `type`, because the value is a string or a list. The API server validates it
/// with the enum alone. `trace` is only allowed in rules folders, since Flux never posts it.
pub(super) fn event_severity(_: &mut SchemaGenerator) -> Schema {
    let words = &Severities::WORDS[1..];
    let values: Vec<Value> = words
        .iter()
        .copied()
        .map(Value::from)
        .chain(lists(words).into_iter().map(Value::from))
        .collect();
    json_schema!({"enum": values, "x-kubernetes-preserve-unknown-fields": true})
}

/// A map from reasons to the names of states.
pub(super) fn reason_states(_: &mut SchemaGenerator) -> Schema {
    let names = ObjectState::ALL.map(ObjectState::as_str);
    json_schema!({"type": "object", "additionalProperties": {"type": "string", "enum": names}})
}

/// Every list of distinct words in any order, the short lists first.
fn lists<'a>(words: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut lists = vec![Vec::new()];
    let mut grown = 0;
    while grown < lists.len() {
        for word in words
            .iter()
            .filter(|word| !lists[grown].contains(*word))
            .collect::<Vec<_>>()
        {
            let longer = lists[grown].iter().chain([word]).copied().collect();
            lists.push(longer);
        }
        grown += 1;
    }
    lists.split_off(1)
}
