//! One worker's copy of the circuits of all destinations.

use std::collections::HashMap;

use jiff::Timestamp;
use tidings_core::Destination;
use tidings_core::bus::circuits::StoredCircuit;
use tidings_core::model::circuit::{
    CircuitDecision, decide, is_idle, is_resumed, overdue, state_name,
};
use tidings_core::model::time::from_proto;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::CircuitLabels;
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;

use crate::bounded_map::BoundedMap;

/// Holds only destinations that failed recently, or whose circuit is not closed.
pub struct CircuitCache {
    circuits: BoundedMap<Destination, StoredCircuit>,
    /// Failures that are being recorded.
    failing: HashMap<Destination, usize>,
    metrics: Metrics,
}

impl CircuitCache {
    /// An empty cache.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            circuits: BoundedMap::default(),
            failing: HashMap::new(),
            metrics,
        }
    }

    /// Whether a destination can be called now.
    pub fn decision(&self, destination: &Destination, now: Timestamp) -> CircuitDecision {
        if self.circuits.is_empty() {
            return CircuitDecision::Closed;
        }
        let whole = Destination::whole(&destination.namespace, &destination.provider);
        let decisions = [&whole, destination].map(|destination| {
            self.circuits
                .get(destination)
                .map_or(CircuitDecision::Closed, |known| decide(&known.circuit, now))
        });
        decisions
            .into_iter()
            .find(|decision| *decision != CircuitDecision::Closed)
            .unwrap_or(CircuitDecision::Closed)
    }

    /// The circuit as last seen.
    pub fn circuit(&self, destination: &Destination) -> Option<&Circuit> {
        self.circuits.get(destination).map(|known| &known.circuit)
    }

    /// The circuits that are probed or due for a probe, and those with a pending wake-up.
    pub fn unfinished(&self, now: Timestamp) -> Vec<Circuit> {
        let is_unfinished = |circuit: &&Circuit| {
            circuit.wake_up.is_some()
                || circuit.state() == State::HalfOpen
                || overdue(circuit, now).is_some()
        };
        let circuits = self.circuits.values().map(|known| &known.circuit);
        circuits.filter(is_unfinished).cloned().collect()
    }

    /// Whether failures of a destination are being recorded.
    pub fn is_failing(&self, destination: &Destination) -> bool {
        self.failing.contains_key(destination)
    }

    /// Notes that a failure is being recorded.
    pub fn add_failure(&mut self, destination: &Destination) {
        *self.failing.entry(destination.clone()).or_default() += 1;
    }

    /// Notes that a failure was recorded, or was lost.
    pub fn remove_failure(&mut self, destination: &Destination) {
        if let Some(count) = self.failing.get_mut(destination) {
            *count -= 1;
            if *count == 0 {
                self.failing.remove(destination);
            }
        }
    }

    /// Updates a circuit, if it is newer than the cached one or its record was deleted. Changes are
    /// logged and counted. Returns whether the destination was resumed: its circuit closed without
    /// an answered probe.
    pub fn update_circuit(&mut self, update: StoredCircuit, now: Timestamp) -> bool {
        let destination = Destination::of(&update.circuit);
        let before = self.circuits.get(&destination);
        let is_old = |before: &StoredCircuit| {
            update.revision.is_some() && before.revision >= update.revision
        };
        if before.is_some_and(is_old) {
            return false;
        }
        let (was, is) = (
            before.map_or(State::Closed, |before| before.circuit.state()),
            update.circuit.state(),
        );
        let is_resumed = was != State::Closed && is_resumed(&update.circuit);
        if was != is {
            log(&update.circuit, was, is);
        }
        self.metrics
            .worker_circuit_state
            .get_or_create(&labels(&destination))
            .set(match is {
                State::Closed => 0,
                State::HalfOpen => 1,
                State::Open => 2,
                State::Paused => 3,
            });
        let metrics = &self.metrics;
        self.circuits
            .insert(destination, update, |destination, known| {
                let is_used = !is_idle(&known.circuit, now);
                if !is_used {
                    metrics.worker_circuit_state.remove(&labels(destination));
                }
                is_used
            });
        is_resumed
    }
}

fn log(circuit: &Circuit, was: State, is: State) {
    let name = format!("{}/{}", circuit.namespace, circuit.provider);
    let (state, channel) = (state_name(is), circuit.channel.as_deref().unwrap_or("*"));
    match is {
        State::Open if was == State::Closed => {
            tracing::warn!(
                code = codes::CIRCUIT_OPENED,
                provider = name,
                channel,
                state,
                until = from_proto(circuit.until).map(|until| until.to_string()),
                reason = circuit.reason,
                "circuit opened"
            );
        }
        State::Closed | State::Paused => {
            tracing::info!(
                code = codes::CIRCUIT_CHANGED,
                provider = name,
                channel,
                state,
                "circuit changed"
            )
        }
        State::Open | State::HalfOpen => {
            tracing::debug!(
                code = codes::CIRCUIT_CHANGED,
                provider = name,
                channel,
                state,
                "circuit changed"
            )
        }
    }
}

fn labels(destination: &Destination) -> CircuitLabels {
    CircuitLabels {
        namespace: destination.namespace.clone(),
        provider: destination.provider.clone(),
        channel: destination
            .channel
            .clone()
            .unwrap_or_else(|| "*".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::model::time::to_proto;
    use tidings_core::wire::WakeUp;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    fn hook(channel: &str) -> Destination {
        Destination::channel("apps", "hook", channel)
    }

    fn update(destination: &Destination, state: State, revision: u64) -> StoredCircuit {
        StoredCircuit {
            circuit: Circuit {
                state: state.into(),
                ..destination.closed()
            },
            revision: Some(revision),
        }
    }

    #[test]
    fn an_older_revision_is_ignored() {
        let mut cache = CircuitCache::new(Metrics::default());
        cache.update_circuit(update(&hook("a"), State::Paused, 2), NOW);
        cache.update_circuit(update(&hook("a"), State::Closed, 1), NOW);
        assert_eq!(cache.decision(&hook("a"), NOW), CircuitDecision::Paused);
        assert!(cache.update_circuit(
            StoredCircuit {
                circuit: hook("a").closed(),
                revision: None
            },
            NOW
        ));
        assert_eq!(
            cache.decision(&hook("a"), NOW),
            CircuitDecision::Closed,
            "its record was deleted"
        );
    }

    #[test]
    fn a_circuit_that_closes_without_an_answered_probe_was_resumed() {
        let mut cache = CircuitCache::new(Metrics::default());
        assert!(
            !cache.update_circuit(update(&hook("a"), State::Closed, 1), NOW),
            "it was closed before"
        );
        assert!(!cache.update_circuit(update(&hook("a"), State::Open, 2), NOW));
        assert!(cache.update_circuit(update(&hook("a"), State::Closed, 3), NOW));
        assert!(
            !cache.update_circuit(update(&hook("a"), State::Closed, 3), NOW),
            "that revision was seen before"
        );
        assert!(!cache.update_circuit(update(&hook("a"), State::HalfOpen, 4), NOW));
        let mut answered = update(&hook("a"), State::Closed, 5);
        answered.circuit.openings = 1;
        assert!(
            !cache.update_circuit(answered, NOW),
            "the worker that probed wakes parked deliveries"
        );
    }

    #[test]
    fn a_paused_provider_is_not_called_on_any_channel() {
        let mut cache = CircuitCache::new(Metrics::default());
        cache.update_circuit(
            update(&Destination::whole("apps", "hook"), State::Paused, 1),
            NOW,
        );
        assert_eq!(cache.decision(&hook("a"), NOW), CircuitDecision::Paused);
        assert_eq!(
            cache.decision(&Destination::channel("apps", "other", "a"), NOW),
            CircuitDecision::Closed
        );
    }

    #[test]
    fn recovered_destinations_are_dropped_with_their_metric_and_the_others_are_not() {
        let metrics = Metrics::default();
        let mut cache = CircuitCache::new(metrics.clone());
        cache.update_circuit(update(&hook("failing"), State::Open, 1), NOW);
        for number in 0..10_000 {
            cache.update_circuit(
                update(&hook(&number.to_string()), State::Closed, 2 + number),
                NOW,
            );
        }
        assert!(cache.circuits.len() <= 1000);
        assert_ne!(
            cache.decision(&hook("failing"), NOW),
            CircuitDecision::Closed
        );
        let has_metric = |channel| {
            metrics
                .worker_circuit_state
                .get(&labels(&hook(channel)))
                .is_some()
        };
        assert_eq!(
            [has_metric("failing"), has_metric("0"), has_metric("9999")],
            [true, false, true]
        );
    }

    #[test]
    fn circuits_that_a_dead_worker_may_have_left_are_unfinished() {
        let mut cache = CircuitCache::new(Metrics::default());
        let mut pending = update(&hook("pending"), State::Closed, 1);
        pending.circuit.wake_up = Some(WakeUp::default());
        let mut waiting = update(&hook("waiting"), State::Open, 1);
        waiting.circuit.until = Some(to_proto(NOW + std::time::Duration::from_secs(1)));
        for stored in [
            pending,
            waiting,
            update(&hook("due"), State::Open, 1),
            update(&hook("probed"), State::HalfOpen, 1),
            update(&hook("paused"), State::Paused, 1),
            update(&hook("closed"), State::Closed, 1),
        ] {
            cache.update_circuit(stored, NOW);
        }
        let mut unfinished: Vec<_> = cache
            .unfinished(NOW)
            .into_iter()
            .filter_map(|circuit| circuit.channel)
            .collect();
        unfinished.sort();
        assert_eq!(unfinished, ["due", "pending", "probed"]);
    }

    #[test]
    fn failures_are_visible_while_they_are_being_recorded() {
        let mut cache = CircuitCache::new(Metrics::default());
        cache.add_failure(&hook("a"));
        cache.add_failure(&hook("a"));
        cache.remove_failure(&hook("a"));
        assert!(cache.is_failing(&hook("a")) && !cache.is_failing(&hook("b")));
        cache.remove_failure(&hook("a"));
        assert!(cache.failing.is_empty());
    }
}
