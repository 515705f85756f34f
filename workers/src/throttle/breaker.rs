//! Circuits as a worker uses them: what it knows of them without asking, and what it tells the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::Destination;
use tidings_core::bus::circuits::{Circuits, Known};
use tidings_core::bus::{Bus, NotStored};
use tidings_core::circuit::{Seen, Standing, awaiting, observed, probed, probing, standing, state_word};
use tidings_core::metrics::{CircuitLabels, Metrics};
use tidings_core::retry::RetryPolicy;
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;
use tokio_util::sync::CancellationToken;

use super::ledger::{Change, Ledger};

/// Knows all circuits, and changes them together with all other workers.
pub struct Breaker {
    bus: Bus,
    circuits: Circuits,
    ledger: Arc<Ledger<CircuitChange>>,
    known: Arc<Mutex<Table>>,
    metrics: Metrics,
}

/// What this process knows; a destination that never failed is in none of them.
#[derive(Default)]
struct Table {
    known: HashMap<Destination, Known>,
    /// Failures that are on their way into the record.
    failing: HashMap<Destination, usize>,
}

/// Leave to call a destination that nobody else calls. One that is dropped has failed, whatever ended it.
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
    Saw(Seen, RetryPolicy),
    Probe { holder: String, lasts: Duration },
    Probed { holder: String, seen: Seen, retry: RetryPolicy },
    Await(String),
}

impl Change for CircuitChange {
    type Record = Circuit;
    /// Whether it was the asker's to change.
    type Answer = bool;

    fn apply(changes: &[Self], record: &mut Circuit, now: Timestamp) -> Vec<bool> {
        changes.iter().map(|change| change.apply_one(record, now)).collect()
    }
}

impl CircuitChange {
    fn apply_one(&self, record: &mut Circuit, now: Timestamp) -> bool {
        let is_new = record.provider.is_empty();
        let circuit = if is_new { self.destination.closed() } else { record.clone() };
        let changed = match &self.what {
            What::Saw(seen, retry) => observed(&circuit, std::slice::from_ref(seen), retry, now, rand::random()),
            What::Probe { holder, lasts } => {
                (standing(&circuit, now) == Standing::ProbeDue).then(|| probing(&circuit, holder, *lasts, now))
            }
            What::Probed { holder, seen, retry } => probed(&circuit, holder, seen, retry, now, rand::random()),
            What::Await(place) if circuit.state() == State::Open && circuit.probe == *place => return true,
            What::Await(place) => (circuit.state() == State::Open && circuit.probe.is_empty()).then(|| awaiting(&circuit, place)),
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
    pub async fn open(bus: &Bus, metrics: Metrics) -> Result<Self, NotStored> {
        let circuits = Circuits::open(bus).await?;
        let known = Arc::<Mutex<Table>>::default();
        for circuit in circuits.all().await? {
            note(&known, &metrics, circuit);
        }
        let (table, told) = (known.clone(), metrics.clone());
        let observe = move |circuit: &Circuit, revision| {
            note(&table, &told, Known { circuit: circuit.clone(), revision: Some(revision) });
        };
        Ok(Self { bus: bus.clone(), circuits, ledger: Ledger::open(bus, observe).await?, known, metrics })
    }

    /// Follows what other workers and people change, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        self.circuits.watch(stop, |known| note(&self.known, &self.metrics, known)).await;
    }

    /// What is known of a destination now. It asks nobody.
    pub fn standing(&self, destination: &Destination) -> Standing {
        let table = self.table();
        if table.known.is_empty() {
            return Standing::Closed;
        }
        let now = self.bus.clock().now();
        let whole = Destination::whole(&destination.namespace, &destination.provider);
        let standings = [&whole, destination]
            .map(|destination| table.known.get(destination).map_or(Standing::Closed, |known| standing(&known.circuit, now)));
        standings.into_iter().find(|standing| *standing != Standing::Closed).unwrap_or(Standing::Closed)
    }

    /// The circuit as last known.
    pub fn circuit(&self, destination: &Destination) -> Circuit {
        self.table().known.get(destination).map_or_else(|| destination.closed(), |known| known.circuit.clone())
    }

    /// Notes what a call has shown. What is no news costs nothing.
    pub fn saw(&self, destination: &Arc<Destination>, seen: Seen, retry: &RetryPolicy) {
        let is_news = {
            let mut table = self.table();
            let known = table.known.get(destination).map(|known| (known.circuit.state(), known.circuit.failures));
            let is_failing = table.failing.get(destination.as_ref()).is_some_and(|count| *count > 0);
            let is_news = match (&seen, known) {
                (Seen::Answered, Some((State::Closed, failures))) => failures > 0 || is_failing,
                (Seen::Answered, None) => is_failing,
                (Seen::Failed(_), known) => known.is_none_or(|(state, _)| state == State::Closed),
                (Seen::AskedToWait(..), _) => true,
                (Seen::Answered, Some(_)) => false,
            };
            if is_news && seen != Seen::Answered {
                *table.failing.entry(destination.as_ref().clone()).or_default() += 1;
            }
            is_news
        };
        if !is_news {
            return;
        }
        let is_failure = seen != Seen::Answered;
        let noted = self.change(destination, What::Saw(seen, *retry));
        let (known, destination) = (self.known.clone(), destination.clone());
        tokio::spawn(async move {
            if let Err(error) = noted.await {
                tracing::debug!(%error, "what a call has shown of its destination could not be noted");
            }
            if is_failure && let Some(count) = lock(&known).failing.get_mut(destination.as_ref()) {
                *count -= 1;
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
    ) -> Result<Option<Probe>, NotStored> {
        // Made before it is known to be ours: it is given back even if this is broken off while the bus is asked.
        let (ledger, destination) = (self.ledger.clone(), destination.clone());
        let probe = Probe { ledger, destination: destination.clone(), holder: holder.clone(), retry: *retry };
        let is_ours = self.change(&destination, What::Probe { holder, lasts }).await?;
        Ok(if is_ours { Some(probe) } else { probe.was_never_ours() })
    }

    /// Makes what is parked at this place the next probe, if there is none; whether it is.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn wait_to_probe(&self, destination: &Arc<Destination>, place: &str) -> Result<bool, NotStored> {
        let probe = self.circuit(destination).probe;
        if !probe.is_empty() && probe != place {
            return Ok(false);
        }
        self.change(destination, What::Await(place.to_owned())).await
    }

    fn change(&self, destination: &Arc<Destination>, what: What) -> impl Future<Output = Result<bool, NotStored>> + Send + use<> {
        self.ledger.change(&destination.key(), CircuitChange { destination: destination.clone(), what })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.known)
    }
}

// === impl Probe ===

impl Probe {
    /// Tells how it went; whether it was still ours.
    ///
    /// # Errors
    /// The bus can't be asked: the probe then counts as lost.
    pub async fn ended(mut self, seen: Seen) -> Result<bool, NotStored> {
        self.tell(seen).await
    }

    fn was_never_ours(mut self) -> Option<Self> {
        self.holder.clear();
        None
    }

    /// At once, also where nobody waits for the answer.
    fn tell(&mut self, seen: Seen) -> impl Future<Output = Result<bool, NotStored>> + Send + use<> {
        let what = What::Probed { holder: std::mem::take(&mut self.holder), seen, retry: self.retry };
        self.ledger.change(&self.destination.key(), CircuitChange { destination: self.destination.clone(), what })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.holder.is_empty() {
            drop(self.tell(Seen::Failed("the probe ended without an answer".to_owned())));
        }
    }
}

/// Takes a circuit in, if it is newer than what is known, or its record is gone; what has changed is logged and counted.
fn note(known: &Mutex<Table>, metrics: &Metrics, news: Known) {
    let mut table = lock(known);
    let destination = Destination::of(&news.circuit);
    let before = table.known.get(&destination);
    let is_old = |before: &Known| news.revision.is_some() && before.revision >= news.revision;
    if before.is_some_and(is_old) {
        return;
    }
    let (was, is) = (before.map_or(State::Closed, |before| before.circuit.state()), news.circuit.state());
    let circuit = &news.circuit;
    let name = format!("{}/{}", circuit.namespace, circuit.provider);
    if was != is {
        let (state, channel) = (state_word(is), circuit.channel.as_deref().unwrap_or("*"));
        match is {
            State::Open if was == State::Closed => {
                tracing::warn!(provider = name, channel, state, reason = circuit.reason, "a destination is not called any more");
            }
            State::Closed | State::Paused => {
                tracing::info!(provider = name, channel, state, "a destination's circuit has changed")
            }
            State::Open | State::HalfOpen => {
                tracing::debug!(provider = name, channel, state, "a destination's circuit has changed")
            }
        }
    }
    let labels = CircuitLabels {
        namespace: circuit.namespace.clone(),
        provider: circuit.provider.clone(),
        channel: circuit.channel.clone().unwrap_or_else(|| "*".to_owned()),
    };
    metrics.circuit_state.get_or_create(&labels).set(match is {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
        State::Paused => 3,
    });
    table.known.insert(destination, news);
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
