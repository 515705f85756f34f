//! The ingest of a member of a fleet: what it knows of the hub's server without asking it.
//!
//! Its credentials permit no request about the streams. In place of the checks of the streams and
//! of writing, it reads the record that routers and workers report ([`crate::bus::events_state`]).

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::bus::events_state::{stream_of, to_backlog};
use crate::bus::setup::{SetupError, warn_if_dedupe_interval_differs};
use crate::bus::streams::{EVENTS, Sizing};
use crate::bus::{Bus, BusError};
use crate::model::time::from_proto;
use crate::runtime::health::Check;
use crate::runtime::metrics::Metrics;
use crate::wire::EventsState;

const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Reads the record every second.
pub struct MemberWatch {
    bus: Bus,
    metrics: Metrics,
    /// When the last record was written, and when this process first read it.
    last: Option<(jiff::Timestamp, Instant)>,
}

impl Bus {
    /// The name of the cluster, if the credentials are those of a member of a fleet.
    pub fn member(&self) -> Option<&str> {
        self.access.member()
    }

    /// Waits for nothing: reads the record once, which a router or worker must have written.
    ///
    /// # Errors
    /// There is no record, or the bus is unavailable. A retry can succeed.
    pub async fn set_up_member(&self, sizing: &Sizing) -> Result<(), SetupError> {
        let state = self.member_state().await;
        let state = state.map_err(|cause| SetupError::Unavailable {
            stream: EVENTS.to_owned(),
            cause,
        })?;
        if let Some(stream) = stream_of(&state) {
            warn_if_dedupe_interval_differs(stream.dedupe_interval, sizing);
        }
        Ok(())
    }

    /// Reads the record, which a router or worker must have written.
    pub(super) async fn member_state(&self) -> Result<EventsState, String> {
        let state = self.reported_events_state().await;
        let state = state.map_err(|error: BusError| error.to_string())?;
        let state = state
            .ok_or("no router or worker of the hub has reported the state of EVENTS; start one")?;
        *self.member_stream.lock() = stream_of(&state);
        Ok(state)
    }
}

impl MemberWatch {
    /// Creates a watch for a bus with the credentials of a member.
    pub fn new(bus: Bus, metrics: Metrics) -> Self {
        Self {
            bus,
            metrics,
            last: None,
        }
    }

    /// Samples once, then in the background until `stop`. `check` fails without a connection or a
    /// record, and `storage` while the hub's server cannot store events.
    pub async fn start(mut self, check: Check, storage: Check, stop: CancellationToken) {
        self.sample(&check, &storage).await;
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::spawn(async move {
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                stop.run_until_cancelled(self.sample(&check, &storage))
                    .await;
            }
        });
    }

    async fn sample(&mut self, check: &Check, storage: &Check) {
        let state = match self.bus.is_connected() {
            true => self.bus.member_state().await,
            false => Err("not connected".to_owned()),
        };
        self.metrics.bus_up.set(state.is_ok().into());
        match state {
            Ok(state) => {
                self.note(&state);
                check.succeed();
                match self.bus.storage().events_write_error() {
                    Some(error) => storage.fail(error),
                    None => storage.succeed(),
                }
            }
            Err(trouble) => check.fail(trouble),
        }
    }

    fn note(&mut self, state: &EventsState) {
        let unchanged_for = self.unchanged_for(state);
        let storage = self.bus.storage();
        let limit = Some(state.storage_limit).filter(|limit| *limit > 0);
        storage.note_used(state.storage_used, limit);
        self.metrics.bus_storage_used_ratio.set(storage.used());
        storage.note_backlog(&to_backlog(state, unchanged_for));
        let error = Some(state.write_error.clone()).filter(|error| !error.is_empty());
        storage.note_events_write_error(error);
    }

    /// How long this process has read the same record. The clocks may differ, so they are not
    /// compared.
    fn unchanged_for(&mut self, state: &EventsState) -> Duration {
        let at = from_proto(state.at).unwrap_or_default();
        match self.last {
            Some((last, since)) if last == at => since.elapsed(),
            _ => {
                self.last = Some((at, Instant::now()));
                Duration::ZERO
            }
        }
    }
}
