//! `/api/tester`: what the rules decide about an event, and the messages as workers render them.
//! Nothing is sent.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Extension;
use axum::extract::{Request, State};
use futures::FutureExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::model::text::cut_bytes;
use tidings_core::{Delivery, Event};
use tidings_ingest::parse_event;
use tidings_router::{AlertExplanation, PlanContext, Verdict, explain};
use tokio::task::spawn_blocking;

use super::{Answer, body, json};
use crate::command::test::report::DeliveryReport;
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::problem::Problem;
use crate::trace::bounds::Bounds;
use crate::trace::events::latest_events;
use crate::trace::gather::Request as Wanted;
use crate::trace::query::Query;

/// The largest event that can be tried.
const MAX_BODY_BYTES: usize = 256 << 10;
/// The most deliveries that are rendered, and Alerts that are listed.
const MOST_DELIVERIES: usize = 20;
const MOST_ALERTS: usize = 200;
/// The most requests of a delivery, and the most bytes of their bodies that are shown.
const MOST_REQUESTS: usize = 10;
const MAX_SHOWN_BYTES: usize = 64 << 10;
/// Rendering takes milliseconds, and an expression may wait for a child process.
const WITHIN: Duration = Duration::from_secs(10);

/// An event to try.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tried {
    /// As Flux's controllers post it.
    event: Option<Value>,
    /// Otherwise the id of a stored event.
    id: Option<String>,
    /// The cluster of an event that is not stored.
    cluster: Option<String>,
}

pub async fn try_event(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let tried: Tried = body::read(request, MAX_BODY_BYTES).await?;
    let permit = console.traces.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::Busy)?;
    let is_stored = tried.id.is_some();
    let event = event(&console, tried).await?;
    let named = console.namespaces_of_rules().into_iter();
    let named = named.chain(console.namespace_to_ask(&event));
    let visible = console.visible(&caller, named).await?;
    if is_stored && !visible.event(&event) {
        return Err(Problem::NotFound);
    }
    let rules = console.parts.rules.current();
    let clusters = console.parts.clusters.current();
    let (of_task, tried) = (rules.clone(), event.clone());
    // The patterns of all Alerts take a while.
    let explained = spawn_blocking(move || {
        let explained = explain(&of_task, &tried, &clusters, PlanContext::default());
        // Held until the work ends, also if nobody waits for it any more.
        (explained, permit)
    });
    let (explained, _permit) = explained.await.context("the rules cannot be tried")?;
    let (mut explained, others): (Vec<_>, Vec<_>) = explained
        .into_iter()
        .filter(|alert| visible.name(&alert.alert))
        .partition(|alert| alert.verdict != Verdict::NoEventSourceMatches);
    explained.sort_by_key(|alert| (alert.delivery.is_none(), alert.alert.clone()));
    let mut deliveries = Vec::new();
    let planned = explained.iter().filter_map(|alert| alert.delivery.as_ref());
    // A message is rendered with what its Provider's namespace holds.
    let planned = planned.filter(|delivery| visible.rules_of(delivery));
    for delivery in planned.take(MOST_DELIVERIES) {
        deliveries.push(preview(&console, delivery, &event).await?);
    }
    let object = event.involved_object.clone().unwrap_or_default();
    json(&json!({
        "event": {
            "id": event.id,
            "cluster": event.cluster,
            "object": format!("{} {}/{}", object.kind, object.namespace, object.name),
        },
        "alerts": explained.iter().take(MOST_ALERTS).map(alert).collect::<Vec<_>>(),
        "otherAlerts": others.len() + explained.len().saturating_sub(MOST_ALERTS),
        "deliveries": deliveries,
    }))
}

async fn event(console: &Console, tried: Tried) -> Result<Event, Problem> {
    let invalid = |name: &str, problem: String| Problem::Invalid(format!("{name}: {problem}"));
    match (tried.event, tried.id) {
        (Some(event), None) => {
            let own = || console.parts.settings.cluster.clone();
            let cluster = tried.cluster.filter(|name| !name.is_empty());
            let cluster = cluster.unwrap_or_else(own);
            let parsed = parse_event(
                event.to_string().as_bytes(),
                &cluster,
                Timestamp::now(),
                None,
            );
            parsed.map_err(|error| invalid("event", error.to_string()))
        }
        (None, Some(id)) => {
            let query = Query::event(&id).map_err(|error| invalid("id", error.to_string()))?;
            let wanted = Wanted {
                query,
                since: Timestamp::UNIX_EPOCH,
                cluster: None,
                limit: 1,
                bounds: Bounds::CONSOLE,
            };
            let bus = &console.parts.bus;
            let found = latest_events(bus, &wanted, Timestamp::UNIX_EPOCH, 1).await?;
            let mut events = found.events;
            events
                .pop_back()
                .map(|found| found.event)
                .ok_or(Problem::NotFound)
        }
        _ => Err(Problem::Invalid("expected event, or id".to_owned())),
    }
}

/// What a delivery would send. Addresses and headers are not shown: they can be secret.
///
/// # Errors
/// It is not rendered in time.
pub async fn preview(
    console: &Console,
    delivery: &Delivery,
    event: &Event,
) -> anyhow::Result<Value> {
    let rules = console.parts.rules.current();
    let provider = delivery.provider.clone().unwrap_or_default();
    let alert = delivery.alert.clone().unwrap_or_default();
    let alert = format!("{}/{}", alert.namespace, alert.name);
    let rendering = console
        .tester
        .deliver(&alert, delivery, event, &rules, false);
    let rendering = AssertUnwindSafe(rendering).catch_unwind();
    let report = tokio::time::timeout(WITHIN, rendering).await;
    let report = report.with_context(|| {
        let name = format!("{}/{}", provider.namespace, provider.name);
        format!("the message to Provider {name} is not rendered in time")
    })?;
    let report = report.map_err(|_| anyhow::anyhow!("the message cannot be rendered"))?;
    Ok(shown(&report))
}

fn shown(report: &DeliveryReport) -> Value {
    let requests = report.requests.iter().take(MOST_REQUESTS);
    let requests: Vec<_> = requests
        .map(|request| {
            json!({
                "method": request.method,
                "body": cut_bytes(&request.body, MAX_SHOWN_BYTES),
            })
        })
        .collect();
    json!({
        "alert": report.alert,
        "provider": report.provider,
        "type": report.r#type,
        "outcome": report.outcome,
        "detail": report.detail,
        "templateError": report.template_error,
        "requests": requests,
    })
}

fn alert(explained: &AlertExplanation) -> Value {
    json!({
        "alert": explained.alert,
        "verdict": explained.verdict.as_str(),
        "detail": explained.detail,
    })
}
