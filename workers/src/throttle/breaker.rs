//! Circuit breakers. A worker caches the circuits of all destinations in memory. All workers change
//! the same records.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::bus::circuits::{Circuits, StoredCircuit};
use tidings_core::bus::process_leases::{HeldLease, ProcessLeases};
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::circuit::{CallResult, CircuitDecision};
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, ParkedScope};
use tokio_util::sync::CancellationToken;

use super::circuit_change::{ChangeKind, CircuitChange};
use super::ledger::Ledger;
use crate::throttle::circuit_cache::CircuitCache;
use crate::throttle::waker::Waker;

/// The circuits of all destinations.
pub struct Breaker {
    circuits: Circuits,
    leases: Arc<ProcessLeases>,
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
    parked: ParkedScope,
    retry: RetryPolicy,
    /// `None`: the probe has ended, or was not taken.
    held: Option<HeldProbe>,
}

/// A probe or a wake-up that this process holds.
pub struct HeldProbe {
    /// Unique for each.
    pub holder: String,
    /// Its lease, renewed until it is dropped.
    pub lease: HeldLease,
}

impl HeldProbe {
    /// Holds a probe or a wake-up that the caller stores next.
    pub fn new(leases: &Arc<ProcessLeases>, prefix: &str) -> Self {
        let holder = format!("{prefix}/{:016x}", rand::random::<u64>());
        let lease = leases.hold(&holder);
        Self { holder, lease }
    }
}

impl Breaker {
    /// Reads all circuits.
    ///
    /// # Errors
    /// The bucket is missing, or the bus did not answer.
    pub async fn open(
        bus: &Bus,
        leases: &Arc<ProcessLeases>,
        metrics: Metrics,
        waker: Arc<Waker>,
    ) -> Result<Self, BusError> {
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
            leases: leases.clone(),
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

    /// The circuits that a worker may have to continue, because another one died.
    pub fn unfinished(&self) -> Vec<Circuit> {
        self.local
            .cache
            .lock()
            .unfinished(self.local.bus.clock().now())
    }

    /// Records the result of a call. A result that changes nothing needs no request to the bus.
    pub fn record(
        &self,
        destination: &Arc<Destination>,
        parked: ParkedScope,
        result: CallResult,
        retry: &RetryPolicy,
    ) {
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
        let kind = ChangeKind::Record(result, *retry);
        let recorded = self.change(destination, Some(parked), kind);
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

    /// Takes the probe for a delivery; `None` if another worker has it.
    ///
    /// # Errors
    /// The bus did not answer.
    pub async fn probe(
        &self,
        destination: &Arc<Destination>,
        parked: ParkedScope,
        delivery_id: &str,
        lasts: Duration,
        retry: &RetryPolicy,
    ) -> Result<Option<Probe>, BusError> {
        // Created before the bus answers, so that the probe is given back even if this future is
        // dropped meanwhile.
        let held = HeldProbe::new(&self.leases, delivery_id);
        let kind = ChangeKind::TakeProbe {
            holder: held.holder.clone(),
            process: held.lease.process().to_owned(),
            lasts,
        };
        let mut probe = Probe {
            ledger: self.ledger.clone(),
            destination: destination.clone(),
            parked,
            retry: *retry,
            held: Some(held),
        };
        let is_ours = self.change(destination, Some(parked), kind).await?;
        if !is_ours {
            probe.held = None;
        }
        Ok(is_ours.then_some(probe))
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
        let kind = ChangeKind::SetNextProbe(park_key.to_owned());
        self.change(destination, None, kind).await
    }

    /// Makes a change. Returns whether it was made.
    pub fn change(
        &self,
        destination: &Arc<Destination>,
        parked: Option<ParkedScope>,
        kind: ChangeKind,
    ) -> impl Future<Output = Result<bool, BusError>> + Send + use<> {
        self.ledger.change(
            &destination.key(),
            CircuitChange {
                destination: destination.clone(),
                parked,
                kind,
            },
        )
    }
}

// === impl LocalCircuits ===

impl LocalCircuits {
    fn update(&self, stored: StoredCircuit) {
        let destination = Destination::of(&stored.circuit);
        // Else a worker takes the pending wake-up of the record.
        let owes_nothing = stored.circuit.wake_up.is_none();
        let now = self.bus.clock().now();
        let is_resumed = self.cache.lock().update_circuit(stored, now);
        if is_resumed && owes_nothing {
            self.waker.wake_later(&destination);
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Records the result. If this worker still had the probe and it was answered, the worker now
    /// holds the wake-up of the parked deliveries, which is returned.
    ///
    /// # Errors
    /// The bus did not answer. The probe then counts as failed.
    pub async fn end(mut self, result: CallResult) -> Result<Option<HeldProbe>, BusError> {
        let is_answered = result == CallResult::Answered;
        match self.held.take() {
            None => Ok(None),
            Some(held) => {
                let is_ours = self.record(&held.holder, result).await?;
                Ok((is_ours && is_answered).then_some(held))
            }
        }
    }

    /// Records the result even if the returned future is dropped.
    fn record(
        &self,
        holder: &str,
        result: CallResult,
    ) -> impl Future<Output = Result<bool, BusError>> + Send + use<> {
        let kind = ChangeKind::EndProbe {
            holder: holder.to_owned(),
            result,
            retry: self.retry,
        };
        self.ledger.change(
            &self.destination.key(),
            CircuitChange {
                destination: self.destination.clone(),
                parked: Some(self.parked),
                kind,
            },
        )
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let failed = "the probe ended without an answer".to_owned();
            let recorded = self.record(&held.holder, CallResult::Failed(failed));
            // The lease is held until the probe has ended.
            tokio::spawn(async move {
                let _ = recorded.await;
                drop(held);
            });
        }
    }
}
