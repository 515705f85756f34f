//! Formats dead letters as text and as JSON.

use serde_json::json;
use tidings_core::Attempt;
use tidings_core::model::flux;

use super::find::StoredDeadLetter;
use crate::command::tool::{count, time};

/// One line for `tidings dead list`.
pub fn summary(stored: &StoredDeadLetter) -> String {
    let dead_letter = &stored.dead_letter;
    let delivery = stored.delivery();
    let alert = delivery.alert.unwrap_or_default();
    let provider = delivery.provider.unwrap_or_default();
    format!(
        "{} {} {} provider {}/{} ({}), alert {}/{}, {}: {}",
        delivery.id,
        time(dead_letter.died_at),
        dead_letter.reason,
        provider.namespace,
        provider.name,
        provider.r#type,
        alert.namespace,
        alert.name,
        count(delivery.attempt as usize, "attempt"),
        dead_letter.detail
    )
}

/// The lines for `tidings dead show`.
pub fn details(stored: &StoredDeadLetter) -> String {
    let delivery = stored.delivery();
    let event = delivery.event.clone().unwrap_or_default();
    let object = event.involved_object.clone().unwrap_or_default();
    let mut lines = vec![
        summary(stored),
        format!(
            "  event {} received {} from cluster {}",
            delivery.event_id,
            time(event.received_at),
            event.cluster
        ),
        format!(
            "    {} {} {}/{}: {}: {}",
            event.severity, object.kind, object.namespace, object.name, event.reason, event.message
        ),
    ];
    let metadata = delivery.metadata.iter();
    lines.extend(metadata.map(|(key, value)| format!("    {key}: {value}")));
    lines.push(format!(
        "  planned {}, {}",
        time(delivery.planned_at),
        match delivery.generation {
            0 => "not a replay".to_owned(),
            generation => format!("replay {generation}"),
        }
    ));
    lines.extend(delivery.attempts.iter().map(attempt_line));
    lines.join("\n")
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
pub fn json(stored: &StoredDeadLetter) -> serde_json::Value {
    let dead_letter = &stored.dead_letter;
    let delivery = stored.delivery();
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    let event = delivery.event.as_ref();
    json!({
        "id": delivery.id,
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "diedAt": time(dead_letter.died_at),
        "alert": format!("{}/{}", alert.namespace, alert.name),
        "provider": format!("{}/{}", provider.namespace, provider.name),
        "type": provider.r#type,
        "eventId": delivery.event_id,
        "event": event.map(|event| flux::to_value(event, &delivery.metadata)),
        "cluster": event.map(|event| event.cluster.clone()),
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
    })
}
