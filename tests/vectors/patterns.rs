//! Go's regular expressions, tested by the messages that an inclusion list matches.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;
use tidings_rig::{alert, event, provider};

use crate::case::{Input, load};
use crate::report::Report;
use crate::run::Run;

#[derive(Debug, Deserialize)]
struct Pattern {
    pattern: String,
    skip: Option<String>,
    #[serde(default)]
    messages: Vec<String>,
    /// One for each message; all false if the pattern is invalid.
    #[serde(default)]
    matches: Vec<bool>,
}

/// Replays `data/patterns.json`: one run for each message, with an Alert for each of its patterns.
pub async fn replay() {
    let mut report = Report::default();
    let patterns: Vec<Pattern> = load("patterns.json");
    let mut by_messages: BTreeMap<&[String], Vec<&Pattern>> = BTreeMap::new();
    for pattern in &patterns {
        match &pattern.skip {
            Some(reason) => report.skip(reason),
            None => by_messages
                .entry(&pattern.messages)
                .or_default()
                .push(pattern),
        }
    }
    for (messages, patterns) in by_messages {
        let mut problems = vec![Vec::new(); patterns.len()];
        for (position, message) in messages.iter().enumerate() {
            let matched = matched(message, &patterns).await;
            for (number, pattern) in patterns.iter().enumerate() {
                match &matched {
                    Ok(alerts)
                        if alerts.contains(&format!("apps/a{number}"))
                            == pattern.matches[position] => {}
                    Ok(_) => problems[number].push(format!(
                        "{message:?}: expected a match: {}",
                        pattern.matches[position]
                    )),
                    Err(problem) => problems[number].push(problem.clone()),
                }
            }
        }
        patterns
            .iter()
            .zip(&problems)
            .for_each(|(pattern, problems)| report.add(&pattern.pattern, problems));
    }
    report.finish("patterns");
}

/// The alerts that match an event with this message.
async fn matched(message: &str, patterns: &[&Pattern]) -> Result<BTreeSet<String>, String> {
    let alert = |(number, pattern): (usize, &&Pattern)| {
        let list = json!([pattern.pattern]);
        alert(&format!("a{number}"), "hook")
            .with("inclusionList", list)
            .value()
    };
    let provider = provider("hook", "http://receiver.example/hook").value();
    let rules = patterns
        .iter()
        .enumerate()
        .map(alert)
        .chain([provider])
        .collect();
    let mut event = event(message);
    event["severity"] = json!("error");
    let input = Input {
        rules,
        event,
        event_text: None,
        labels: None,
        no_cross_namespace_refs: false,
    };
    let output = Run::new(&input, &[], &[]).await.output?;
    Ok(output
        .deliveries
        .into_iter()
        .map(|delivery| delivery.alert)
        .collect())
}
