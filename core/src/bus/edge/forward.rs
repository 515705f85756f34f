//! Forwards the events of an edge to the hub.
//!
//! Each connection to the hub begins with a look at what the hub stored since the recorded
//! position, so that nothing is sent twice. Then events are sent in rounds, each after the former
//! was confirmed. If a round fails, the connection is given up: what it had not sent yet must not
//! be sent after the next connection has begun (`connect_once`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::EdgeState;
use super::known::Known;
use super::position::Position;
use super::round::{self, Held, Round};
use super::stored::{Reader, Stored};
use crate::bus::connect::connect_once;
use crate::bus::storage::Storage;
use crate::bus::{Bus, BusError, unavailable};
use crate::model::jitter::jitter;
use crate::runtime::codes::log as codes;
use crate::runtime::config::NatsSettings;
use crate::runtime::health::Check;
use crate::runtime::log_pace::LogPace;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::EdgeOutcome;

/// The most events of a round.
const MAX_EVENTS: usize = 256;
/// The hub confirms a round within this time, also if the largest event takes a slow line.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);
/// The first pause after a failure; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// What waited is forwarded at 1,000 events a second at most, so that the routers keep up with it
/// and with the other clusters.
const EACH_TAKES: Duration = Duration::from_millis(1);
/// How often it is looked at whether the connection is lost.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The pause before a larger `max_payload` of the hub's server is looked for.
const HELD_PAUSE: Duration = Duration::from_secs(3);
/// How often it is looked at whether the hub has room again.
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// Forwards events until it is stopped.
pub struct Forwarder {
    /// The server of the edge.
    pub edge: Bus,
    /// The hub, as the process watches it: whether it has room for events.
    pub hub: Bus,
    /// How to connect to the hub.
    pub settings: NatsSettings,
    /// The name of the edge's cluster.
    pub cluster: String,
    /// What the tasks of the edge share.
    pub state: Arc<EdgeState>,
    /// Counts what is forwarded.
    pub metrics: Metrics,
    /// Fails while events cannot be forwarded.
    pub check: Check,
    /// The bytes of events that may be under way.
    pub memory: usize,
}

/// What outlives a connection.
struct Progress {
    /// The most events of a round.
    limit: usize,
    pace: LogPace,
    /// The next event is too large for the hub.
    is_held: bool,
    /// The hub refused the last events, because its storage is full.
    is_full: bool,
}

impl Progress {
    /// Whether nothing says that the hub refuses the next events.
    fn is_expected_to_go_on(&self) -> bool {
        !self.is_held && !self.is_full
    }
}

/// What ended a connection.
enum End {
    Failed(BusError),
    Held(Held),
}

impl From<BusError> for End {
    fn from(error: BusError) -> Self {
        Self::Failed(error)
    }
}

impl Forwarder {
    /// Forwards until `stop`. The next start continues.
    pub async fn run(self, stop: CancellationToken) {
        // From the start on, so that a rise is seen.
        let refused = self
            .metrics
            .edge_events_total
            .get_or_create(&EdgeOutcome::Refused);
        drop(refused);
        let mut progress = Progress {
            limit: MAX_EVENTS,
            pace: LogPace::default(),
            is_held: false,
            is_full: false,
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let forwarding = self.forward(&mut progress);
            let Some(end) = stop.run_until_cancelled(forwarding).await else {
                return;
            };
            self.metrics.edge_hub_up.set(0);
            pause = match end {
                End::Held(held) => self.note_held(&held, &mut progress),
                End::Failed(error) => {
                    self.note_failed(&error, &mut progress);
                    match started.elapsed() > MAX_PAUSE {
                        true => FIRST_PAUSE,
                        false => (pause * 2).min(MAX_PAUSE),
                    }
                }
            };
            if stop
                .run_until_cancelled(sleep(jitter(pause)))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    fn note_failed(&self, error: &BusError, progress: &mut Progress) {
        // Only an event that the hub stores says that it has room again.
        progress.is_full |= matches!(error, BusError::StorageFull);
        let error = error.to_string();
        self.check.fail(error.clone());
        if progress.pace.is_due(&error, Instant::now()) {
            tracing::warn!(
                code = codes::EDGE_CUT_OFF,
                error,
                "events cannot be forwarded to the hub, retrying; they are kept"
            );
        }
        // Large events may need a slow line for themselves.
        progress.limit = (progress.limit / 2).max(1);
    }

    /// The client learns of another `max_payload` when it connects, so it connects again.
    fn note_held(&self, held: &Held, progress: &mut Progress) -> Duration {
        let error = held.to_string();
        self.check.fail(error.clone());
        if progress.pace.is_due(&error, Instant::now()) {
            tracing::warn!(
                code = codes::EDGE_EVENT_HELD,
                sequence = held.sequence,
                bytes = held.bytes,
                max_payload = held.limit,
                "event is larger than the hub's server accepts; it waits, and all later ones"
            );
        }
        progress.is_held = true;
        HELD_PAUSE
    }

    /// Forwards over one connection. Returns what ended it.
    async fn forward(&self, progress: &mut Progress) -> End {
        let connection = connect_once(&self.settings, "tidings edge", CONFIRMED_WITHIN).await;
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => return End::Failed(unavailable(error)),
        };
        let forwarded = tokio::select! {
            forwarded = self.forward_over(&connection, progress) => forwarded,
            error = lost(&connection) => Err(End::Failed(error)),
        };
        match forwarded {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn forward_over(&self, hub: &Bus, progress: &mut Progress) -> Result<Infallible, End> {
        let mut position = Position::open(&self.edge, hub.hub_events().await?).await?;
        let mut known = self.read_back(hub, position.hub_sequence()).await?;
        let mut reader = Reader::open(&self.edge, position.forwarded(), self.memory).await?;
        // Events that were stored later cannot have been sent before.
        let newest = self.edge.last_event().await?;
        self.state.note_forwarded(position.recorded());
        if progress.is_expected_to_go_on() {
            self.note_connected(progress);
        }
        loop {
            self.wait_for_room(progress).await;
            if position.forwarded() >= newest {
                known = Known::default();
            }
            let events = reader.next(progress.limit).await?;
            if events.is_empty() {
                position.record().await?;
                self.state.note_forwarded(position.recorded());
                continue;
            }
            self.wait_for_room(progress).await;
            let started = Instant::now();
            let held = self
                .send(hub, &events, &mut known, &mut position, progress)
                .await?;
            if let Some(held) = held {
                position.record().await?;
                self.state.note_forwarded(position.recorded());
                return Err(End::Held(held));
            }
            let least = EACH_TAKES * u32::try_from(events.len()).unwrap_or(u32::MAX);
            sleep(least.saturating_sub(started.elapsed())).await;
        }
    }

    /// Sends a round of events. Returns the one before which it stopped.
    async fn send(
        &self,
        hub: &Bus,
        events: &[Stored],
        known: &mut Known,
        position: &mut Position,
        progress: &mut Progress,
    ) -> Result<Option<Held>, End> {
        let round = round::send(hub, events, known).await?;
        let last = round.done.checked_sub(1).and_then(|last| events.get(last));
        if let Some(last) = last {
            position.advance(last.sequence, &round.stored, known);
            if !progress.is_expected_to_go_on() {
                (progress.is_held, progress.is_full) = (false, false);
                self.note_connected(progress);
            }
            self.count(&round);
            progress.limit = (progress.limit * 2).min(MAX_EVENTS);
            position.record_if_due().await?;
            self.state.note_forwarded(position.recorded());
        }
        Ok(round.held)
    }

    /// What the hub stored of the cluster after a sequence.
    async fn read_back(&self, hub: &Bus, sequence: u64) -> Result<Known, BusError> {
        let known = hub.stored_ids(&self.cluster, sequence).await?;
        if known.left_out() > 0 {
            tracing::warn!(
                code = codes::EDGE_READ_BACK_LIMITED,
                left_out = known.left_out(),
                "too many events of the cluster are on the hub; the edge remembers the last ones"
            );
        }
        Ok(known)
    }

    fn note_connected(&self, progress: &mut Progress) {
        self.metrics.edge_hub_up.set(1);
        self.check.succeed();
        progress.pace.reset();
        tracing::info!(
            code = codes::EDGE_CONNECTED,
            waiting = self.state.backlog().waiting,
            "events are forwarded to the hub"
        );
    }

    fn count(&self, round: &Round) {
        for outcome in &round.outcomes {
            self.metrics.edge_events_total.get_or_create(outcome).inc();
        }
        self.check.succeed();
    }

    /// Waits while the hub would refuse the events of an ingest, too. An edge without events waits
    /// as well, so that its metric is true.
    async fn wait_for_room(&self, progress: &Progress) {
        let mut has_waited = false;
        while let Some(trouble) = no_room(self.hub.storage()) {
            self.metrics.edge_hub_up.set(0);
            self.check.fail(trouble);
            has_waited = true;
            sleep(ROOM_EVERY).await;
        }
        if has_waited && progress.is_expected_to_go_on() {
            self.metrics.edge_hub_up.set(1);
            self.check.succeed();
        }
    }
}

/// Why the hub takes no events.
fn no_room(storage: &Storage) -> Option<String> {
    match storage.events_write_error() {
        Some(error) => Some(error),
        None if !storage.has_room_for_events() => {
            Some("the storage of the hub is nearly full".to_owned())
        }
        None if storage.eviction_is_near() => {
            Some("the routers of the hub are far behind".to_owned())
        }
        None => None,
    }
}

/// Returns when the connection is lost.
async fn lost(connection: &Bus) -> BusError {
    while connection.is_connected() {
        sleep(LOOK_EVERY).await;
    }
    BusError::Unavailable("the connection to the hub is lost".to_owned())
}
