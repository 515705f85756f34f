//! Assembles the deliveries of an event from what the streams hold of them. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidings_core::bus::pending_deliveries::PendingDelivery;
use tidings_core::model::circuit::state_name;
use tidings_core::model::id;
use tidings_core::model::time::{after, between, from_proto, to_proto};
use tidings_core::wire::Circuit;
use tidings_core::{Attempt, DeadLetter, Outcome, ProtoTimestamp, ProviderReference};

use super::gather::Facts;
use super::report::{AttemptTrace, DeliveryTrace};
use crate::command::tool::time;

/// The most generations that are recognized by the id of a delivery. Those of `tidings replay` are
/// far above: their number is known only while the delivery is stored.
const MOST_GENERATIONS: u32 = 20;

/// What the streams hold of one delivery.
#[derive(Default)]
struct Parts<'a> {
    pending: Option<&'a PendingDelivery>,
    dead: Option<&'a DeadLetter>,
    attempts: BTreeMap<u32, &'a Attempt>,
    /// Another delivery wrote this state.
    on_behalf: Option<&'a Attempt>,
    alert: Option<(&'a str, &'a str)>,
    provider: Option<&'a ProviderReference>,
    planned_at: Option<ProtoTimestamp>,
    generation: Option<u32>,
    cluster: &'a str,
}

/// The deliveries of an event, by Alert, Provider and time.
pub fn deliveries_of(event_id: &str, facts: &Facts) -> Vec<DeliveryTrace> {
    let mut parts = BTreeMap::<&str, Parts<'_>>::new();
    for dead in &facts.dead_letters {
        if let Some(delivery) = dead.delivery.as_ref().filter(|it| it.event_id == event_id) {
            let part = parts.entry(&delivery.id).or_default();
            part.add_delivery(delivery);
            part.dead = Some(dead);
        }
    }
    for pending in &facts.pending {
        if pending.delivery.event_id == event_id {
            let part = parts.entry(&pending.delivery.id).or_default();
            part.add_delivery(&pending.delivery);
            // A parked copy replaces the one that was ready.
            let known = part
                .pending
                .filter(|known| known.stored_at > pending.stored_at);
            part.pending = known.or(Some(pending));
        }
    }
    for found in &facts.outcomes {
        let outcome = &found.outcome;
        if outcome.event_id == event_id {
            let part = parts.entry(&outcome.delivery_id).or_default();
            let alert = outcome.alert.as_ref();
            let alert = alert.map(|it| (it.namespace.as_str(), it.name.as_str()));
            part.alert = alert.or(part.alert);
            part.provider = outcome.provider.as_ref().or(part.provider);
            part.planned_at = part.planned_at.or(outcome.planned_at);
            part.add_attempts(outcome.attempt.as_ref());
            part.cluster = &outcome.cluster;
        }
    }
    for found in &facts.outcomes {
        let outcome = &found.outcome;
        if outcome.event_id.is_empty()
            && let Some(part) = parts.get_mut(outcome.delivery_id.as_str())
        {
            part.on_behalf = outcome.attempt.as_ref();
        }
    }
    let mut traces: Vec<_> = parts
        .into_iter()
        .map(|(id, part)| part.trace(id, event_id, facts))
        .collect();
    traces.sort_by(|left, right| {
        let key = |trace: &DeliveryTrace| {
            (
                trace.alert.clone(),
                trace.provider.clone(),
                trace.generation,
                trace.planned_at.clone(),
            )
        };
        key(left).cmp(&key(right))
    });
    traces
}

impl<'a> Parts<'a> {
    fn add_delivery(&mut self, delivery: &'a tidings_core::Delivery) {
        let alert = delivery.alert.as_ref();
        self.alert = alert.map(|it| (it.namespace.as_str(), it.name.as_str()));
        self.provider = delivery.provider.as_ref();
        self.planned_at = delivery.planned_at;
        self.generation = Some(delivery.generation);
        self.add_attempts(&delivery.attempts);
    }

    fn add_attempts(&mut self, attempts: impl IntoIterator<Item = &'a Attempt>) {
        for attempt in attempts {
            self.attempts.insert(attempt.number, attempt);
        }
    }

    fn trace(self, id: &str, event_id: &str, facts: &Facts) -> DeliveryTrace {
        let provider = self.provider.cloned().unwrap_or_default();
        let (namespace, name) = self.alert.unwrap_or_default();
        // Outcomes of replays do not say when the delivery was planned.
        let is_first = self.planned_at.is_some().then_some(0);
        let generation = self.generation.or(is_first).or_else(|| {
            let provider = (provider.namespace.as_str(), provider.name.as_str());
            let of_member = id::event_key(event_id, self.cluster);
            let mut keys = [event_id, &of_member].into_iter();
            keys.find_map(|key| generation_of(id, key, (namespace, name), provider))
        });
        let (state, reason, detail) = self.state();
        let waiting = self.pending.filter(|_| matches!(state, "parked" | "ready"));
        let circuit = waiting.and_then(|_| circuit_of(&provider, &facts.reading.circuits));
        DeliveryTrace {
            id: id.to_owned(),
            alert: format!("{namespace}/{name}"),
            provider: format!("{}/{}", provider.namespace, provider.name),
            kind: provider.r#type,
            generation,
            planned_at: self.planned_at.map(|at| time(Some(at))),
            state,
            reason,
            detail,
            waits_for: waiting.map(PendingDelivery::waits_for),
            next_attempt_at: waiting
                .and_then(|pending| pending.next_attempt_at)
                .map(|at| time(Some(to_proto(at)))),
            circuit,
            attempts: attempts(&self),
        }
    }

    /// The state, its reason and its detail.
    fn state(&self) -> (&'static str, String, String) {
        if let Some(dead) = self.dead {
            let dead_outcome = Outcome::Dead.as_str();
            return (dead_outcome, dead.reason.clone(), dead.detail.clone());
        }
        let last = self.attempts.values().next_back().copied();
        let ended = last.and_then(ended_as);
        if let (Some(state), Some(last)) = (ended, last) {
            return (state, last.reason.clone(), last.detail.clone());
        }
        let (reason, detail) = last.map_or_else(Default::default, |last| {
            (last.reason.clone(), last.detail.clone())
        });
        match self.pending {
            Some(pending) if pending.next_attempt_at.is_some() => ("parked", reason, detail),
            Some(_) => ("ready", reason, detail),
            None if self.on_behalf.is_some() => {
                let detail = "another delivery wrote this state".to_owned();
                (Outcome::Delivered.as_str(), String::new(), detail)
            }
            None => ("unknown", reason, detail),
        }
    }
}

/// The outcome of an attempt that ended the delivery.
fn ended_as(attempt: &Attempt) -> Option<&'static str> {
    let outcomes = Outcome::ALL.iter().copied();
    let mut ended = outcomes.filter(|outcome| *outcome != Outcome::Retrying);
    let found = ended.find(|outcome| outcome.as_str() == attempt.outcome);
    found.map(Outcome::as_str)
}

fn attempts(parts: &Parts<'_>) -> Vec<AttemptTrace> {
    let mut before: Option<Timestamp> = from_proto(parts.planned_at);
    let mut traces = Vec::new();
    for attempt in parts.attempts.values() {
        let started = from_proto(attempt.started_at);
        let waited = before.zip(started).map(|(end, start)| between(end, start));
        let duration = std::time::Duration::from_millis(attempt.duration_ms.into());
        before = started.map(|start| after(start, duration));
        traces.push(AttemptTrace {
            number: attempt.number,
            started_at: attempt.started_at.map(|at| time(Some(at))),
            duration_ms: attempt.duration_ms,
            waited_ms: waited.map(|waited| waited.as_millis().try_into().unwrap_or(u64::MAX)),
            outcome: attempt.outcome.clone(),
            reason: attempt.reason.clone(),
            status: Some(attempt.status).filter(|status| *status > 0),
            detail: attempt.detail.clone(),
            template_error: attempt.template_error.clone(),
        });
    }
    traces
}

/// The number of the replay that planned a delivery; 0 for the first plan.
fn generation_of(
    delivery_id: &str,
    event_key: &str,
    alert: (&str, &str),
    provider: (&str, &str),
) -> Option<u32> {
    (0..MOST_GENERATIONS)
        .find(|generation| id::delivery_id(event_key, alert, provider, *generation) == delivery_id)
}

/// The state of the Provider's circuits that are not closed, and why.
fn circuit_of(provider: &ProviderReference, circuits: &[Circuit]) -> Option<String> {
    let mut of_provider = circuits.iter().filter(|circuit| {
        (&circuit.namespace, &circuit.provider) == (&provider.namespace, &provider.name)
    });
    let circuit = of_provider.next()?;
    Some(format!(
        "{}: {}",
        state_name(circuit.state()),
        circuit.reason
    ))
}
