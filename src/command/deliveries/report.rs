//! Formats stored deliveries as text and as JSON.

use serde_json::json;
use tidings_core::bus::stored_deliveries::StoredDelivery;
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::time::to_proto;

use super::State;
use crate::command::list::Row;
use crate::command::tool::{parties, time};

/// What a delivery waits for. Scripts read it.
fn waits_for(stored: &StoredDelivery, state: State) -> &'static str {
    match state {
        State::Ready => "worker",
        State::Parked if stored.waits_for_circuit => "circuit",
        State::Parked if stored.delivery.slot_ms > 0 => "send-time",
        State::Parked if stored.delivery.attempt > 0 => "retry",
        State::Parked => "turn",
    }
}

/// The headers of the list on a terminal.
pub const HEADERS: &[&str] = &[
    "ID",
    "WAITS FOR",
    "UNTIL",
    "PROVIDER",
    "ALERT",
    "ATTEMPTS",
    "LAST",
];

/// One row of the list.
pub fn row(stored: &StoredDelivery, state: State) -> Row {
    let delivery = &stored.delivery;
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    let last = delivery.attempts.last();
    Row {
        line: line(stored, state),
        cells: vec![
            delivery.id.clone(),
            waits_for(stored, state).to_owned(),
            time(stored.next_attempt_at.map(to_proto)),
            format!("{}/{}", provider.namespace, provider.name),
            format!("{}/{}", alert.namespace, alert.name),
            delivery.attempt.to_string(),
            last.map_or_else(String::new, |last| {
                format!("{}: {}", last.reason, last.detail)
            }),
        ],
        json: json(stored, state),
    }
}

fn line(stored: &StoredDelivery, state: State) -> String {
    let delivery = &stored.delivery;
    let waits = waits_for(stored, state);
    let when = match stored.next_attempt_at {
        // A worker looks at it again then, and earlier if the circuit is closed.
        Some(next) if waits == "circuit" => format!(
            "for its circuit, which is open or paused, until {} at the latest",
            time(Some(to_proto(next)))
        ),
        Some(next) => format!("until {} for {waits}", time(Some(to_proto(next)))),
        None => format!(
            "since {} for {waits}",
            time(Some(to_proto(stored.stored_at)))
        ),
    };
    let last = delivery.attempts.last().map_or_else(String::new, |last| {
        format!(", last {}: {}", last.reason, last.detail)
    });
    format!("{} waits {when}, {}{last}", delivery.id, parties(delivery))
}

/// The object for `--output json`.
pub fn json(stored: &StoredDelivery, state: State) -> serde_json::Value {
    let delivery = &stored.delivery;
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    let event = carried_event(delivery);
    let object = event.and_then(|event| event.involved_object.as_ref());
    let last = delivery.attempts.last();
    json!({
        "id": delivery.id,
        "state": state.as_str(),
        "waitsFor": waits_for(stored, state),
        "storedAt": time(Some(to_proto(stored.stored_at))),
        "nextAttemptAt": stored.next_attempt_at.map(|next| time(Some(to_proto(next)))),
        "provider": format!("{}/{}", provider.namespace, provider.name),
        "type": provider.r#type,
        "pool": provider.pool,
        "channel": delivery.channel,
        "alert": format!("{}/{}", alert.namespace, alert.name),
        "eventId": delivery.event_id,
        "cluster": event.map(|event| &event.cluster),
        "object": object.map(|object| json!({
            "kind": object.kind,
            "namespace": object.namespace,
            "name": object.name,
        })),
        "plannedAt": time(delivery.planned_at),
        "attempts": delivery.attempt,
        "reason": last.map(|last| &last.reason),
        "status": last.map(|last| last.status).filter(|status| *status > 0),
        "detail": last.map(|last| &last.detail),
        "lastAttemptAt": last.map(|last| time(last.started_at)),
    })
}
