//! Changes to the record of a circuit, made by all workers.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::Destination;
use tidings_core::model::circuit::{
    CallResult, CircuitDecision, after_calls, after_probe, after_wake_up, decide, with_next_probe,
    with_probe, with_wake_up, without_probe,
};
use tidings_core::model::retry::RetryPolicy;
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, ParkedScope};

use super::ledger::Change;

/// A change to a circuit.
#[derive(Clone, Debug)]
pub struct CircuitChange {
    /// The circuit's destination.
    pub destination: Arc<Destination>,
    /// Which parked deliveries wait for the circuit, if the caller knows the Provider.
    pub parked: Option<ParkedScope>,
    /// What changes.
    pub kind: ChangeKind,
}

/// What changes.
#[derive(Clone, Debug)]
pub enum ChangeKind {
    /// Counts the result of a call that was no probe.
    Record(CallResult, RetryPolicy),
    /// Takes the probe, if one is due.
    TakeProbe {
        /// Unique for each probe.
        holder: String,
        /// The id of this process.
        process: String,
        /// How long a probe can take.
        lasts: Duration,
    },
    /// Ends the probe with the result of its call.
    EndProbe {
        /// The holder that took it.
        holder: String,
        /// The result.
        result: CallResult,
        /// The Provider's policy.
        retry: RetryPolicy,
    },
    /// Ends the probe of this holder, whose process died.
    DropProbe(String),
    /// Makes the delivery that is parked under this key the next probe.
    SetNextProbe(String),
    /// Takes over the wake-up.
    TakeWakeUp {
        /// Its holder until now, whose process died.
        former: String,
        /// Unique for each process that carries it out.
        holder: String,
        /// The id of this process.
        process: String,
    },
    /// The wake-up of this holder is finished.
    EndWakeUp(String),
}

impl Change for CircuitChange {
    type Record = Circuit;
    /// Whether the change was made.
    type Answer = bool;

    fn apply(changes: &[Self], record: &mut Circuit, now: Timestamp) -> Vec<bool> {
        changes
            .iter()
            .map(|change| change.apply_one(record, now))
            .collect()
    }
}

impl CircuitChange {
    fn apply_one(&self, record: &mut Circuit, now: Timestamp) -> bool {
        let is_new = record.provider.is_empty();
        let circuit = if is_new {
            self.destination.closed()
        } else {
            record.clone()
        };
        if let ChangeKind::SetNextProbe(park_key) = &self.kind
            && circuit.state() == State::Open
            && circuit.probe == *park_key
        {
            return true;
        }
        let changed = self.kind.made(&circuit, now);
        let is_changed = changed.is_some();
        if let Some(changed) = changed {
            let parked = self.parked.or(changed.parked);
            *record = Circuit { parked, ..changed };
        }
        is_changed
    }
}

impl ChangeKind {
    /// The changed circuit; `None` if nothing changes.
    fn made(&self, circuit: &Circuit, now: Timestamp) -> Option<Circuit> {
        match self {
            Self::Record(result, retry) => {
                let results = std::slice::from_ref(result);
                after_calls(circuit, results, retry, now, rand::random())
            }
            Self::TakeProbe {
                holder,
                process,
                lasts,
            } => (decide(circuit, now) == CircuitDecision::ProbeDue)
                .then(|| with_probe(circuit, holder, process, *lasts, now)),
            Self::EndProbe {
                holder,
                result,
                retry,
            } => after_probe(circuit, holder, result, retry, now, rand::random()),
            Self::DropProbe(holder) => without_probe(circuit, holder, now),
            Self::SetNextProbe(park_key) => (circuit.state() == State::Open
                && circuit.probe.is_empty())
            .then(|| with_next_probe(circuit, park_key)),
            Self::TakeWakeUp {
                former,
                holder,
                process,
            } => with_wake_up(circuit, former, holder, process, now),
            Self::EndWakeUp(holder) => after_wake_up(circuit, holder),
        }
    }
}
