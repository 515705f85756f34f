//! What a worker knows of circuits without asking.

use std::collections::HashMap;
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use tidings_core::Destination;
use tidings_core::bus::circuits::StoredCircuit;
use tidings_core::model::circuit::{
    CircuitDecision, is_long_well, is_resumed, standing, state_name,
};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::CircuitLabels;
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;

use crate::bounded_map::BoundedMap;

/// A destination that never failed is not in it, nor is one that has been well for long.
pub struct Table {
    known: BoundedMap<Destination, StoredCircuit>,
    /// Failures that are on their way into the record.
    failing: HashMap<Destination, usize>,
    metrics: Metrics,
}

impl Table {
    /// Nothing is known yet.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            known: BoundedMap::default(),
            failing: HashMap::new(),
            metrics,
        }
    }

    /// What is known of a destination now.
    pub fn standing(&self, destination: &Destination, now: Timestamp) -> CircuitDecision {
        if self.known.is_empty() {
            return CircuitDecision::Closed;
        }
        let whole = Destination::whole(&destination.namespace, &destination.provider);
        let standings = [&whole, destination].map(|destination| {
            self.known
                .get(destination)
                .map_or(CircuitDecision::Closed, |known| {
                    standing(&known.circuit, now)
                })
        });
        standings
            .into_iter()
            .find(|standing| *standing != CircuitDecision::Closed)
            .unwrap_or(CircuitDecision::Closed)
    }

    /// The circuit as last known.
    pub fn circuit(&self, destination: &Destination) -> Option<&Circuit> {
        self.known.get(destination).map(|known| &known.circuit)
    }

    /// Whether failures of it are on their way into the record.
    pub fn is_failing(&self, destination: &Destination) -> bool {
        self.failing.contains_key(destination)
    }

    /// One more failure is on its way.
    pub fn fails(&mut self, destination: &Destination) {
        *self.failing.entry(destination.clone()).or_default() += 1;
    }

    /// One has arrived, or got lost.
    pub fn failure_noted(&mut self, destination: &Destination) {
        if let Some(count) = self.failing.get_mut(destination) {
            *count -= 1;
            if *count == 0 {
                self.failing.remove(destination);
            }
        }
    }

    /// Takes a circuit in, if it is newer than what is known, or its record is gone; what has
    /// changed is logged and counted. Whether its destination has been resumed: it is called
    /// again, though no probe was answered.
    pub fn note(&mut self, news: StoredCircuit, now: Timestamp) -> bool {
        let destination = Destination::of(&news.circuit);
        let before = self.known.get(&destination);
        let is_old =
            |before: &StoredCircuit| news.revision.is_some() && before.revision >= news.revision;
        if before.is_some_and(is_old) {
            return false;
        }
        let (was, is) = (
            before.map_or(State::Closed, |before| before.circuit.state()),
            news.circuit.state(),
        );
        let is_resumed = was != State::Closed && is_resumed(&news.circuit);
        if was != is {
            log(&news.circuit, was, is);
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
        self.known.insert(destination, news, |destination, known| {
            let is_of_use = !is_long_well(&known.circuit, now);
            if !is_of_use {
                metrics.worker_circuit_state.remove(&labels(destination));
            }
            is_of_use
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
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    fn hook(channel: &str) -> Destination {
        Destination::channel("apps", "hook", channel)
    }

    fn news(destination: &Destination, state: State, revision: u64) -> StoredCircuit {
        StoredCircuit {
            circuit: Circuit {
                state: state.into(),
                ..destination.closed()
            },
            revision: Some(revision),
        }
    }

    #[test]
    fn older_news_than_what_is_known_is_none() {
        let mut table = Table::new(Metrics::default());
        table.note(news(&hook("a"), State::Paused, 2), NOW);
        table.note(news(&hook("a"), State::Closed, 1), NOW);
        assert_eq!(table.standing(&hook("a"), NOW), CircuitDecision::Paused);
        assert!(table.note(
            StoredCircuit {
                circuit: hook("a").closed(),
                revision: None
            },
            NOW
        ));
        assert_eq!(
            table.standing(&hook("a"), NOW),
            CircuitDecision::Closed,
            "its record is gone"
        );
    }

    #[test]
    fn a_destination_is_resumed_when_it_closes_though_no_probe_was_answered() {
        let mut table = Table::new(Metrics::default());
        assert!(
            !table.note(news(&hook("a"), State::Closed, 1), NOW),
            "it was closed"
        );
        assert!(!table.note(news(&hook("a"), State::Open, 2), NOW));
        assert!(table.note(news(&hook("a"), State::Closed, 3), NOW));
        assert!(
            !table.note(news(&hook("a"), State::Closed, 3), NOW),
            "that is known"
        );
        assert!(!table.note(news(&hook("a"), State::HalfOpen, 4), NOW));
        let mut answered = news(&hook("a"), State::Closed, 5);
        answered.circuit.openings = 1;
        assert!(!table.note(answered, NOW), "its prober wakes what waits");
    }

    #[test]
    fn a_provider_that_is_paused_is_not_called_on_any_channel() {
        let mut table = Table::new(Metrics::default());
        table.note(
            news(&Destination::whole("apps", "hook"), State::Paused, 1),
            NOW,
        );
        assert_eq!(table.standing(&hook("a"), NOW), CircuitDecision::Paused);
        assert_eq!(
            table.standing(&Destination::channel("apps", "other", "a"), NOW),
            CircuitDecision::Closed
        );
    }

    #[test]
    fn destinations_that_are_well_again_are_forgotten_with_their_metric_and_the_others_are_not() {
        let metrics = Metrics::default();
        let mut table = Table::new(metrics.clone());
        table.note(news(&hook("sick"), State::Open, 1), NOW);
        for number in 0..10_000 {
            table.note(
                news(&hook(&number.to_string()), State::Closed, 2 + number),
                NOW,
            );
        }
        assert!(table.known.len() <= 1000);
        assert_ne!(table.standing(&hook("sick"), NOW), CircuitDecision::Closed);
        let is_told = |channel| {
            metrics
                .worker_circuit_state
                .get(&labels(&hook(channel)))
                .is_some()
        };
        assert_eq!(
            [is_told("sick"), is_told("0"), is_told("9999")],
            [true, false, true]
        );
    }

    #[test]
    fn failures_are_known_while_they_are_on_their_way() {
        let mut table = Table::new(Metrics::default());
        table.fails(&hook("a"));
        table.fails(&hook("a"));
        table.failure_noted(&hook("a"));
        assert!(table.is_failing(&hook("a")) && !table.is_failing(&hook("b")));
        table.failure_noted(&hook("a"));
        assert!(table.failing.is_empty());
    }
}
