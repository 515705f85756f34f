//! Checks a `commitStatusExpr` before its first event.
//!
//! Every role that reads rules runs this for the expressions of all tenants, in the same children
//! as a worker.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tidings_core::model::flux;

use super::{Cause, Expression, NotEvaluated, Owner, Variables, Wrong};
use crate::message::template_check::samples;

/// The most keys that are added to the samples.
const MOST_KEYS: usize = 50;

/// The problem of an expression; `None` if it can work. `provider` is the Provider's manifest, and
/// `metadata` that of the Alerts.
///
/// Any metadata may exist, so a missing key is added and the expression evaluated again. Errors of
/// types count only if they happen for every sample, and errors of values never count: an
/// expression may be written for some events only.
///
/// # Errors
/// It is not known, because the expression could not be evaluated.
pub async fn check(
    source: &str,
    provider: &Json,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<String>, NotEvaluated> {
    let expression = Expression::new(owner(provider), source);
    let mut found = Vec::new();
    for sample in &samples(&[], metadata) {
        let variables = Variables {
            event: flux::to_value(&sample.event, &sample.metadata),
            alert: sample_alert(),
            provider: provider.clone(),
        };
        match check_sample(&expression, variables).await {
            Ok(checked) => found.push(checked.err()),
            Err(why @ (NotEvaluated::TooCostly(_) | NotEvaluated::TooLarge(_))) => {
                return Ok(Some(why.sentence()));
            }
            Err(why) => return Err(why),
        }
    }
    let is_certain = |it: &&Wrong| match &it.cause {
        Cause::Text => true,
        // The real Alert may have the key.
        Cause::Key(_) => !source.contains("alert"),
        Cause::Types | Cause::Values => false,
    };
    let has_wrong_types = |it: &Option<Wrong>| matches!(it, Some(it) if it.cause == Cause::Types);
    let certain = found.iter().flatten().find(is_certain);
    let wrong = certain.or_else(|| match found.iter().all(has_wrong_types) {
        true => found.first()?.as_ref(),
        false => None,
    });
    Ok(wrong.map(|it| it.sentence.replace("for this event", "for every event")))
}

fn owner(provider: &Json) -> Owner {
    let field = |path| {
        let text = provider.pointer(path).and_then(Json::as_str);
        text.unwrap_or_default().to_owned()
    };
    Owner {
        namespace: field("/metadata/namespace"),
        name: field("/metadata/name"),
    }
}

/// Evaluates for one sample, to which the metadata is added that the expression reads.
async fn check_sample(
    expression: &Expression,
    mut variables: Variables,
) -> Result<Result<(), Wrong>, NotEvaluated> {
    for _ in 0..MOST_KEYS {
        let wrong = match expression.check(variables.clone()).await? {
            Err(wrong) => wrong,
            Ok(_) => break,
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
            _ => return Ok(Err(wrong)),
        }
    }
    Ok(Ok(()))
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

    async fn checked(source: &str) -> Option<String> {
        let provider = json!({"metadata": {"name": "p", "uid": "0c9c2e41-d2f9"}, "spec": {}});
        let checked = check(source, &provider, &BTreeMap::new()).await;
        checked.expect("there are children")
    }

    #[tokio::test]
    async fn an_expression_that_works_for_no_event_is_found() {
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
            let found = checked(source)
                .await
                .unwrap_or_else(|| panic!("{source} passes"));
            assert!(found.contains(part), "{source}: {found}");
        }
    }

    #[tokio::test]
    async fn every_expression_is_evaluated_and_a_costly_one_is_found() {
        let long = format!("event.foo + '{}'", "a".repeat(3000));
        let bomb = format!("['aaaaaaaaaaaaaaaa']{}[0]", ".map(x, x + x)".repeat(41));
        for (source, part) in [
            ("['a'].map(x, x + x).map(x, x + 1)[0]", "every event"),
            (
                "event.reason.replace('a', 'b').replace('b', 'c') + 1",
                "every event",
            ),
            (&long, "foo"),
            (&bomb, "too costly"),
            (&bomb, "too costly"),
        ] {
            let found = checked(source).await.unwrap_or_default();
            assert!(found.contains(part), "{source}: {found}");
        }
    }

    #[tokio::test]
    async fn an_expression_that_works_for_some_events_is_fine() {
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
            assert_eq!(checked(source).await, None, "{source}");
        }
    }
}
