//! Circuits as a worker uses them: what it knows of them without asking, and what it tells the
//! others.

use std::sync::Arc;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use jiff::Timestamp;
use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::bus::circuits::{Circuits, StoredCircuit};
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::circuit::{
    CallResult, CircuitDecision, awaiting, observed, probed, probing, standing,
};
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;
use tokio_util::sync::CancellationToken;

use super::ledger::{Change, Ledger};
use crate::throttle::circuit_cache::Table;
use crate::throttle::waker::Waker;

/// Knows all circuits, and changes them together with all other workers.
pub struct Breaker {
    circuits: Circuits,
    ledger: Arc<Ledger<CircuitChange>>,
    known: Arc<Knowledge>,
}

/// What this process knows, and whom it tells.
struct Knowledge {
    bus: Bus,
    table: Mutex<Table>,
    waker: Arc<Waker>,
}

/// Leave to call a destination that nobody else calls. One that is dropped has failed, whatever
/// ended it.
pub struct Probe {
    ledger: Arc<Ledger<CircuitChange>>,
    destination: Arc<Destination>,
    holder: String,
    retry: RetryPolicy,
}

/// A change of a circuit.
#[derive(Clone, Debug)]
struct CircuitChange {
    destination: Arc<Destination>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Saw(CallResult, RetryPolicy),
    Probe {
        holder: String,
        lasts: Duration,
    },
    Probed {
        holder: String,
        seen: CallResult,
        retry: RetryPolicy,
    },
    Await(String),
}

impl Change for CircuitChange {
    type Record = Circuit;
    /// Whether it was the asker's to change.
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
        let changed = match &self.what {
            What::Saw(seen, retry) => observed(
                &circuit,
                std::slice::from_ref(seen),
                retry,
                now,
                rand::random(),
            ),
            What::Probe { holder, lasts } => (standing(&circuit, now) == CircuitDecision::ProbeDue)
                .then(|| probing(&circuit, holder, *lasts, now)),
            What::Probed {
                holder,
                seen,
                retry,
            } => probed(&circuit, holder, seen, retry, now, rand::random()),
            What::Await(place) if circuit.state() == State::Open && circuit.probe == *place => {
                return true;
            }
            What::Await(place) => (circuit.state() == State::Open && circuit.probe.is_empty())
                .then(|| awaiting(&circuit, place)),
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
    /// The bucket is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus, metrics: Metrics, waker: Arc<Waker>) -> Result<Self, BusError> {
        let circuits = Circuits::open(bus).await?;
        let known = Arc::new(Knowledge {
            bus: bus.clone(),
            table: Mutex::new(Table::new(metrics)),
            waker,
        });
        for circuit in circuits.all().await? {
            known.note(circuit);
        }
        let told = known.clone();
        let observe = move |circuit: &Circuit, revision| {
            told.note(StoredCircuit {
                circuit: circuit.clone(),
                revision: Some(revision),
            });
        };
        Ok(Self {
            circuits,
            ledger: Ledger::open(bus, observe).await?,
            known,
        })
    }

    /// Follows what other workers and people change, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.circuits
            .watch(stop, |news| self.known.note(news))
            .await;
    }

    /// What is known of a destination now. It asks nobody.
    pub fn decision(&self, destination: &Destination) -> CircuitDecision {
        self.known
            .table
            .lock()
            .standing(destination, self.known.bus.clock().now())
    }

    /// The circuit as last known.
    pub fn circuit(&self, destination: &Destination) -> Circuit {
        self.known
            .table
            .lock()
            .circuit(destination)
            .cloned()
            .unwrap_or_else(|| destination.closed())
    }

    /// Notes what a call has shown. What is no news costs nothing.
    pub fn record(&self, destination: &Arc<Destination>, seen: CallResult, retry: &RetryPolicy) {
        let is_news = {
            let mut table = self.known.table.lock();
            let known = table
                .circuit(destination)
                .map(|circuit| (circuit.state(), circuit.failures));
            let is_failing = table.is_failing(destination);
            let is_news = match (&seen, known) {
                (CallResult::Answered, Some((State::Closed, failures))) => {
                    failures > 0 || is_failing
                }
                (CallResult::Answered, None) => is_failing,
                (CallResult::Failed(_), known) => {
                    known.is_none_or(|(state, _)| state == State::Closed)
                }
                (CallResult::AskedToWait(..), _) => true,
                (CallResult::Answered, Some(_)) => false,
            };
            if is_news && seen != CallResult::Answered {
                table.fails(destination);
            }
            is_news
        };
        if !is_news {
            return;
        }
        let is_failure = seen != CallResult::Answered;
        let noted = self.change(destination, What::Saw(seen, *retry));
        let (known, destination) = (self.known.clone(), destination.clone());
        tokio::spawn(async move {
            if let Err(error) = noted.await {
                tracing::debug!(code = codes::CALL_NOT_RECORDED, %error, "call result not recorded");
            }
            if is_failure {
                known.table.lock().failure_noted(&destination);
            }
        });
    }

    /// Becomes the one that probes, if nobody else does.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn probe(
        &self,
        destination: &Arc<Destination>,
        holder: String,
        lasts: Duration,
        retry: &RetryPolicy,
    ) -> Result<Option<Probe>, BusError> {
        // Made before it is known to be ours: it is given back even if this is broken off while the
        // bus is asked.
        let (ledger, destination) = (self.ledger.clone(), destination.clone());
        let probe = Probe {
            ledger,
            destination: destination.clone(),
            holder: holder.clone(),
            retry: *retry,
        };
        let is_ours = self
            .change(&destination, What::Probe { holder, lasts })
            .await?;
        Ok(if is_ours {
            Some(probe)
        } else {
            probe.was_never_ours()
        })
    }

    /// Makes what is parked at this place the next probe, if there is none; whether it is.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn wait_to_probe(
        &self,
        destination: &Arc<Destination>,
        place: &str,
    ) -> Result<bool, BusError> {
        let probe = self.circuit(destination).probe;
        if !probe.is_empty() && probe != place {
            return Ok(false);
        }
        self.change(destination, What::Await(place.to_owned()))
            .await
    }

    fn change(
        &self,
        destination: &Arc<Destination>,
        what: What,
    ) -> impl Future<Output = Result<bool, BusError>> + Send + use<> {
        self.ledger.change(
            &destination.key(),
            CircuitChange {
                destination: destination.clone(),
                what,
            },
        )
    }
}

// === impl Knowledge ===

impl Knowledge {
    fn note(&self, news: StoredCircuit) {
        let destination = Destination::of(&news.circuit);
        if self.table.lock().note(news, self.bus.clock().now()) {
            self.waker.wake_later(&destination);
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Tells how it went; whether it was still ours.
    ///
    /// # Errors
    /// The bus can't be asked: the probe then counts as lost.
    pub async fn end(mut self, seen: CallResult) -> Result<bool, BusError> {
        self.tell(seen).await
    }

    fn was_never_ours(mut self) -> Option<Self> {
        self.holder.clear();
        None
    }

    /// At once, also where nobody waits for the answer.
    fn tell(
        &mut self,
        seen: CallResult,
    ) -> impl Future<Output = Result<bool, BusError>> + Send + use<> {
        let what = What::Probed {
            holder: std::mem::take(&mut self.holder),
            seen,
            retry: self.retry,
        };
        self.ledger.change(
            &self.destination.key(),
            CircuitChange {
                destination: self.destination.clone(),
                what,
            },
        )
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.holder.is_empty() {
            drop(self.tell(CallResult::Failed(
                "the probe ended without an answer".to_owned(),
            )));
        }
    }
}
