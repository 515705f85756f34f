//! Of all routers one writes: whoever holds the Lease, as long as it does.

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

use crate::status::leader_term::Term;
use crate::status::ready_condition::CheckProvider;
use crate::status::stream_reader::{Read, follow};

/// The Lease that is held by whoever writes.
const LEASE: &str = "tidings-status";
/// The Lease's annotations: the first sequences of OUTCOMES and DEAD that are not reflected yet.
const OUTCOMES_POSITION: &str = "tidings/outcomes-from";
const DEAD_POSITION: &str = "tidings/dead-from";
/// How often the positions are written, where they have moved.
const KEPT_EVERY: Duration = Duration::from_secs(5);
/// Messages of a stream that are read before they are looked at.
const READ_AHEAD: usize = 256;
/// How long the first write waits for what is known of circuits.
const CIRCUITS_WITHIN: Duration = Duration::from_secs(4);
/// Between tries to open the bucket of circuits.
const PAUSE: Duration = Duration::from_secs(2);

/// Writes the status of Alerts and Providers.
pub struct StatusWriter {
    /// The way to the API server.
    pub client: Client,
    /// The namespace of the Lease.
    pub namespace: String,
    /// Where outcomes and dead letters come from.
    pub bus: Bus,
    /// The rules.
    pub rules: Arc<LiveRules>,
    /// What the API server says of them.
    pub catalog: Arc<Catalog>,
    /// Tells what is wrong with a Provider.
    pub check: Arc<CheckProvider>,
    /// Counts the writes.
    pub metrics: Metrics,
}

impl StatusWriter {
    /// Waits for the Lease, and writes while it is held, until `stop`.
    ///
    /// # Guarantees
    /// At most one replica writes at a time. What happened while nobody did is written by the next
    /// one: news of the last hour, or since the last holder. Nothing waits for it; routing does
    /// not need it.
    pub async fn run(self, stop: CancellationToken) {
        let identity = identity();
        let election = Election {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            name: LEASE.to_owned(),
            identity: identity.clone(),
            // Of no process's readiness: a router that can't write statuses routes as well as any
            // other.
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
        let circuits = Changed::default();
        let term = Term::new(self, identity, (outcomes_from, dead_from));
        tokio::join!(
            follow(
                &self.bus,
                streams::OUTCOMES,
                outcomes_from,
                send_outcome,
                over.clone()
            ),
            follow(
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

    /// Writes until the term is over. Everything that it takes in is folded at once; the term says
    /// when something is written.
    async fn write(
        &self,
        mut term: Term<'_>,
        leadership: &Leadership,
        mut outcomes: mpsc::Receiver<Read>,
        mut letters: mpsc::Receiver<Read>,
        circuits: &Changed,
    ) {
        let (mut changes, mut lists) = (self.rules.changes(), self.catalog.lists());
        let mut keep = interval(KEPT_EVERY);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        term.look().await;
        // Told by the watch too, but not before the first write.
        self.present_circuits()
            .await
            .into_iter()
            .for_each(|circuit| term.circuit(circuit));
        while !leadership.over().is_cancelled() {
            let next = term.next(Instant::now());
            tokio::select! {
                () = leadership.over().cancelled() => {}
                Ok(()) = changes.changed() => term.look().await,
                Ok(()) = lists.changed() => term.look_anew().await,
                Some(read) = outcomes.recv() => term.hear(&read),
                Some(read) = letters.recv() => term.note(&read),
                () = circuits.changed() => circuits.take().into_values().for_each(|circuit| term.circuit(circuit)),
                () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => term.write().await,
                _ = keep.tick() => keep_position(&mut term, leadership).await,
            }
        }
        keep_position(&mut term, leadership).await;
    }

    /// All circuits; none where the bus can't be asked, since the watch tells them too.
    async fn present_circuits(&self) -> Vec<Circuit> {
        let asked = async { Circuits::open(&self.bus).await?.all().await };
        let known = timeout(CIRCUITS_WITHIN, asked)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default();
        known.into_iter().map(|known| known.circuit).collect()
    }

    async fn watch_circuits(&self, changed: &Changed, over: &CancellationToken) {
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

/// Writes how far the streams are reflected, where that has moved: along with a renewal of the
/// Lease, so to say.
async fn keep_position(term: &mut Term<'_>, leadership: &Leadership) {
    let Some((outcomes, dead)) = term.moved() else {
        return;
    };
    let position = [(OUTCOMES_POSITION, outcomes), (DEAD_POSITION, dead)];
    let annotations: BTreeMap<_, _> = position
        .into_iter()
        .filter_map(|(key, from)| Some((key.to_owned(), from?.to_string())))
        .collect();
    match leadership.annotate(annotations).await {
        Ok(()) => term.kept((outcomes, dead)),
        Err(error) => {
            tracing::debug!(code = codes::STATUS_POSITION_NOT_SAVED, %error, "status position not saved")
        }
    }
}

/// Circuits that have changed: the newest of each.
#[derive(Default)]
struct Changed {
    circuits: Mutex<HashMap<Destination, Circuit>>,
    notify: Notify,
}

impl Changed {
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
