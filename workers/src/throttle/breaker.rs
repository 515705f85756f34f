//! Circuit breakers. A worker caches the circuits of all destinations in memory. All workers change
//! the same records.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::bus::circuits::{Circuits, StoredCircuit};
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::circuit::{
    CallResult, CircuitDecision, after_calls, after_probe, decide, with_next_probe, with_probe,
};
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;
use tokio_util::sync::CancellationToken;

use super::ledger::{Change, Ledger};
use crate::throttle::circuit_cache::CircuitCache;
use crate::throttle::waker::Waker;

/// The circuits of all destinations.
pub struct Breaker {
    circuits: Circuits,
    ledger: Arc<Ledger<CircuitChange>>,
    local: Arc<LocalCircuits>,
}

/// This process's copy of the circuits.
struct LocalCircuits {
    bus: Bus,
    cache: Mutex<CircuitCache>,
    waker: Arc<Waker>,
}

/// The right to call a destination whose circuit is open. A probe that is dropped without a result
/// counts as failed.
pub struct Probe {
    ledger: Arc<Ledger<CircuitChange>>,
    destination: Arc<Destination>,
    holder: String,
    retry: RetryPolicy,
}

/// A change to a circuit.
#[derive(Clone, Debug)]
struct CircuitChange {
    destination: Arc<Destination>,
    kind: ChangeKind,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Record(CallResult, RetryPolicy),
    TakeProbe {
        holder: String,
        lasts: Duration,
    },
    EndProbe {
        holder: String,
        result: CallResult,
        retry: RetryPolicy,
    },
    SetNextProbe(String),
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
        let changed = match &self.kind {
            ChangeKind::Record(result, retry) => after_calls(
                &circuit,
                std::slice::from_ref(result),
                retry,
                now,
                rand::random(),
            ),
            ChangeKind::TakeProbe { holder, lasts } => (decide(&circuit, now)
                == CircuitDecision::ProbeDue)
                .then(|| with_probe(&circuit, holder, *lasts, now)),
            ChangeKind::EndProbe {
                holder,
                result,
                retry,
            } => after_probe(&circuit, holder, result, retry, now, rand::random()),
            ChangeKind::SetNextProbe(park_key)
                if circuit.state() == State::Open && circuit.probe == *park_key =>
            {
                return true;
            }
            ChangeKind::SetNextProbe(park_key) => (circuit.state() == State::Open
                && circuit.probe.is_empty())
            .then(|| with_next_probe(&circuit, park_key)),
        };
        let is_changed = changed.is_some();
        if let Some(changed) = changed {
            *record = changed;
        }
        is_changed
    }
}

impl Breaker {
    /// Reads all circuits.
    ///
    /// # Errors
    /// The bucket is missing, or the bus did not answer.
    pub async fn open(bus: &Bus, metrics: Metrics, waker: Arc<Waker>) -> Result<Self, BusError> {
        let circuits = Circuits::open(bus).await?;
        let local = Arc::new(LocalCircuits {
            bus: bus.clone(),
            cache: Mutex::new(CircuitCache::new(metrics)),
            waker,
        });
        for circuit in circuits.all().await? {
            local.update(circuit);
        }
        let observer = local.clone();
        let observe = move |circuit: &Circuit, revision| {
            observer.update(StoredCircuit {
                circuit: circuit.clone(),
                revision: Some(revision),
            });
        };
        Ok(Self {
            circuits,
            ledger: Ledger::open(bus, observe).await?,
            local,
        })
    }

    /// Follows changes by other workers and by users, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.circuits
            .watch(stop, |circuit| self.local.update(circuit))
            .await;
    }

    /// Whether a destination can be called now, by this process's copy of its circuit.
    pub fn decision(&self, destination: &Destination) -> CircuitDecision {
        self.local
            .cache
            .lock()
            .decision(destination, self.local.bus.clock().now())
    }

    /// The circuit as last seen.
    pub fn circuit(&self, destination: &Destination) -> Circuit {
        self.local
            .cache
            .lock()
            .circuit(destination)
            .cloned()
            .unwrap_or_else(|| destination.closed())
    }

    /// Records the result of a call. A result that changes nothing needs no request to the bus.
    pub fn record(&self, destination: &Arc<Destination>, result: CallResult, retry: &RetryPolicy) {
        let is_new = {
            let mut cache = self.local.cache.lock();
            let known = cache
                .circuit(destination)
                .map(|circuit| (circuit.state(), circuit.failures));
            let is_failing = cache.is_failing(destination);
            let is_new = match (&result, known) {
                (CallResult::Answered, Some((State::Closed, failures))) => {
                    failures > 0 || is_failing
                }
                (CallResult::Answered, None) => is_failing,
                (CallResult::Failed(_), known) => {
                    known.is_none_or(|(state, _)| state == State::Closed)
                }
                (CallResult::AskedToWait { .. }, _) => true,
                (CallResult::Answered, Some(_)) => false,
            };
            if is_new && result != CallResult::Answered {
                cache.add_failure(destination);
            }
            is_new
        };
        if !is_new {
            return;
        }
        let is_failure = result != CallResult::Answered;
        let recorded = self.change(destination, ChangeKind::Record(result, *retry));
        let (local, destination) = (self.local.clone(), destination.clone());
        tokio::spawn(async move {
            if let Err(error) = recorded.await {
                tracing::debug!(
                    code = codes::CALL_NOT_RECORDED,
                    %error,
                    "call result not recorded"
                );
            }
            if is_failure {
                local.cache.lock().remove_failure(&destination);
            }
        });
    }

    /// Takes the probe; `None` if another worker has it.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn probe(
        &self,
        destination: &Arc<Destination>,
        holder: String,
        lasts: Duration,
        retry: &RetryPolicy,
    ) -> Result<Option<Probe>, BusError> {
        // Created before the bus answers, so that the probe is given back even if this future is
        // dropped meanwhile.
        let (ledger, destination) = (self.ledger.clone(), destination.clone());
        let probe = Probe {
            ledger,
            destination: destination.clone(),
            holder: holder.clone(),
            retry: *retry,
        };
        let is_ours = self
            .change(&destination, ChangeKind::TakeProbe { holder, lasts })
            .await?;
        Ok(if is_ours {
            Some(probe)
        } else {
            probe.was_not_taken()
        })
    }

    /// Makes the delivery that is parked under this key the next probe, if there is none yet.
    /// Returns whether it is the next probe.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn become_next_probe(
        &self,
        destination: &Arc<Destination>,
        park_key: &str,
    ) -> Result<bool, BusError> {
        let probe = self.circuit(destination).probe;
        if !probe.is_empty() && probe != park_key {
            return Ok(false);
        }
        self.change(destination, ChangeKind::SetNextProbe(park_key.to_owned()))
            .await
    }

    fn change(
        &self,
        destination: &Arc<Destination>,
        kind: ChangeKind,
    ) -> impl Future<Output = Result<bool, BusError>> + Send + use<> {
        self.ledger.change(
            &destination.key(),
            CircuitChange {
                destination: destination.clone(),
                kind,
            },
        )
    }
}

// === impl LocalCircuits ===

impl LocalCircuits {
    fn update(&self, stored: StoredCircuit) {
        let destination = Destination::of(&stored.circuit);
        if self
            .cache
            .lock()
            .update_circuit(stored, self.bus.clock().now())
        {
            self.waker.wake_later(&destination);
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Records the result. Returns whether this worker still had the probe.
    ///
    /// # Errors
    /// The bus did not answer. The probe then counts as failed.
    pub async fn end(mut self, result: CallResult) -> Result<bool, BusError> {
        self.record(result).await
    }

    fn was_not_taken(mut self) -> Option<Self> {
        self.holder.clear();
        None
    }

    /// Records the result even if the returned future is dropped.
    fn record(
        &mut self,
        result: CallResult,
    ) -> impl Future<Output = Result<bool, BusError>> + Send + use<> {
        let kind = ChangeKind::EndProbe {
            holder: std::mem::take(&mut self.holder),
            result,
            retry: self.retry,
        };
        self.ledger.change(
            &self.destination.key(),
            CircuitChange {
                destination: self.destination.clone(),
                kind,
            },
        )
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.holder.is_empty() {
            drop(self.record(CallResult::Failed(
                "the probe ended without an answer".to_owned(),
            )));
        }
    }
}
