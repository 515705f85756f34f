//! Formats dead letters as text and as JSON.

use serde_json::json;
use tidings_core::Attempt;
use tidings_core::model::flux;
use tidings_core::model::metadata::of_delivery;

use super::find::StoredDeadLetter;
use super::stored_event::StoredEvent;
use crate::command::list::Row;
use crate::command::tool::{parties, time};

/// The headers of the list on a terminal.
pub const HEADERS: &[&str] = &[
    "ID", "DIED", "REASON", "PROVIDER", "ALERT", "ATTEMPTS", "DETAIL",
];

/// One row of `tidings dead list`, for people.
pub fn row(stored: &StoredDeadLetter) -> Row {
    let (dead_letter, delivery) = (&stored.dead_letter, stored.delivery());
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    Row {
        line: summary(stored),
        cells: vec![
            delivery.id,
            time(dead_letter.died_at),
            dead_letter.reason.clone(),
            format!("{}/{}", provider.namespace, provider.name),
            format!("{}/{}", alert.namespace, alert.name),
            delivery.attempt.to_string(),
            dead_letter.detail.clone(),
        ],
        json: serde_json::Value::Null,
    }
}

/// One line for `tidings dead list`.
pub fn summary(stored: &StoredDeadLetter) -> String {
    let dead_letter = &stored.dead_letter;
    let delivery = stored.delivery();
    format!(
        "{} {} {} {}: {}",
        delivery.id,
        time(dead_letter.died_at),
        dead_letter.reason,
        parties(&delivery),
        dead_letter.detail
    )
}

/// The lines for `tidings dead show`.
pub fn details(stored: &StoredDeadLetter, event: &StoredEvent) -> Vec<String> {
    let delivery = stored.delivery();
    let mut lines = vec![summary(stored)];
    lines.extend(event_lines(&delivery.event_id, event));
    let known = event.known().cloned().unwrap_or_default();
    let metadata = of_delivery(&delivery, &known);
    lines.extend(
        metadata
            .iter()
            .map(|(key, value)| format!("    {key}: {value}")),
    );
    lines.push(format!(
        "  planned {}, {}",
        time(delivery.planned_at),
        match delivery.generation {
            0 => "not a replay".to_owned(),
            generation => format!("replay {generation}"),
        }
    ));
    lines.extend(delivery.attempts.iter().map(attempt_line));
    lines
}

fn event_lines(id: &str, event: &StoredEvent) -> Vec<String> {
    let Some(known) = event.known() else {
        return vec![format!(
            "  event {id} is no longer stored in the stream EVENTS"
        )];
    };
    let object = known.involved_object.clone().unwrap_or_default();
    let mut lines = vec![
        format!(
            "  event {id} received {} from cluster {}",
            time(known.received_at),
            known.cluster
        ),
        format!(
            "    {} {} {}/{}: {}: {}",
            known.severity, object.kind, object.namespace, object.name, known.reason, known.message
        ),
    ];
    if event.is_excerpt() {
        lines.push("    excerpt: the event is no longer stored in the stream EVENTS".to_owned());
    }
    lines
}

fn attempt_line(attempt: &Attempt) -> String {
    let reason = if attempt.reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", attempt.reason)
    };
    format!(
        "  attempt {} at {} took {} ms: {}{reason}: {}",
        attempt.number,
        time(attempt.started_at),
        attempt.duration_ms,
        attempt.outcome,
        attempt.detail
    )
}

/// The object for `--output json`.
pub fn json(stored: &StoredDeadLetter, event: &StoredEvent) -> serde_json::Value {
    let dead_letter = &stored.dead_letter;
    let delivery = stored.delivery();
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    let known = event.known();
    json!({
        "id": delivery.id,
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "diedAt": time(dead_letter.died_at),
        "alert": format!("{}/{}", alert.namespace, alert.name),
        "provider": format!("{}/{}", provider.namespace, provider.name),
        "type": provider.r#type,
        "eventId": delivery.event_id,
        "event": known.map(|event| flux::to_value(event, &of_delivery(&delivery, event))),
        "isExcerpt": event.is_excerpt(),
        "cluster": known.map(|event| event.cluster.clone()),
        "plannedAt": time(delivery.planned_at),
        "generation": delivery.generation,
        "attempt": delivery.attempt,
        "attempts": delivery.attempts.iter().map(attempt_json).collect::<Vec<_>>(),
    })
}

fn attempt_json(attempt: &Attempt) -> serde_json::Value {
    json!({
        "number": attempt.number,
        "startedAt": time(attempt.started_at),
        "durationMs": attempt.duration_ms,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "status": attempt.status,
        "detail": attempt.detail,
        "templateError": attempt.template_error,
        "conflict": attempt.conflict,
    })
}
