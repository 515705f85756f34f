//! `/api/audit`: what `tidings audit` shows.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use tidings_core::bus::audit::StoredAction;

use super::{Answer, Polled, rows, shared};
use crate::audit;
use crate::command::tool::moment;
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::visible::Visible;

/// The most actions of an answer.
const MOST: u64 = 1000;
/// Actions are listed for this long.
const SINCE: &str = "7d";

/// Which actions are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    since: String,
    limit: usize,
}

pub async fn list(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::read(query.as_deref(), &["since", "limit"])?;
    let wanted = Wanted {
        since: query.text("since").unwrap_or_else(|| SINCE.to_owned()),
        limit: usize::try_from(query.number("limit", 1..=MOST, 100)?).unwrap_or(100),
    };
    let since = moment(&wanted.since);
    let since = since.map_err(|error| Problem::Invalid(format!("since: {error}")))?;
    let read = async || {
        // The stream is read from there to its end.
        let permit = console.traces.acquire().await;
        let _permit = permit.context("the console stops")?;
        let actions = console.parts.bus.recorded_actions(since, wanted.limit);
        let (actions, has_more) = actions.await.context("cannot read the stream AUDIT")?;
        let actions: Vec<Value> = actions.iter().rev().map(row).collect();
        Ok(json!({ "actions": actions, "hasMore": has_more }))
    };
    let limit = async |all| limited(&console, &caller, all).await;
    let polled = Polled::Audit(wanted.clone());
    shared(&console, &caller, polled, read, limit).await
}

fn row(stored: &StoredAction) -> Value {
    let mut row = audit::json(stored);
    row["namespaces"] = json!(stored.record.namespaces);
    row
}

/// The actions on what a limited caller sees. Those of older versions name no namespaces.
async fn limited(console: &Console, caller: &Caller, mut all: Value) -> Result<Value, Problem> {
    let Some(rows) = rows(&mut all, "actions") else {
        return Ok(all);
    };
    let all_names = rows.iter().flat_map(names);
    let namespaces = all_names.map(|name| split(name).1.to_owned());
    let visible = console.visible(caller, namespaces).await?;
    rows.retain(|row| {
        let mut names = names(row).peekable();
        names.peek().is_some() && names.all(|name| is_visible(&visible, name))
    });
    Ok(all)
}

fn names(row: &Value) -> impl Iterator<Item = &str> {
    let names = row["namespaces"].as_array().into_iter().flatten();
    names.map(|name| name.as_str().unwrap_or_default())
}

/// The cluster, if the name is that of an object's namespace, and the namespace.
fn split(name: &str) -> (Option<&str>, &str) {
    match name.rsplit_once('/') {
        Some((cluster, namespace)) => (Some(cluster), namespace),
        None => (None, name),
    }
}

fn is_visible(visible: &Visible, name: &str) -> bool {
    let (cluster, namespace) = split(name);
    cluster.is_none_or(|cluster| visible.cluster(cluster)) && visible.namespace(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_an_object_is_one_of_its_cluster() {
        let visible = Visible::Of {
            namespaces: ["apps".to_owned()].into(),
            cluster: "here".to_owned(),
        };
        for (name, expected) in [
            ("apps", true),
            ("here/apps", true),
            ("there/apps", false),
            ("here/other", false),
            ("other", false),
            ("", false),
            ("here/", false),
        ] {
            assert_eq!(is_visible(&visible, name), expected, "{name}");
        }
    }
}
