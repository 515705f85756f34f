//! The bus: the only place that publishes to, pulls from and configures NATS JetStream.
//!
//! ```text
//!           store_event               enqueue                  pull
//!  ingest ─────────────► EVENTS ─► router ─► DELIVERIES ─► worker ─┬─ acknowledge
//!                                             ▲      ▲             │
//!                                     requeue │      │ schedule    │
//!                                             │     parked ◄─ park ┤
//!                                             └────────────────────┤
//!                              DEAD ◄──────── store_dead_letter ───┤
//!                              OUTCOMES ◄──── publish_outcome ─────┘
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `permission` | whether events can be published |
//! | `unsent` | memory of messages that wait to be sent |
//! | [`publish`], `park`, [`wake`] | outgoing messages: events, deliveries, retries, outcomes |
//! | `cloud_events` | events that a bridge republishes |
//! | [`pull`], `acknowledge` | incoming messages, and their acknowledgement |
//! | `history`, `later_events` | stored events |
//! | [`shadow`] | what shadow mode recorded |
//! | [`readers`], `taps` | short-lived consumers of an ingest, and of a tap of a fleet |
//! | [`events_state`], [`member`] | what a member of a fleet knows of EVENTS |
//! | [`edge`] | events that a member stores on its own server, and forwards to the hub |
//! | [`consumers`] | consumers whose state is lost |
//! | [`records`], [`circuits`], [`crash_marks`], [`extensions`] | buckets: shared state |
//! | [`process_leases`] | leases that end with their process |
//! | [`streams`], [`setup`], [`watch`] | configuration: expected, created, checked later |
//! | [`write_check`] | whether the server can write |
//! | [`losses`] | finds deliveries that are gone without an acknowledgement |
//! | [`heartbeats`] | which processes run |
//! | [`workload`] | what waits for routers and workers |
//! | [`stored_deliveries`] | ready and parked deliveries, for tools |
//! | [`notices`] | what Tidings reported about itself |
//! | [`names`] | which Alerts and Providers exist, for tools |
//! | [`connect`], [`credentials`] | the connection |
//! | [`clock`], [`storage`] | the server's clock, its storage |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_nats::Client;
use async_nats::jetstream::{self, Context};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::bus::clock::ServerClock;
use crate::bus::heartbeats::StoredEvents;
use crate::bus::permission::Violations;
use crate::bus::storage::Storage;
use crate::bus::unsent::Unsent;
use crate::model::access::Access;
use crate::wire::ConsumerPosition;

mod acknowledge;
pub mod ahead;
pub mod audit;
mod batches;
pub mod circuits;
pub mod clock;
mod cloud_events;
pub mod cluster_content;
pub mod clusters;
pub mod connect;
pub mod consumers;
pub mod crash_marks;
pub mod credentials;
pub mod edge;
pub mod events_state;
pub mod extensions;
pub mod guests;
pub mod heartbeats;
mod history;
mod later_events;
pub mod live_clusters;
pub mod losses;
pub mod member;
pub mod names;
pub mod notices;
mod park;
pub mod pending_deliveries;
mod permission;
pub mod postponed;
pub mod process_leases;
pub mod publish;
pub mod pull;
pub mod readers;
pub mod records;
pub mod restored;
pub mod search;
pub mod setup;
pub mod shadow;
pub mod storage;
pub mod stored_deliveries;
pub mod stream_history;
pub mod streams;
mod taps;
mod unsent;
pub mod wake;
pub mod watch;
pub mod workload;
pub mod write_check;

pub use later_events::{EventsStream, LaterEvent, LaterEvents};

/// A message that the server does not confirm within this time counts as not stored. Ingest must
/// answer within 4 s, because senders give up after 5 s.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(3);
/// The number of publishes that may wait for their confirmation at the same time.
const MAX_UNCONFIRMED: usize = 20_000;

/// A connection to NATS with JetStream. All parts of a process share it.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    jetstream: Context,
    clock: Arc<ServerClock>,
    storage: Arc<Storage>,
    unsent: Arc<ArcSwap<Unsent>>,
    later_reads: Arc<Semaphore>,
    /// Names of the streams that this process has recreated and not yet counted in the metrics.
    recreated: Arc<Mutex<Vec<String>>>,
    stored_events: Arc<StoredEvents>,
    /// The position of the routers that this process recorded last.
    known_position: Arc<Mutex<Option<ConsumerPosition>>>,
    /// What the credentials permit.
    access: Arc<Access>,
    /// What makes the message ids of a member its own; a hash of its key.
    member_secret: Option<Arc<str>>,
    /// What the server refused this client.
    violations: Arc<Violations>,
    /// Which stream EVENTS is, as a member last read it.
    member_stream: Arc<Mutex<Option<EventsStream>>>,
}

/// An operation on the bus failed. The message of a failed publish may be stored nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// There is no connection, no such stream, or no answer in time.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// The server's storage is full.
    #[error("the storage of the bus is full")]
    StorageFull,
    /// The message is larger than the server's `max_payload`.
    #[error("the message is larger than {0} bytes, the max_payload of the NATS server")]
    TooLarge(usize),
}

// === impl Bus ===

impl Bus {
    pub(crate) fn new(client: Client, access: Access, member_secret: Option<Arc<str>>) -> Self {
        Self::confirmed_within(CONFIRMATION_TIMEOUT, client, access, member_secret)
    }

    /// A bus on which a message that the server does not confirm in this time counts as not stored.
    fn confirmed_within(
        ack_timeout: Duration,
        client: Client,
        access: Access,
        member_secret: Option<Arc<str>>,
    ) -> Self {
        let jetstream = jetstream::context::ContextBuilder::new()
            .api_prefix(access.api_prefix())
            .timeout(CONFIRMATION_TIMEOUT)
            .ack_timeout(ack_timeout)
            .max_ack_inflight(MAX_UNCONFIRMED)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Self {
            client,
            jetstream,
            clock: Arc::default(),
            storage: Arc::default(),
            unsent: Arc::default(),
            later_reads: Arc::new(Semaphore::new(later_events::MAX_READS)),
            recreated: Arc::default(),
            stored_events: Arc::default(),
            known_position: Arc::default(),
            access: Arc::new(access),
            member_secret,
            violations: Arc::default(),
            member_stream: Arc::default(),
        }
    }

    /// The NATS client, for operations that the bus does not wrap.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The JetStream context, for operations that the bus does not wrap.
    pub fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// The server's clock, as last sampled.
    pub fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// The use of the server's storage, as last sampled.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The events that this process stored.
    pub fn stored_events(&self) -> &StoredEvents {
        &self.stored_events
    }

    /// How often the client has connected. What the server knew may be lost after a change.
    pub(crate) fn connections(&self) -> u64 {
        let statistics = self.client.statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    /// Whether the client is connected now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> BusError {
    BusError::Unavailable(error.to_string())
}
