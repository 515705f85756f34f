//! `/api/providers`: the Providers of the rules, with their circuits, what waits for them, and what
//! was last seen of them. Addresses and channels are not shown: they can be secret.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::{RawQuery, State};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tidings_core::bus::{Bus, streams};
use tidings_core::model::subject::{ALL_DEAD, ALL_DELIVERIES};
use tidings_core::model::token::Token;
use tidings_rules::Provider;
use tidings_rules::snapshot::RuleEntry;

use super::alerts::problems;
use super::{Answer, Polled, rows, shared, visible_rules};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::query::Query;

/// The most problems of one Provider that are shown.
const MOST_PROBLEMS: usize = 10;
/// The most subjects of a stream that are counted.
const MOST_SUBJECTS: usize = 20_000;

/// Messages by the tokens of namespace and name.
type Counts = HashMap<(String, String), u64>;

pub async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::read(query.as_deref(), &[])?;
    let read = async || providers(&console).await;
    let limit = async |mut all: Value| {
        if let Some(rows) = rows(&mut all, "providers") {
            visible_rules(&console, &caller, rows).await?;
        }
        Ok(all)
    };
    shared(&console, &caller, Polled::Providers, read, limit).await
}

async fn providers(console: &Console) -> anyhow::Result<Value> {
    let bus = &console.parts.bus;
    let (status, ready, dead) = tokio::try_join!(
        console.status(),
        counts(bus, streams::DELIVERIES, ALL_DELIVERIES),
        counts(bus, streams::DEAD, ALL_DEAD),
    )?;
    let rules = console.parts.rules.current();
    let providers: Vec<Value> = rules
        .entries()
        .iter()
        .filter(|entry| entry.identity.kind == "Provider")
        .map(|entry| {
            let (namespace, name) = (&entry.identity.namespace, &entry.identity.name);
            let tokens = [namespace, name].map(|text| Token::new(text).to_string());
            let key = tokens.into();
            let circuits: Vec<&Value> = status
                .circuits
                .iter()
                .filter(|circuit| {
                    circuit["namespace"] == **namespace && circuit["provider"] == **name
                })
                .collect();
            let mut row = row(entry, rules.provider(namespace, name).map(|found| &**found));
            row["circuits"] = json!(circuits);
            row["ready"] = json!(ready.get(&key).copied().unwrap_or_default());
            row["dead"] = json!(dead.get(&key).copied().unwrap_or_default());
            row["seen"] = json!(console.recent.provider(namespace, name));
            row
        })
        .collect();
    Ok(json!({ "providers": providers }))
}

fn row(entry: &RuleEntry, provider: Option<&Provider>) -> Value {
    json!({
        "namespace": entry.identity.namespace,
        "name": entry.identity.name,
        "inEffect": entry.in_effect,
        "rejection": entry.rejection,
        "problems": problems(&entry.problems, MOST_PROBLEMS),
        "spec": provider.map(|provider| json!({
            "type": provider.kind.name,
            "suspended": provider.suspended,
            "pool": provider.pool,
            "rateLimit": provider.rate_limit.map(|limit| {
                json!({ "count": limit.count, "perSeconds": limit.per.as_secs_f64() })
            }),
            "maxInFlight": provider.max_in_flight,
        })),
    })
}

/// The messages of a stream by Provider. The last two tokens of a subject name it.
async fn counts(bus: &Bus, stream: &str, filter: &str) -> anyhow::Result<Counts> {
    let unreadable = || format!("cannot read the stream {stream}");
    let found = bus.jetstream().get_stream_no_info(stream).await;
    let found = found.with_context(unreadable)?;
    let mut subjects = found
        .info_with_subjects(filter)
        .await
        .with_context(unreadable)?;
    let mut counts = Counts::new();
    for _ in 0..MOST_SUBJECTS {
        let Some((subject, count)) = subjects.try_next().await.with_context(unreadable)? else {
            break;
        };
        let mut tokens = subject.rsplit('.');
        if let (Some(name), Some(namespace)) = (tokens.next(), tokens.next()) {
            let count = u64::try_from(count).unwrap_or_default();
            *counts
                .entry((namespace.to_owned(), name.to_owned()))
                .or_default() += count;
        }
    }
    Ok(counts)
}
