//! Checks a `commitStatusExpr` before its first event.
//!
//! Every role that reads rules runs this for the expressions of all tenants. So an expression that
//! could need much memory is compiled here, and only evaluated by a worker.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tidings_core::model::flux;

use super::expression::{Cause, Expression, Variables, Wrong};
use crate::message::template_check::samples;

/// The most keys that are added to the samples.
const MOST_KEYS: usize = 50;
/// The longest expression that is evaluated, and the longest values that it reads, in bytes.
const LONGEST: usize = 1024;
const LONGEST_VALUES: usize = 16 << 10;
/// Calls whose result can be many times larger than what they read. One of them gives some
/// megabytes at most, and each further one multiplies that.
const GROWING: [&str; 10] = [
    "all",
    "exists",
    "exists_one",
    "existsOne",
    "filter",
    "format",
    "join",
    "map",
    "replace",
    "transformList",
];

/// The problem of an expression; `None` if it can work. `metadata` is that of the Alerts.
///
/// Any metadata may exist, so a missing key is added and the expression evaluated again. Errors of
/// types count only if they happen for every sample, and errors of values never count: an
/// expression may be written for some events only.
pub fn check(source: &str, provider: &Json, metadata: &BTreeMap<String, String>) -> Option<String> {
    let expression = Expression::new(source);
    if !is_small(source, provider, metadata) {
        return expression.compile().err().map(|it| it.sentence);
    }
    let samples = samples(&[], metadata);
    let check = |sample| {
        let variables = Variables {
            event: sample,
            alert: sample_alert(),
            provider: provider.clone(),
        };
        check_sample(&expression, variables)
    };
    let events = samples.map(|it| flux::to_value(&it.event, &it.metadata));
    let found = events.map(|event| check(event).err());
    let is_certain = |it: &&Wrong| match &it.cause {
        Cause::Text => true,
        // The real Alert may have the key.
        Cause::Key(_) => !source.contains("alert"),
        Cause::Types | Cause::Values => false,
    };
    let has_wrong_types = |it: &Option<Wrong>| matches!(it, Some(it) if it.cause == Cause::Types);
    let certain = found.iter().flatten().find(is_certain);
    let wrong = certain.or_else(|| match found.iter().all(has_wrong_types) {
        true => found[0].as_ref(),
        false => None,
    })?;
    Some(wrong.sentence.replace("for this event", "for every event"))
}

/// Whether evaluating the expression needs little memory and time.
fn is_small(source: &str, provider: &Json, metadata: &BTreeMap<String, String>) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let names = source.split(|character| !is_part(character));
    let growing = names.filter(|name| GROWING.contains(name)).count();
    let values: usize = metadata.iter().map(|(key, it)| key.len() + it.len()).sum();
    growing <= 1
        && source.len() <= LONGEST
        && values <= LONGEST_VALUES
        && provider.to_string().len() <= LONGEST_VALUES
}

/// Evaluates for one sample, to which the metadata is added that the expression reads.
fn check_sample(expression: &Expression, mut variables: Variables) -> Result<(), Wrong> {
    for _ in 0..MOST_KEYS {
        let wrong = match expression.check(variables.clone()) {
            Err(wrong) => wrong,
            Ok(()) => break,
        };
        match &wrong.cause {
            Cause::Key(key) if variables.event["metadata"][key].is_null() => {
                variables.event["metadata"][key] = "value".into();
                for path in [
                    "/metadata/labels",
                    "/metadata/annotations",
                    "/spec/eventMetadata",
                ] {
                    if let Some(map) = variables.alert.pointer_mut(path) {
                        map[key] = "value".into();
                    }
                }
            }
            _ => return Err(wrong),
        }
    }
    Ok(())
}

/// An Alert's manifest with every field that expressions usually read.
fn sample_alert() -> Json {
    json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
        "kind": "Alert",
        "metadata": {"name": "alert", "namespace": "apps", "generation": 1, "labels": {},
            "uid": "8d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f", "annotations": {}},
        "spec": {"providerRef": {"name": "provider"}, "eventSeverity": "info", "summary": "value",
            "eventSources": [{"kind": "Kustomization", "name": "*", "namespace": "apps"}],
            "eventMetadata": {}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(source: &str) -> Option<String> {
        let provider = json!({"metadata": {"name": "p", "uid": "0c9c2e41-d2f9"}, "spec": {}});
        check(source, &provider, &BTreeMap::new())
    }

    #[test]
    fn an_expression_that_works_for_no_event_is_found() {
        for (source, part) in [
            ("event.foo.bar +", "not valid CEL"),
            ("event.", "not valid CEL"),
            ("evnt.involvedObject.name", "evnt"),
            ("event.severity == 'error' ? evnt.reason : 'ok'", "evnt"),
            ("event.foo", "foo"),
            ("event.involvedObject.nam", "nam"),
            ("provider.spec.missing", "missing"),
            ("1", "string(…)"),
            ("event.metadata", "string(…)"),
            ("event.metadata.?missing", "string(…)"),
            ("foo(event)", "foo"),
            ("event.reason + 1", "fails for every event"),
        ] {
            let found = checked(source).unwrap_or_else(|| panic!("{source} passes"));
            assert!(found.contains(part), "{source}: {found}");
        }
    }

    #[test]
    fn an_expression_that_could_need_much_memory_is_only_compiled() {
        // Each of them fails if it is evaluated.
        let long = format!("event.foo + '{}'", "a".repeat(LONGEST));
        for source in [
            "['a'].map(x, x + x).map(x, x + 1)[0]",
            "event.reason.replace('a', 'b').replace('b', 'c') + 1",
            "[1].filter (x, true).all(x, [2].exists(y, y)) + 1",
            &long,
        ] {
            assert_eq!(checked(source), None, "{source}");
        }
        assert!(checked("['a'].map(x, x + x).map(x, ").is_some());
        let large = BTreeMap::from([("key".to_owned(), "a".repeat(LONGEST_VALUES))]);
        assert_eq!(check("event.foo", &json!({}), &large), None);
        assert!(check("event.foo", &json!({}), &BTreeMap::new()).is_some());
        let annotated = json!({"metadata": {"annotations": {"a": "a".repeat(LONGEST_VALUES)}}});
        assert_eq!(check("event.foo", &annotated, &BTreeMap::new()), None);
    }

    #[test]
    fn an_expression_that_works_for_some_events_is_fine() {
        for source in [
            "event.reason",
            "event.metadata.team + '/' + event.metadata['image/tag']",
            "event.metadata.revision.split('+')[1]",
            "string(int(event.metadata.pr) + 1)",
            "event.message.split(':')[3]",
            "has(event.metadata.env) ? event.metadata.env : provider.metadata.name",
            "(event.involvedObject.kind + '/' + event.involvedObject.name).lowerAscii()",
            "provider.metadata.uid.split('-').first().orValue('none')",
            "alert.metadata.labels.team + alert.spec.eventMetadata.env + alert.spec.summary",
            "alert.spec.eventSources.map(s, s.kind).join(',')",
            "alert.spec.exclusionList.join(',')",
            "event.message.contains('a') ? '' : 'b'",
        ] {
            assert_eq!(checked(source), None, "{source}");
        }
    }
}
