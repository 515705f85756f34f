//! An edge: the ingest of a member that stores events on a NATS server of its own and forwards them
//! to the hub, so that it can accept events while the hub cannot be reached.
//!
//! ```text
//!  ingest ──► EVENTS of the edge ──► forwarder ──► EVENTS of the hub
//!                                        │
//!                    bucket `edge`: how far the hub has the events
//! ```
//!
//! The stream of the edge has the name, the subjects and the dedupe interval of that of the hub.
//! So ingest stores and compares events there as it would on the hub.
//!
//! | file | contents |
//! |---|---|
//! | `position`, `known` | which events the hub has |
//! | `foreign` | finds events of another cluster |
//! | `stored` | reads the events of the edge in order |
//! | [`forward`] | sends them to the hub |
//! | `round` | sends some of them at a time |
//! | `quota` | the last quota that the edge knows |
//! | [`watch`] | samples the edge's stream, and deletes what the hub has |

mod foreign;
pub mod forward;
mod known;
mod position;
mod quota;
mod round;
mod stored;
pub mod watch;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bus::setup::{SetupError, StreamPolicy};
use crate::bus::streams::{self, Sizing};
use crate::bus::{Bus, BusError};
use crate::wire::{EdgeBacklog, EdgeQuota};

/// What the tasks of an edge share.
#[derive(Debug, Default)]
pub struct EdgeState {
    /// The hub has all events up to this sequence, as it is recorded.
    forwarded: AtomicU64,
    waiting: AtomicU64,
    oldest_ms: AtomicU64,
    quota: Mutex<EdgeQuota>,
    /// Identifies the storage.
    storage: OnceLock<String>,
}

impl EdgeState {
    /// The backlog, as last sampled.
    pub fn backlog(&self) -> EdgeBacklog {
        EdgeBacklog {
            waiting: self.waiting.load(Ordering::Relaxed),
            oldest_ms: self.oldest_ms.load(Ordering::Relaxed),
        }
    }

    /// Identifies the storage of the edge, also after a restart of the process or on another host:
    /// the time at which its stream was created, in nanoseconds.
    pub fn storage(&self) -> Option<&str> {
        self.storage.get().map(String::as_str)
    }

    /// The quota that the edge knew last, as it was recorded before the process started.
    pub fn quota(&self) -> EdgeQuota {
        *self.quota.lock()
    }

    fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    fn note_forwarded(&self, sequence: u64) {
        self.forwarded.store(sequence, Ordering::Relaxed);
    }

    fn note_backlog(&self, waiting: u64, oldest: Duration) {
        let oldest = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        self.waiting.store(waiting, Ordering::Relaxed);
        self.oldest_ms.store(oldest, Ordering::Relaxed);
    }
}

impl Bus {
    /// Creates the streams of an edge on its own server, or updates them, and reads how far the hub
    /// has the events, and the last quota.
    ///
    /// # Errors
    /// The server does not answer or refuses. A retry can succeed.
    pub async fn set_up_edge(&self, sizing: &Sizing, state: &EdgeState) -> Result<(), SetupError> {
        for expected in streams::edge(sizing) {
            self.set_up_stream(expected, StreamPolicy::Update).await?;
        }
        let forwarded = position::recorded(self).await;
        let unavailable = |error: BusError| SetupError::Unavailable {
            stream: streams::EDGE.to_owned(),
            cause: error.to_string(),
        };
        state.note_forwarded(forwarded.map_err(unavailable)?);
        let quota = self.edge_quota().await.map_err(unavailable)?;
        *state.quota.lock() = quota;
        let stream = self.jetstream.get_stream(streams::EVENTS).await;
        let stream =
            stream.map_err(|error| unavailable(BusError::Unavailable(error.to_string())))?;
        let created = stream.cached_info().created.unix_timestamp_nanos();
        state.storage.get_or_init(|| format!("edge_{created:x}"));
        Ok(())
    }

    /// How many events the hub does not have, counted now.
    ///
    /// # Errors
    /// The server of the edge does not answer.
    pub async fn waiting_for_hub(&self, state: &EdgeState) -> Result<u64, BusError> {
        let last = self.last_event().await?;
        Ok(last.saturating_sub(state.forwarded()))
    }
}
