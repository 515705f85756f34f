//! `/api/trace`: what `tidings trace` shows, within tighter bounds.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use tidings_core::Delivery;

use super::{Answer, json};
use crate::command::tool::moment;
use crate::console::Console;
use crate::console::access::{Caller, Refusal};
use crate::console::problem::Problem;
use crate::console::query::Query;
use crate::console::visible::{Visible, namespaces_of_outcome, namespaces_of_rules};
use crate::trace::assemble::assemble;
use crate::trace::bounds::Bounds;
use crate::trace::gather::{Facts, Request, gather};
use crate::trace::query::Query as Wanted;
use crate::trace::report::Trace;

/// The most events of a trace.
const MOST: u64 = 50;
/// Events of an object are searched for this long, as `tidings trace` does.
const SINCE: &str = "1h";
const KNOWN: [&str; 6] = ["event", "object", "commit", "cluster", "since", "limit"];

pub async fn show(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Answer {
    let mut request = request(&Query::read(query.as_deref(), &KNOWN)?)?;
    if let Wanted::Object { namespace, .. } = &request.query
        && !console
            .visible(&caller, [namespace.clone()])
            .await?
            .namespace(namespace)
    {
        return Err(Problem::Refused(Refusal::NotInNamespace));
    }
    if caller.is_limited {
        // Nothing of another cluster would be left, and none is named in what explains an absence.
        let own = &console.parts.settings.cluster;
        if request
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster != own)
        {
            return Err(Problem::Refused(Refusal::NotInNamespace));
        }
        request.cluster = Some(own.clone());
    }
    let permit = console.traces.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::Busy)?;
    let mut facts = gather(&console.parts.bus, &request).await?;
    let named = namespaces_in(&console, &facts);
    let visible = console
        .visible(&caller, named.chain(console.namespaces_of_rules()))
        .await?;
    keep_visible(&mut facts, &visible);
    let rules = console.parts.rules.current();
    // The patterns of all Alerts take a while.
    let assembled = tokio::task::spawn_blocking(move || {
        // Held until the work ends, also if nobody waits for it any more.
        let _permit = permit;
        let shows = |alert: &str| visible.name(alert);
        let trace = assemble(&request, &facts, Some(&rules), &shows);
        limited(trace, &visible)
    });
    json(&assembled.await.context("the trace cannot be assembled")?)
}

/// The namespaces that facts name, except those of rules that exist.
fn namespaces_in(console: &Console, facts: &Facts) -> impl Iterator<Item = String> {
    let events = facts.events.iter().chain(&facts.earlier);
    let events = events.filter_map(|found| console.namespace_to_ask(&found.event));
    let pending = facts.pending.iter().map(|found| &found.delivery);
    let dead = facts
        .dead_letters
        .iter()
        .filter_map(|dead| dead.delivery.as_ref());
    let deliveries = pending.chain(dead).flat_map(namespaces_of_rules);
    let outcomes = facts.outcomes.iter();
    let outcomes = outcomes.flat_map(|found| namespaces_of_outcome(&found.outcome));
    events.chain(deliveries).chain(outcomes)
}

/// Keeps what is visible. What is known of an event only from its outcomes has no namespace, so it
/// is not.
fn keep_visible(facts: &mut Facts, visible: &Visible) {
    if visible.is_all() {
        return;
    }
    let before = facts.events.len();
    facts.events.retain(|found| visible.event(&found.event));
    // Others may be among those that were left out.
    facts.has_more_events &= facts.events.len() == before;
    facts.earlier.retain(|found| visible.event(&found.event));
    let kept = facts.events.iter().map(|found| found.event.id.clone());
    let kept: HashSet<String> = kept.collect();
    let is_visible =
        |delivery: &Delivery| kept.contains(&delivery.event_id) && visible.rules_of(delivery);
    facts.pending.retain(|found| is_visible(&found.delivery));
    facts
        .dead_letters
        .retain(|dead| dead.delivery.as_ref().is_some_and(is_visible));
    facts.outcomes.retain(|found| {
        let mut names = namespaces_of_outcome(&found.outcome).into_iter();
        kept.contains(&found.outcome.event_id) && names.all(|name| visible.namespace(&name))
    });
}

/// Leaves out what the hub as a whole says.
fn limited(mut trace: Trace, visible: &Visible) -> Trace {
    if let Some(absence) = trace.absence.as_mut().filter(|_| !visible.is_all()) {
        absence
            .clusters
            .retain(|cluster| visible.cluster(&cluster.name));
        absence.clusters_left_out = 0;
        absence.problems.clear();
    }
    trace
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
