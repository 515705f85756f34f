//! Forwards the events of an edge to the hub.
//!
//! Each connection to the hub begins with a look at what the hub stored since the recorded
//! position, so that nothing is sent twice. Then events are sent in rounds, each after the former
//! was confirmed. If a round fails, the connection is given up: what it had not sent yet must not
//! be sent after the next connection has begun ([`connect_once`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::EdgeState;
use super::position::Position;
use super::round::{self, Round};
use super::stored::Reader;
use crate::bus::connect::connect_once;
use crate::bus::{Bus, BusError, unavailable};
use crate::model::jitter::jitter;
use crate::runtime::codes::log as codes;
use crate::runtime::config::NatsSettings;
use crate::runtime::health::Check;
use crate::runtime::log_pace::LogPace;
use crate::runtime::metrics::Metrics;

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
}

impl Forwarder {
    /// Forwards until `stop`. The next start continues.
    pub async fn run(self, stop: CancellationToken) {
        let mut limit = MAX_EVENTS;
        let (mut pace, mut pause) = (LogPace::default(), FIRST_PAUSE);
        loop {
            let started = Instant::now();
            let forwarding = self.forward(&mut limit, &mut pace);
            let Some(error) = stop.run_until_cancelled(forwarding).await else {
                return;
            };
            let error = error.to_string();
            self.metrics.edge_hub_up.set(0);
            self.check.fail(error.clone());
            if pace.is_due(&error, Instant::now()) {
                tracing::warn!(
                    code = codes::EDGE_CUT_OFF,
                    error,
                    "events cannot be forwarded to the hub, retrying; they are kept"
                );
            }
            // Large events may need a slow line for themselves.
            limit = (limit / 2).max(1);
            pause = match started.elapsed() > MAX_PAUSE {
                true => FIRST_PAUSE,
                false => (pause * 2).min(MAX_PAUSE),
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

    /// Forwards over one connection. Returns the error that ended it.
    async fn forward(&self, limit: &mut usize, pace: &mut LogPace) -> BusError {
        let connection = connect_once(&self.settings, "tidings edge", CONFIRMED_WITHIN).await;
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => return unavailable(error),
        };
        let forwarded = tokio::select! {
            forwarded = self.forward_over(&connection, limit, pace) => forwarded,
            error = lost(&connection) => Err(error),
        };
        match forwarded {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    async fn forward_over(
        &self,
        hub: &Bus,
        limit: &mut usize,
        pace: &mut LogPace,
    ) -> Result<std::convert::Infallible, BusError> {
        let mut position = Position::open(&self.edge, hub.hub_events().await?).await?;
        let mut known = hub
            .stored_ids(&self.cluster, position.hub_sequence())
            .await?;
        let mut reader = Reader::open(&self.edge, position.forwarded()).await?;
        // Events that were stored later cannot have been sent before.
        let newest = self.edge.last_event().await?;
        self.state.note_forwarded(position.recorded());
        self.note_connected(pace);
        loop {
            if position.forwarded() >= newest {
                known = HashSet::new();
            }
            let events = reader.next(*limit).await?;
            let Some(last) = events.last().map(|event| event.sequence) else {
                position.record().await?;
                self.state.note_forwarded(position.recorded());
                continue;
            };
            self.wait_for_room().await;
            let started = Instant::now();
            let round = round::send(hub, &events, &mut known).await?;
            position.advance(last, &round.stored, &known);
            self.count(&round);
            *limit = (*limit * 2).min(MAX_EVENTS);
            position.record_if_due().await?;
            self.state.note_forwarded(position.recorded());
            let least = EACH_TAKES * u32::try_from(events.len()).unwrap_or(u32::MAX);
            sleep(least.saturating_sub(started.elapsed())).await;
        }
    }

    fn note_connected(&self, pace: &mut LogPace) {
        self.metrics.edge_hub_up.set(1);
        self.check.succeed();
        pace.reset();
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

    /// Waits while the hub would refuse the events of an ingest, too.
    async fn wait_for_room(&self) {
        let storage = self.hub.storage();
        loop {
            let trouble = match storage.events_write_error() {
                Some(error) => error,
                None if !storage.has_room_for_events() => {
                    "the storage of the hub is nearly full".to_owned()
                }
                None if storage.eviction_is_near() => {
                    "the routers of the hub are far behind".to_owned()
                }
                None => return,
            };
            self.check.fail(trouble);
            sleep(ROOM_EVERY).await;
        }
    }
}

/// Returns when the connection is lost.
async fn lost(connection: &Bus) -> BusError {
    while connection.is_connected() {
        sleep(LOOK_EVERY).await;
    }
    BusError::Unavailable("the connection to the hub is lost".to_owned())
}
