//! Makes the trace of what was read. Pure: the same facts and rules give the same trace.

use std::collections::BTreeMap;

use tidings_core::bus::streams;
use tidings_core::model::text::cut_bytes;
use tidings_core::model::time::to_proto;
use tidings_core::model::verdict::Verdict;
use tidings_core::model::{flux, text};
use tidings_router::{AlertExplanation, PlanContext, explain};
use tidings_rules::Rules;

use super::absence;
use super::deliveries::deliveries_of;
use super::gather::{Facts, FoundEvent, Request};
use super::report::{
    AlertVerdict, AttemptTrace, DeliveryTrace, Entry, EventSummary, EventTrace, Note, Trace,
};
use crate::command::tool::{count, time};

/// The most verdicts of an event.
const MOST_VERDICTS: usize = 200;
/// The most bytes of a message.
const MOST_OF_A_MESSAGE: usize = 1024;

/// Assembles the trace. Without rules, only verdicts that deliveries prove are known. `shows` says
/// of which Alerts the verdicts are part of it.
pub fn assemble(
    request: &Request,
    facts: &Facts,
    rules: Option<&Rules>,
    shows: &dyn Fn(&str) -> bool,
) -> Trace {
    let events: Vec<_> = facts
        .events
        .iter()
        .map(|found| event_trace(found, facts, rules, shows))
        .collect();
    let absence = events
        .is_empty()
        .then(|| absence::explain(request, facts, rules, shows));
    let notes = notes(request, facts, rules, &events);
    Trace {
        query: request.query.text(),
        at: format!("{:.3}", facts.reading.now),
        has_rules: rules.is_some(),
        events,
        absence,
        notes,
    }
}

fn event_trace(
    found: &FoundEvent,
    facts: &Facts,
    rules: Option<&Rules>,
    shows: &dyn Fn(&str) -> bool,
) -> EventTrace {
    let deliveries = deliveries_of(&found.event.id, facts);
    let explanations = rules
        .filter(|_| found.event.involved_object.is_some())
        .map(|rules| {
            let clusters = &facts.reading.clusters;
            let mut all = explain(rules, &found.event, clusters, PlanContext::default());
            all.retain(|explanation| shows(&explanation.alert));
            all
        });
    let mut verdicts = verdicts(explanations.unwrap_or_default(), &deliveries);
    let verdicts_left_out = verdicts.len().saturating_sub(MOST_VERDICTS);
    verdicts.truncate(MOST_VERDICTS);
    let event = summary(found);
    EventTrace {
        routing: routing(found, facts, &deliveries),
        timeline: timeline(&event, &deliveries),
        event,
        verdicts,
        verdicts_left_out,
        deliveries,
    }
}

/// Whether the routers have read the event.
fn routing(found: &FoundEvent, facts: &Facts, deliveries: &[DeliveryTrace]) -> &'static str {
    match facts.routers {
        _ if !deliveries.is_empty() => "routed",
        _ if found.sequence == 0 => "unknown",
        Some(routers) if found.sequence <= routers.routed_up_to => "routed",
        // An earlier event holds the position back.
        Some(routers) if found.sequence <= routers.read_up_to => "unknown",
        Some(_) | None => "waits",
    }
}

/// What each Alert decided: the closest first, those that do not name the object last.
fn verdicts(explained: Vec<AlertExplanation>, deliveries: &[DeliveryTrace]) -> Vec<AlertVerdict> {
    let mut proven: BTreeMap<&str, &DeliveryTrace> = BTreeMap::new();
    // A replay was planned with later rules, and says nothing of the first verdict.
    for delivery in deliveries.iter().filter(|it| it.generation == Some(0)) {
        proven.entry(&delivery.alert).or_insert(delivery);
    }
    let mut verdicts: Vec<_> = explained
        .into_iter()
        .map(
            |explanation| match proven.remove(explanation.alert.as_str()) {
                None => recomputed(explanation),
                Some(delivery) => AlertVerdict {
                    today: (explanation.verdict != Verdict::Matched)
                        .then(|| explanation.verdict.as_str()),
                    ..matched(delivery)
                },
            },
        )
        .collect();
    verdicts.extend(proven.into_values().map(matched));
    verdicts.sort_by_key(|verdict| (distance(verdict.verdict), verdict.alert.clone()));
    verdicts
}

/// The verdict that today's rules give.
pub(super) fn recomputed(explanation: AlertExplanation) -> AlertVerdict {
    AlertVerdict {
        alert: explanation.alert,
        verdict: explanation.verdict.as_str(),
        detail: explanation.detail,
        is_recomputed: true,
        today: None,
    }
}

fn matched(delivery: &DeliveryTrace) -> AlertVerdict {
    AlertVerdict {
        alert: delivery.alert.clone(),
        verdict: Verdict::Matched.as_str(),
        detail: format!("a delivery to Provider {} was planned", delivery.provider),
        is_recomputed: false,
        today: None,
    }
}

fn distance(verdict: &str) -> u8 {
    match verdict {
        verdict if verdict == Verdict::Matched.as_str() => 0,
        verdict if verdict == Verdict::NoEventSourceMatches.as_str() => 2,
        _ => 1,
    }
}

/// An event without its metadata, and with the beginning of its message.
pub(super) fn summary(found: &FoundEvent) -> EventSummary {
    let event = &found.event;
    let object = event.involved_object.clone().unwrap_or_default();
    let revision = flux::controller_metadata(event, "originRevision")
        .or_else(|| flux::controller_metadata(event, "revision"));
    let source = match event.reporting_controller.as_str() {
        "" => &event.reporting_instance,
        _ => &event.reporting_controller,
    };
    EventSummary {
        id: event.id.clone(),
        cluster: event.cluster.clone(),
        source: source.clone(),
        severity: event.severity.clone(),
        kind: object.kind,
        namespace: object.namespace,
        name: object.name,
        reason: event.reason.clone(),
        message: cut_bytes(&event.message, MOST_OF_A_MESSAGE),
        revision: revision.map(str::to_owned),
        happened_at: event.timestamp.map(|at| time(Some(at))),
        received_at: event.received_at.map(|at| time(Some(at))),
        stored_at: found.stored_at.map(|at| time(Some(to_proto(at)))),
        sequence: found.sequence,
        is_stored: found.sequence > 0,
    }
}

fn timeline(event: &EventSummary, deliveries: &[DeliveryTrace]) -> Vec<Entry> {
    let of_event = |at: &Option<String>, code, text: String| {
        at.clone().map(|at| Entry {
            at,
            code,
            delivery_id: None,
            text,
        })
    };
    let from = format!("from cluster {}", event.cluster);
    let from = match event.source.as_str() {
        "" => from,
        source => format!("{from}, reported by {source}"),
    };
    let happened = format!("{} {}: {}", event.severity, event.reason, event.message);
    let stored = format!("stored as message {} of EVENTS", event.sequence);
    let mut entries: Vec<Entry> = [
        of_event(
            &event.happened_at,
            "happened",
            text::visible(&happened).into_owned(),
        ),
        of_event(&event.received_at, "received", format!("received {from}")),
        of_event(&event.stored_at, "stored", stored),
    ]
    .into_iter()
    .flatten()
    .collect();
    entries.extend(deliveries.iter().flat_map(delivery_entries));
    // Stable: what happened at the same time stays in the order of cause and effect.
    entries.sort_by(|left, right| left.at.cmp(&right.at));
    entries
}

fn delivery_entries(delivery: &DeliveryTrace) -> Vec<Entry> {
    let entry = |at: &Option<String>, code, text: String| {
        at.clone().map(|at| Entry {
            at,
            code,
            delivery_id: Some(delivery.id.clone()),
            text,
        })
    };
    let to = format!("Provider {} ({})", delivery.provider, delivery.kind);
    let replay = match delivery.generation {
        Some(0) => String::new(),
        Some(generation) => format!(" as replay {generation}"),
        None => " as a replay".to_owned(),
    };
    let planned = format!(
        "Alert {} matched, delivery to {to} planned{replay}",
        delivery.alert
    );
    let attempts = delivery
        .attempts
        .iter()
        .map(|attempt| entry(&attempt.started_at, "attempt", attempt_text(attempt, &to)));
    let waits = delivery.waits_for.unwrap_or_default();
    let next = format!("next attempt to {to}, waits for {waits}");
    std::iter::once(entry(&delivery.planned_at, "planned", planned))
        .chain(attempts)
        .chain(std::iter::once(entry(
            &delivery.next_attempt_at,
            "next-attempt",
            next,
        )))
        .flatten()
        .collect()
}

fn attempt_text(attempt: &AttemptTrace, to: &str) -> String {
    let mut text = format!(
        "attempt {} to {to} took {} ms: {}",
        attempt.number, attempt.duration_ms, attempt.outcome
    );
    if let Some(status) = attempt.status {
        text.push_str(&format!(", answered {status}"));
    }
    if !attempt.reason.is_empty() {
        text.push_str(&format!(", {}", attempt.reason));
    }
    if !attempt.detail.is_empty() {
        text.push_str(&format!(": {}", attempt.detail));
    }
    text
}

fn notes(
    request: &Request,
    facts: &Facts,
    rules: Option<&Rules>,
    events: &[EventTrace],
) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |code, message: String| notes.push(Note { code, message });
    if rules.is_none() {
        let message = "verdicts are known only where a delivery proves them: pass --rules";
        note("no-rules", message.to_owned());
    }
    for stream in &facts.cut {
        note(
            "not-read-to-the-end",
            format!(
                "the stream {stream} holds too much to be read to its end: something may be \
                 missing here"
            ),
        );
    }
    if facts.has_skipped_outcomes {
        let message = "OUTCOMES holds so much that only outcomes of Providers were read whose \
                       deliveries are parked, ready or dead: deliveries to others may be missing \
                       here";
        note("outcomes-skipped", message.to_owned());
    }
    if facts.has_more_events {
        let shown = count(request.limit, "event");
        note(
            "more-events",
            format!("only the last {shown} are shown: pass a higher --limit"),
        );
    }
    if facts.reading.heartbeats.iter().any(|report| report.shadow) {
        let message = "a router or worker is in shadow mode: it sends nothing";
        note("shadow-mode", message.to_owned());
    }
    if events.iter().any(|event| event.routing == "waits") {
        let message = "an event waits for a router: see `tidings status`";
        note("not-routed", message.to_owned());
    }
    let is_read = !facts.cut.contains(streams::OUTCOMES) && !facts.has_skipped_outcomes;
    if is_read && events.iter().any(is_without_a_trace) {
        let message = "an event matches with today's rules, and nothing is known of its delivery: \
                       the rules changed since, or OUTCOMES (3 days) no longer holds how it ended";
        note("no-delivery", message.to_owned());
    }
    notes
}

/// Whether today's rules match a routed event, and nothing is stored of that delivery.
fn is_without_a_trace(event: &EventTrace) -> bool {
    let matched = Verdict::Matched.as_str();
    event.routing == "routed"
        && event
            .verdicts
            .iter()
            .any(|verdict| verdict.is_recomputed && verdict.verdict == matched)
}
