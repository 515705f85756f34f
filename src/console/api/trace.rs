//! `/api/trace`: what `tidings trace` shows, within tighter bounds.

use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{RawQuery, State};
use jiff::Timestamp;

use super::{Answer, json};
use crate::command::tool::moment;
use crate::console::Console;
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::trace::assemble::assemble;
use crate::trace::bounds::Bounds;
use crate::trace::gather::{Request, gather};
use crate::trace::query::Query as Wanted;

/// The most events of a trace.
const MOST: u64 = 50;
/// Events of an object are searched for this long, as `tidings trace` does.
const SINCE: &str = "1h";
const KNOWN: [&str; 6] = ["event", "object", "commit", "cluster", "since", "limit"];

pub async fn show(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> Answer {
    let request = request(&Query::read(query.as_deref(), &KNOWN)?)?;
    let _permit = console.traces.try_acquire().map_err(|_| Problem::Busy)?;
    let facts = gather(&console.parts.bus, &request).await?;
    let rules = console.parts.rules.current();
    // The patterns of all Alerts take a while.
    let assembled =
        tokio::task::spawn_blocking(move || assemble(&request, &facts, Some(&rules))).await;
    json(&assembled.context("the trace cannot be assembled")?)
}

fn request(query: &Query) -> Result<Request, Problem> {
    let invalid = |name: &str, error: &anyhow::Error| Problem::Invalid(format!("{name}: {error}"));
    let mut given = Vec::new();
    for (name, parse) in [
        ("event", Wanted::event as fn(&str) -> anyhow::Result<Wanted>),
        ("object", Wanted::object),
        ("commit", Wanted::commit),
    ] {
        if let Some(text) = query.text(name) {
            given.push(parse(&text).map_err(|error| invalid(name, &error))?);
        }
    }
    let [wanted] = <[Wanted; 1]>::try_from(given).map_err(|_| {
        Problem::Invalid("expected one of the parameters event, object and commit".to_owned())
    })?;
    let default = matches!(wanted, Wanted::Object { .. }).then(|| SINCE.to_owned());
    let since = query.text("since").or(default);
    let since = since.as_deref().map(moment).transpose();
    let since = since.map_err(|error| invalid("since", &error))?;
    Ok(Request {
        query: wanted,
        since: since.unwrap_or(Timestamp::UNIX_EPOCH),
        cluster: query.text("cluster"),
        limit: usize::try_from(query.number("limit", 1..=MOST, 20)?).unwrap_or(20),
        bounds: Bounds::CONSOLE,
    })
}
