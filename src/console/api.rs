//! The API of the console: JSON, and live streams. `docs/console.md` lists the paths.

mod action;
mod alerts;
mod audit;
mod body;
mod dead_letters;
mod deliveries;
mod live;
mod overview;
mod providers;
mod tester;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::Value;

use super::access::Caller;
use super::problem::Problem;
use super::visible::{Visible, namespace_of};
use super::{Console, guard};

/// What pages poll.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Polled {
    /// `/api/providers`
    Providers,
    /// `/api/alerts`
    Alerts,
    /// `/api/deliveries`
    Deliveries(deliveries::Wanted),
    /// `/api/audit`
    Audit(audit::Wanted),
}

/// An answer, or why there is none.
type Answer = Result<Response, Problem>;

/// The paths of the API. Everything below `/api` needs what the guard checks, also paths that do
/// not exist.
pub fn router(console: Arc<Console>) -> Router<Arc<Console>> {
    Router::new()
        .route("/session", get(overview::session))
        .route("/overview", get(overview::overview))
        .route("/providers", get(providers::list))
        .route("/alerts", get(alerts::list))
        .route("/deliveries", get(deliveries::list))
        .route("/audit", get(audit::list))
        .route("/dead", get(dead_letters::list))
        .route("/dead/count", get(action::dead_letters::count))
        .route("/dead/{sequence}", get(dead_letters::show))
        .route("/events", get(live::stream))
        .route("/trace", get(trace::show))
        .route("/tester", post(tester::try_event))
        .nest("/actions", action::router())
        .method_not_allowed_fallback(async || Problem::Method)
        .fallback(async || Problem::NotFound)
        .layer(from_fn_with_state(console, guard::api_request))
}

fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(anyhow::Error::from)?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// An answer that all who poll share. A limited caller gets what `limit` leaves of it.
async fn shared(
    console: &Console,
    caller: &Caller,
    polled: Polled,
    read: impl AsyncFnOnce() -> anyhow::Result<Value>,
    limit: impl AsyncFnOnce(Value) -> Result<Value, Problem>,
) -> Answer {
    let read = async || Ok(Bytes::from(serde_json::to_vec(&read().await?)?));
    let body = console.polled.get(polled, read).await?;
    if caller.is_limited {
        let all = serde_json::from_slice(&body).map_err(anyhow::Error::from)?;
        return json(&limit(all).await?);
    }
    let body = (*body).clone();
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The rows of an answer.
fn rows<'a>(answer: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    answer.get_mut(name).and_then(Value::as_array_mut)
}

/// A text of a row; empty without one.
fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

/// Keeps the rules in namespaces that the caller sees. Their last error can be one of a delivery
/// that names other namespaces, too.
async fn visible_rules(
    console: &Console,
    caller: &Caller,
    rows: &mut Vec<Value>,
) -> Result<Visible, Problem> {
    let errors = rows.iter().map(|row| &row["seen"]["lastError"]);
    let names = errors.flat_map(|error| ["alert", "provider"].map(|name| text(error, name)));
    let others = names.map(|name| namespace_of(name).to_owned());
    let all: Vec<_> = others.chain(console.namespaces_of_rules()).collect();
    let visible = console.visible(caller, all).await?;
    rows.retain(|row| visible.namespace(text(row, "namespace")));
    for row in rows {
        let error = &mut row["seen"]["lastError"];
        let names = ["alert", "provider"].map(|name| text(error, name));
        let is_visible = names.iter().all(|name| visible.name(name));
        if !(is_visible && visible.cluster(text(error, "cluster"))) {
            *error = Value::Null;
        }
    }
    Ok(visible)
}
