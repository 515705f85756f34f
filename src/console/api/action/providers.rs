//! Pause and resume a Provider, and send it a test message.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tidings_core::bus::wake::Woken;
use tidings_core::model::id::{delivery_id, digest, event_id};
use tidings_core::model::text::cut_bytes;
use tidings_core::model::time::to_proto;
use tidings_core::{
    AlertReference, Delivery, Destination, Event, ObjectReference, ProviderReference,
};
use tidings_rules::{Family, Provider};

use super::{MAX_BODY_BYTES, Operator};
use crate::audit::ManualAction;
use crate::command::providers::circuits::{destination, open, pause_now, resume_now};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::api::{Answer, body, json, tester};
use crate::console::problem::Problem;

/// The longest reason of a pause, and the longest test message.
const MAX_TEXT_BYTES: usize = 500;
/// The Alert that a test message names. There need not be one.
const TEST: &str = "tidings-test";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pause {
    provider: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resume {
    provider: String,
    /// Also send what waits for its reserved send time.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Test {
    provider: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    severity: Severity,
    /// Otherwise the message is only rendered.
    #[serde(default)]
    send: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Severity {
    #[default]
    Info,
    Error,
}

pub async fn pause(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let operator = Operator::of(console.clone(), caller, &request);
    let wanted: Pause = body::read(request, MAX_BODY_BYTES).await?;
    let destination = named(&wanted.provider)?;
    let permit = operator.permit([&destination.namespace]).await?;
    known(&console, &destination)?;
    let reason = match wanted.reason.trim() {
        "" => format!("paused by {}", operator.who),
        reason => format!("{}: {reason}", operator.who),
    };
    let reason = cut_bytes(&reason, MAX_TEXT_BYTES);
    let action = ManualAction {
        detail: reason.clone(),
        ..ManualAction::on_provider("provider-pause", &destination)
    };
    let pause = async move {
        let bus = &console.parts.bus;
        pause_now(bus, &open(bus).await?, &destination, &reason).await?;
        Ok(json!({}))
    };
    operator.act(permit, action, pause).await
}

pub async fn resume(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let operator = Operator::of(console.clone(), caller, &request);
    let wanted: Resume = body::read(request, MAX_BODY_BYTES).await?;
    let destination = named(&wanted.provider)?;
    let permit = operator.permit([&destination.namespace]).await?;
    let stored = open(&console.parts.bus).await?.all().await;
    let stored = stored.map_err(anyhow::Error::from)?;
    let is_paused = stored.iter().any(|stored| {
        let circuit = &stored.circuit;
        (&circuit.namespace, &circuit.provider) == (&destination.namespace, &destination.provider)
    });
    if !is_paused {
        known(&console, &destination)?;
    }
    let action = ManualAction::on_provider("provider-resume", &destination);
    let resume = async move {
        let bus = &console.parts.bus;
        let circuits = open(bus).await?;
        let resumed = resume_now(bus, &circuits, &stored, &destination, wanted.force);
        let Woken { count, left, .. } = resumed.await?;
        Ok(json!({ "woken": count, "left": left }))
    };
    operator.act(permit, action, resume).await
}

/// Renders a test message, and sends it as a delivery of its own: through the worker, the circuit
/// and the rate limit of its Provider.
pub async fn test(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let operator = Operator::of(console.clone(), caller, &request);
    let wanted: Test = body::read(request, MAX_BODY_BYTES).await?;
    let destination = named(&wanted.provider)?;
    let permit = operator.permit([&destination.namespace]).await?;
    let provider = known(&console, &destination)?;
    if matches!(
        provider.kind.family,
        Family::CommitStatus | Family::ChangeRequest
    ) {
        let problem = "provider: its type writes to commits and change requests, and a test \
                       message has none; use the tester with an event that names one";
        return Err(Problem::Invalid(problem.to_owned()));
    }
    let delivery = delivery(&console, &provider, &wanted, &operator.who);
    if !wanted.send {
        let event = delivery.event.clone().unwrap_or_default();
        return json(&tester::preview(&console, &delivery, &event).await?);
    }
    let action = ManualAction::on_provider("provider-test", &destination);
    let send = async move {
        console.parts.bus.enqueue(&delivery).await?;
        Ok(json!({ "eventId": delivery.event_id, "deliveryId": delivery.id }))
    };
    operator.act(permit, action, send).await
}

fn named(provider: &str) -> Result<Destination, Problem> {
    destination(provider).map_err(|error| Problem::Invalid(format!("provider: {error}")))
}

fn known(console: &Console, destination: &Destination) -> Result<Arc<Provider>, Problem> {
    let rules = console.parts.rules.current();
    let provider = rules.provider(&destination.namespace, &destination.provider);
    provider.cloned().ok_or(Problem::NotFound)
}

fn delivery(console: &Console, provider: &Provider, wanted: &Test, who: &str) -> Delivery {
    let now = Timestamp::now();
    let message = match wanted.message.trim() {
        "" => format!("This is a test message of Tidings. {who} sent it."),
        message => cut_bytes(message, MAX_TEXT_BYTES),
    };
    let salt = rand::random::<u64>().to_string();
    let id = event_id(&digest(&[TEST, &salt]), now.as_nanosecond());
    let (namespace, name) = (provider.namespace.clone(), provider.name.clone());
    let event = Event {
        id: id.clone(),
        cluster: console.parts.settings.cluster.clone(),
        severity: match wanted.severity {
            Severity::Info => "info".to_owned(),
            Severity::Error => "error".to_owned(),
        },
        reason: "TestMessage".to_owned(),
        message,
        timestamp: Some(to_proto(now)),
        received_at: Some(to_proto(now)),
        reporting_controller: "tidings".to_owned(),
        involved_object: Some(ObjectReference {
            kind: "Provider".to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    };
    Delivery {
        id: delivery_id(&id, (&namespace, TEST), (&namespace, &name), 0),
        event_id: id,
        event: Some(event),
        alert: Some(AlertReference {
            namespace: namespace.clone(),
            name: TEST.to_owned(),
            ..AlertReference::default()
        }),
        provider: Some(ProviderReference {
            namespace,
            name,
            r#type: provider.kind.name.to_owned(),
            pool: provider.pool.clone(),
        }),
        planned_at: Some(to_proto(now)),
        ..Delivery::default()
    }
}
