//! `/api/session`: who the caller is. `/api/overview`: what `tidings status` shows, and numbers of
//! the last hour.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};

use super::{Answer, json};
use crate::command::status::report::{Process, Report};
use crate::console::Console;
use crate::console::access::{Caller, Role};
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::visible::Visible;

/// The problems that concern everybody, and whose messages name no rule.
const OF_ALL: [&str; 3] = ["no-ingest", "no-router", "no-worker"];

pub async fn session(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::read(query.as_deref(), &[])?;
    json(&json!({
        "name": caller.name.as_deref(),
        "role": role(&console, &caller).await?.as_str(),
        "isLimited": caller.is_limited,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// The role that the page shows: who may act in some namespace sees how.
async fn role(console: &Console, caller: &Caller) -> Result<Role, Problem> {
    if caller.role == Role::Operate || caller.user.is_none() {
        return Ok(caller.role);
    }
    let named = console.namespaces_of_rules();
    let operable = console.operable(caller, named).await?;
    Ok(match operable.is_empty() {
        true => Role::View,
        false => Role::Operate,
    })
}

pub async fn overview(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    Query::read(query.as_deref(), &[])?;
    let status = console.status().await?;
    let named = status.circuits.iter();
    let named = named.map(|circuit| super::text(circuit, "namespace").to_owned());
    let visible = console.visible(&caller, named).await?;
    if !visible.is_all() {
        let status = limited(&status, &visible);
        return json(&json!({ "isLimited": true, "status": status, "samples": [] }));
    }
    json(&json!({
        "isLimited": false,
        "status": &*status,
        "samples": console.samples.all(),
    }))
}

/// The status without what the hub as a whole says: counts, and texts that can name any rule.
fn limited(status: &Report, visible: &Visible) -> Value {
    let is_own = |process: &&Process| {
        let cluster = process.cluster.as_deref();
        cluster.is_none_or(|cluster| visible.cluster(cluster))
    };
    let processes = status.processes.iter().filter(is_own);
    let processes = processes.map(|process| Process {
        pools: Vec::new(),
        reason: None,
        ..process.clone()
    });
    let problems = status.problems.iter();
    let problems = problems.filter(|problem| OF_ALL.contains(&problem.code));
    let circuits = status.circuits.iter();
    let circuits = circuits.filter(|it| visible.namespace(super::text(it, "namespace")));
    json!({
        "at": status.at,
        "problems": problems.collect::<Vec<_>>(),
        "processes": processes.collect::<Vec<_>>(),
        "clusters": [],
        "circuits": circuits.collect::<Vec<_>>(),
    })
}
