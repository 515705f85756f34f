//! One router writes: the holder of the Lease, while it holds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidings_core::runtime::codes::log as codes;

use kube::Client;
use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::bus::Bus;
use tidings_core::bus::circuits::Circuits;
use tidings_core::bus::streams;
use tidings_core::runtime::health::Health;
use tidings_core::runtime::kubernetes::lease::{Election, Leadership, identity};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::Circuit;
use tidings_rules::LiveRules;
use tidings_rules::cluster::Catalog;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::status::leader_term::LeaderTerm;
use crate::status::ready_condition::CheckProvider;
use crate::status::stream_reader::{StreamMessage, read_stream};

/// The Lease of the writing replica.
const LEASE: &str = "tidings-status";
/// The Lease's annotations with the first sequences of OUTCOMES and DEAD that are not written.
const OUTCOMES_POSITION: &str = "tidings/outcomes-from";
const DEAD_POSITION: &str = "tidings/dead-from";
/// How often changed positions are saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// How many messages of a stream are buffered.
const READ_AHEAD: usize = 256;
/// How long the first write waits for the circuits.
const CIRCUITS_TIMEOUT: Duration = Duration::from_secs(4);
/// The pause before opening the bucket of circuits is retried.
const PAUSE: Duration = Duration::from_secs(2);

/// Writes the status of Alerts and Providers.
pub struct StatusWriter {
    /// The client of the API server.
    pub client: Client,
    /// The namespace of the Lease.
    pub namespace: String,
    /// Where outcomes and dead letters come from.
    pub bus: Bus,
    /// The rules.
    pub rules: Arc<LiveRules>,
    /// The objects of the rules on the API server.
    pub catalog: Arc<Catalog>,
    /// Checks a Provider with its type.
    pub check: Arc<CheckProvider>,
    /// Counts the writes.
    pub metrics: Metrics,
}

impl StatusWriter {
    /// Waits for the Lease, and writes while it is held, until `stop`.
    ///
    /// # Guarantees
    /// At most one replica writes at a time. The next leader resumes at the saved position, or an
    /// hour ago. Routing never waits for it.
    pub async fn run(self, stop: CancellationToken) {
        let identity = identity();
        let election = Election {
            client: self.client.clone(),
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

    /// One term as the leader.
    async fn serve(&self, leadership: Leadership, identity: &str) {
        let over = leadership.over().clone();
        let annotations = leadership.annotations().await;
        let position = |key: &str| annotations.get(key).and_then(|text| text.parse().ok());
        let (outcomes_from, dead_from) = (position(OUTCOMES_POSITION), position(DEAD_POSITION));
        let (send_outcome, outcomes) = mpsc::channel(READ_AHEAD);
        let (send_letter, letters) = mpsc::channel(READ_AHEAD);
        let circuits = ChangedCircuits::default();
        let term = LeaderTerm::new(self, identity, (outcomes_from, dead_from));
        tokio::join!(
            read_stream(
                &self.bus,
                streams::OUTCOMES,
                outcomes_from,
                send_outcome,
                over.clone()
            ),
            read_stream(
                &self.bus,
                streams::DEAD,
                dead_from,
                send_letter,
                over.clone()
            ),
            self.watch_circuits(&circuits, &over),
            self.write(term, &leadership, outcomes, letters, &circuits),
        );
    }

    /// Writes until the term is over. Input is applied at once; the term decides when to write.
    async fn write(
        &self,
        mut term: LeaderTerm<'_>,
        leadership: &Leadership,
        mut outcomes: mpsc::Receiver<StreamMessage>,
        mut letters: mpsc::Receiver<StreamMessage>,
        circuits: &ChangedCircuits,
    ) {
        let (mut changes, mut lists) = (self.rules.changes(), self.catalog.lists());
        let mut save = interval(SAVE_INTERVAL);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        term.check_rules().await;
        // The watch reports them too, but possibly after the first write.
        self.present_circuits()
            .await
            .into_iter()
            .for_each(|circuit| term.apply_circuit(circuit));
        while !leadership.over().is_cancelled() {
            let next = term.next_write(Instant::now());
            tokio::select! {
                () = leadership.over().cancelled() => {}
                Ok(()) = changes.changed() => term.check_rules().await,
                Ok(()) = lists.changed() => term.reload().await,
                Some(read) = outcomes.recv() => term.apply_outcome(&read),
                Some(read) = letters.recv() => term.apply_dead_letter(&read),
                () = circuits.changed() => circuits.take().into_values().for_each(|circuit| term.apply_circuit(circuit)),
                () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => term.write().await,
                _ = save.tick() => save_position(&mut term, leadership).await,
            }
        }
        save_position(&mut term, leadership).await;
    }

    /// All circuits; none if the bus is unavailable, since the watch reports them too.
    async fn present_circuits(&self) -> Vec<Circuit> {
        let asked = async { Circuits::open(&self.bus).await?.all().await };
        let known = timeout(CIRCUITS_TIMEOUT, asked)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default();
        known.into_iter().map(|known| known.circuit).collect()
    }

    async fn watch_circuits(&self, changed: &ChangedCircuits, over: &CancellationToken) {
        while !over.is_cancelled() {
            match Circuits::open(&self.bus).await {
                Ok(circuits) => {
                    circuits
                        .watch(over.clone(), |known| changed.put(known.circuit))
                        .await
                }
                Err(error) => {
                    tracing::warn!(code = codes::CIRCUIT_WATCH_FAILED, %error, "circuit watch failed, retrying");
                    let _ = over.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
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
            tracing::debug!(code = codes::STATUS_POSITION_NOT_SAVED, %error, "status position not saved")
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
