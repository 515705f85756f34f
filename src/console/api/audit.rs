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
    let objects = stored.record.objects.iter();
    let objects = objects.map(|it| json!({ "cluster": it.cluster, "namespace": it.namespace }));
    row["namespaces"] = json!(stored.record.namespaces);
    row["objects"] = objects.collect();
    row
}

/// The actions on what a limited caller sees. Those of older versions name no namespaces.
async fn limited(console: &Console, caller: &Caller, mut all: Value) -> Result<Value, Problem> {
    let Some(rows) = rows(&mut all, "actions") else {
        return Ok(all);
    };
    let own = &console.parts.settings.cluster;
    let of_objects = rows.iter().flat_map(objects);
    let of_objects = of_objects.filter(|(cluster, _)| cluster == own);
    let named = rows.iter().flat_map(namespaces);
    let named = named.chain(of_objects.map(|(_, namespace)| namespace));
    let visible = console.visible(caller, named.map(str::to_owned)).await?;
    rows.retain(|row| is_visible(&visible, row));
    Ok(all)
}

/// The namespaces of the rules that a row names.
fn namespaces(row: &Value) -> impl Iterator<Item = &str> {
    let names = row["namespaces"].as_array().into_iter().flatten();
    names.map(|name| name.as_str().unwrap_or_default())
}

/// Cluster and namespace of the objects that a row names.
fn objects(row: &Value) -> impl Iterator<Item = (&str, &str)> {
    let objects = row["objects"].as_array().into_iter().flatten();
    objects.map(|object| {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        (text("cluster"), text("namespace"))
    })
}

fn is_visible(visible: &Visible, row: &Value) -> bool {
    let is_named = namespaces(row).next().is_some() || objects(row).next().is_some();
    let of_object = |(cluster, namespace)| visible.cluster(cluster) && visible.namespace(namespace);
    is_named && namespaces(row).all(|name| visible.namespace(name)) && objects(row).all(of_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_visible_if_all_that_it_names_is() {
        let visible = Visible::Of {
            namespaces: ["apps".to_owned()].into(),
            cluster: "here".to_owned(),
        };
        let object =
            |cluster: &str, namespace: &str| json!({ "cluster": cluster, "namespace": namespace });
        for (namespaces, objects, expected) in [
            (json!(["apps"]), json!([]), true),
            (json!(["apps"]), json!([object("here", "apps")]), true),
            (json!([]), json!([object("here", "apps")]), true),
            (json!(["apps"]), json!([object("there", "apps")]), false),
            (json!(["apps"]), json!([object("here", "other")]), false),
            (json!(["apps"]), json!([object("here", "")]), false),
            (json!(["apps", "other"]), json!([]), false),
            (json!([""]), json!([]), false),
            (json!([]), json!([]), false),
            (Value::Null, Value::Null, false),
        ] {
            let row = json!({ "namespaces": namespaces, "objects": objects });
            assert_eq!(is_visible(&visible, &row), expected, "{row}");
        }
    }
}
