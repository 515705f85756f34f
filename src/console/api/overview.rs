//! `/api/session`: who the caller is. `/api/overview`: what `tidings status` shows, and numbers of
//! the last hour.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use serde_json::json;

use super::{Answer, json};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::query::Query;

pub async fn session(Extension(caller): Extension<Caller>, RawQuery(query): RawQuery) -> Answer {
    Query::read(query.as_deref(), &[])?;
    json(&json!({
        "name": caller.name.as_deref(),
        "role": caller.role.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

pub async fn overview(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> Answer {
    Query::read(query.as_deref(), &[])?;
    let status = console.status().await?;
    json(&json!({ "status": &*status, "samples": console.samples.all() }))
}
