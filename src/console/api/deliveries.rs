//! `/api/deliveries`: what `tidings deliveries list` shows.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use tidings_core::bus::names::RuleKind;

use super::{Answer, Polled, rows, shared, text};
use crate::command::deliveries::{self, State as Where, report};
use crate::command::names;
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::visible::namespace_of;

/// The most deliveries of an answer: each takes a request to the server.
const MOST: u64 = 500;

/// Which deliveries are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    filter: String,
    state: &'static str,
    limit: usize,
}

pub async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref(), &["state", "provider", "limit"])?;
    let state = match query.text("state").as_deref() {
        None | Some("parked") => Where::Parked,
        Some("ready") => Where::Ready,
        Some(_) => {
            let problem = "state: expected parked or ready";
            return Err(Problem::Invalid(problem.to_owned()));
        }
    };
    let provider = query.text("provider");
    let provider = provider.map(|text| names::parse(RuleKind::Provider, "provider", &text));
    let provider = provider
        .transpose()
        .map_err(|error| Problem::Invalid(error.to_string()))?;
    let limit = query.number("limit", 1..=MOST, 100)?;
    let wanted = Wanted {
        filter: deliveries::filter(state, provider.as_ref()),
        state: state.as_str(),
        limit: usize::try_from(limit).unwrap_or(100),
    };
    let read = async || {
        let stored = &console.parts.bus;
        let found = stored.stored_deliveries(&wanted.filter, wanted.limit);
        let (found, has_more) = found.await.context("cannot read the stream DELIVERIES")?;
        let rows: Vec<Value> = found
            .iter()
            .map(|stored| report::json(stored, state))
            .collect();
        Ok(json!({ "deliveries": rows, "hasMore": has_more }))
    };
    let limit = async |all| limited(&console, &caller, all).await;
    let polled = Polled::Deliveries(wanted.clone());
    shared(&console, &caller, polled, read, limit).await
}

/// The deliveries that a limited caller sees.
async fn limited(console: &Console, caller: &Caller, mut all: Value) -> Result<Value, Problem> {
    let Some(rows) = rows(&mut all, "deliveries") else {
        return Ok(all);
    };
    let namespaces = |row: &Value| {
        let rules = ["alert", "provider"].map(|name| namespace_of(text(row, name)).to_owned());
        let [alert, provider] = rules;
        [
            alert,
            provider,
            text(&row["object"], "namespace").to_owned(),
        ]
    };
    let own = &console.parts.settings.cluster;
    let of_own = rows.iter().filter(|row| text(row, "cluster") == own);
    let visible = console.visible(caller, of_own.flat_map(namespaces)).await?;
    rows.retain(|row| {
        let mut names = namespaces(row).into_iter();
        visible.cluster(text(row, "cluster")) && names.all(|name| visible.namespace(&name))
    });
    Ok(all)
}
