//! `/api/alerts`: the Alerts of the rules, with their problems and what was last seen of them.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use tidings_rules::{Alert, EventSource, Problem, Rules};

use super::{Answer, Polled, rows, shared, visible_rules};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::Problem as Refused;
use crate::console::query::Query;

/// The most problems of one object, and of all rules, that are shown.
const MOST_OF_OBJECT: usize = 10;
const MOST_PROBLEMS: usize = 1000;

pub async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::read(query.as_deref(), &[])?;
    let read = async || Ok(alerts(&console));
    let limit = async |all| limited(&console, &caller, all).await;
    shared(&console, &caller, Polled::Alerts, read, limit).await
}

/// The Alerts that a limited caller sees, and the problems of rules that it sees. A problem of a
/// source can name any.
async fn limited(console: &Console, caller: &Caller, mut all: Value) -> Result<Value, Refused> {
    let Some(rows) = rows(&mut all, "alerts") else {
        return Ok(all);
    };
    let visible = visible_rules(console, caller, rows).await?;
    let rules = console.parts.rules.current();
    let own = rules.entries().iter();
    let own = own.filter(|entry| visible.namespace(&entry.identity.namespace));
    let own: HashSet<String> = own.map(|entry| entry.identity.to_string()).collect();
    let is_own = |problem: &&Problem| problem.object.as_ref().is_some_and(|it| own.contains(it));
    let problems_of_own = rules.problems().iter().filter(is_own);
    let problems_of_own: Vec<_> = problems_of_own.cloned().collect();
    all["problems"] = json!(problems(&problems_of_own, MOST_PROBLEMS));
    all["sourceProblem"] = Value::Null;
    Ok(all)
}

fn alerts(console: &Console) -> Value {
    let rules = console.parts.rules.current();
    let alerts: Vec<Value> = rules
        .entries()
        .iter()
        .filter(|entry| entry.identity.kind == "Alert")
        .map(|entry| {
            let (namespace, name) = (&entry.identity.namespace, &entry.identity.name);
            let alert = rules.alert(namespace, name);
            json!({
                "namespace": namespace,
                "name": name,
                "inEffect": entry.in_effect,
                "rejection": entry.rejection,
                "problems": problems(&entry.problems, MOST_OF_OBJECT),
                "spec": alert.map(|alert| spec(alert, &rules)),
                "seen": console.recent.alert(namespace, name),
            })
        })
        .collect();
    let source = console.parts.rules.source_problem();
    json!({
        "alerts": alerts,
        "problems": problems(rules.problems(), MOST_PROBLEMS),
        "sourceProblem": source.map(|problem| problem.to_string()),
    })
}

fn spec(alert: &Alert, rules: &Rules) -> Value {
    json!({
        "suspended": alert.suspended,
        "severities": severities(alert),
        "sources": alert.sources.iter().map(source).collect::<Vec<_>>(),
        "provider": format!("{}/{}", alert.provider_namespace, alert.provider),
        "hasProvider": rules.provider_of(alert).is_some(),
        "summary": alert.summary,
    })
}

fn severities(alert: &Alert) -> Vec<&'static str> {
    let words = ["trace", "info", "warn", "error"].into_iter();
    words
        .filter(|word| alert.severities.contains(word))
        .collect()
}

/// An event source as people write it: `Kind namespace/name key=value`.
fn source(source: &EventSource) -> String {
    let any = || "*".to_owned();
    let mut text = format!(
        "{} {}/{}",
        source.kind,
        source.namespace.clone().unwrap_or_else(any),
        source.name.clone().unwrap_or_else(any)
    );
    for (key, value) in &source.match_labels {
        text.push_str(&format!(" {key}={value}"));
    }
    text
}

/// Problems as JSON, the first ones.
pub(super) fn problems(problems: &[Problem], most: usize) -> Vec<Value> {
    let first = problems.iter().take(most);
    first
        .map(|problem| {
            json!({ "severity": problem.severity.as_str(), "message": problem.to_string() })
        })
        .collect()
}
