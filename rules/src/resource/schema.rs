//! What an API server checks that can't be said by a field's type alone.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;

use crate::alert::Severities;

/// A duration that is checked by [`duration::parse`](crate::duration::parse).
pub(super) const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$";

/// What such a duration must be.
pub(super) const LONGER_THAN_NOTHING: Validation = Validation {
    rule: "self.matches('[1-9]')",
    message: "must be longer than nothing",
};

/// A rule that an API server checks.
#[derive(Serialize)]
pub(super) struct Validation {
    rule: &'static str,
    message: &'static str,
}

/// A value without `type`, since it is a word or a list: an API server checks it by the enum alone.
/// Nobody posts events of severity `trace`, so that is left to folders.
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

/// Every list of some of the words, each of them once, in any order; the short ones first.
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
