//! Elects the router that writes status, and feeds its term with input.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::bus::Bus;
use tidings_core::bus::circuits::Circuits;
use tidings_core::bus::streams;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::health::Health;
use tidings_core::runtime::kubernetes::lease::{Election, Leadership, identity};
use tidings_core::wire::Circuit;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::status::leader_term::{LeaderTerm, StatusContext};
use crate::status::stream_reader::{StreamMessage, read_stream};

/// The Lease of the writing replica.
const LEASE: &str = "tidings-status";
/// The Lease's annotations with the first sequences of OUTCOMES and DEAD that are not written.
const OUTCOMES_POSITION: &str = "tidings/outcomes-from";
const DEAD_POSITION: &str = "tidings/dead-from";
/// How often a changed position is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many messages of a stream are buffered.
const READ_AHEAD: usize = 256;
/// How long a new term waits for the circuits before its first write.
const CIRCUITS_TIMEOUT: Duration = Duration::from_secs(4);
/// The pause before opening the bucket of circuits is retried.
const PAUSE: Duration = Duration::from_secs(2);

/// Writes the status of Alerts and Providers.
pub struct StatusWriter {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Where outcomes, dead letters and circuits are read.
    pub bus: Bus,
    /// What each term needs.
    pub context: StatusContext,
}

impl StatusWriter {
    /// Waits for the Lease and writes while this replica holds it, until `stop`.
    ///
    /// # Guarantees
    /// At most one replica writes at a time. The next leader resumes at the saved position; without
    /// one, it starts with the last hour. Routing never waits for status.
    pub async fn run(self, stop: CancellationToken) {
        let identity = identity();
        let election = Election {
            client: self.context.client.clone(),
            namespace: self.namespace.clone(),
            name: LEASE.to_owned(),
            identity: identity.clone(),
            // Not part of readiness: a router that cannot write statuses still routes.
            check: Health::default().check("status", None),
        };
        election
            .lead(&stop, |leadership| self.serve(leadership, &identity))
            .await;
    }

    /// Runs one term.
    async fn serve(&self, leadership: Leadership, identity: &str) {
        let stop = leadership.over().clone();
        let annotations = leadership.annotations().await;
        let position = |key: &str| annotations.get(key).and_then(|text| text.parse().ok());
        let (outcomes_from, dead_from) = (position(OUTCOMES_POSITION), position(DEAD_POSITION));
        let (send_outcome, outcomes) = mpsc::channel(READ_AHEAD);
        let (send_dead_letter, dead_letters) = mpsc::channel(READ_AHEAD);
        let circuits = ChangedCircuits::default();
        let term = LeaderTerm::new(&self.context, identity, (outcomes_from, dead_from));
        tokio::join!(
            read_stream(
                &self.bus,
                streams::OUTCOMES,
                outcomes_from,
                send_outcome,
                stop.clone()
            ),
            read_stream(
                &self.bus,
                streams::DEAD,
                dead_from,
                send_dead_letter,
                stop.clone()
            ),
            self.watch_circuits(&circuits, &stop),
            self.write(term, &leadership, outcomes, dead_letters, &circuits),
        );
    }

    /// Writes until the term ends. Input is applied at once; the term decides when to write.
    async fn write(
        &self,
        mut term: LeaderTerm<'_>,
        leadership: &Leadership,
        mut outcomes: mpsc::Receiver<StreamMessage>,
        mut dead_letters: mpsc::Receiver<StreamMessage>,
        circuits: &ChangedCircuits,
    ) {
        let (mut changes, mut lists) = (self.context.rules.changes(), self.context.catalog.lists());
        let mut costly = self.context.costly.changes();
        let mut save = interval(SAVE_INTERVAL);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        term.check_rules().await;
        // The watch reports them too, but perhaps only after the first write.
        self.current_circuits()
            .await
            .into_iter()
            .for_each(|circuit| term.apply_circuit(circuit));
        while !leadership.over().is_cancelled() {
            let next = term.next_write(Instant::now());
            tokio::select! {
                () = leadership.over().cancelled() => {}
                Ok(()) = changes.changed() => term.check_rules().await,
                Ok(()) = lists.changed() => term.reload().await,
                Ok(()) = costly.changed() => term.check_rules().await,
                Some(message) = outcomes.recv() => term.apply_outcome(&message),
                Some(message) = dead_letters.recv() => term.apply_dead_letter(&message),
                () = circuits.changed() => {
                    for circuit in circuits.take().into_values() {
                        term.apply_circuit(circuit);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {
                    term.write().await
                }
                _ = save.tick() => {
                    self.context.costly.expire();
                    save_position(&mut term, leadership).await
                }
            }
        }
        save_position(&mut term, leadership).await;
    }

    /// All circuits. Empty if the bus does not answer; the watch reports the circuits later.
    async fn current_circuits(&self) -> Vec<Circuit> {
        let reading = async { Circuits::open(&self.bus).await?.all().await };
        let stored = timeout(CIRCUITS_TIMEOUT, reading)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default();
        stored.into_iter().map(|stored| stored.circuit).collect()
    }

    async fn watch_circuits(&self, changed: &ChangedCircuits, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match Circuits::open(&self.bus).await {
                Ok(circuits) => {
                    circuits
                        .watch(stop.clone(), |stored| changed.put(stored.circuit))
                        .await
                }
                Err(error) => {
                    tracing::warn!(
                        code = codes::CIRCUIT_WATCH_FAILED,
                        %error,
                        "circuit watch failed, retrying"
                    );
                    let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
    }
}

/// Saves the position in the Lease if it changed.
async fn save_position(term: &mut LeaderTerm<'_>, leadership: &Leadership) {
    let Some((outcomes, dead)) = term.unsaved_position() else {
        return;
    };
    let position = [(OUTCOMES_POSITION, outcomes), (DEAD_POSITION, dead)];
    let annotations: BTreeMap<_, _> = position
        .into_iter()
        .filter_map(|(key, from)| Some((key.to_owned(), from?.to_string())))
        .collect();
    match leadership.annotate(annotations).await {
        Ok(()) => term.position_saved((outcomes, dead)),
        Err(error) => {
            tracing::debug!(
                code = codes::STATUS_POSITION_NOT_SAVED,
                %error,
                "status position not saved, retrying"
            )
        }
    }
}

/// The latest state of each circuit that changed.
#[derive(Default)]
struct ChangedCircuits {
    circuits: Mutex<HashMap<Destination, Circuit>>,
    notify: Notify,
}

impl ChangedCircuits {
    fn put(&self, circuit: Circuit) {
        self.circuits
            .lock()
            .insert(Destination::of(&circuit), circuit);
        self.notify.notify_one();
    }

    async fn changed(&self) {
        self.notify.notified().await;
    }

    fn take(&self) -> HashMap<Destination, Circuit> {
        std::mem::take(&mut self.circuits.lock())
    }
}
