//! Consumers whose state is lost: what their position was, and who recreates them.
//!
//! JetStream keeps the state of a consumer in a file without a checksum. The server refuses a file
//! that it cannot decode, and reads an empty one as "nothing delivered yet". The bucket `consumers`
//! says how far the routers really were.

use std::time::Duration;

use jiff::Timestamp;

use crate::bus::records::Records;
use crate::bus::watch::StreamInfo;
use crate::bus::{Bus, BusError, streams};
use crate::model::time::{after, from_proto, to_proto};
use crate::model::token::Token;
use crate::wire::{ConsumerLease, ConsumerPosition};

pub mod chosen;
pub mod position;
pub mod recreate;
mod state;

use position::Recorded;
pub use state::{ConsumerState, Sequences};

/// Longer than all requests of a recreation together.
const LEASE: Duration = Duration::from_secs(45);

/// The bucket `consumers`.
pub struct ConsumerRecords {
    bus: Bus,
    records: Records,
}

/// The right to recreate one consumer, until it expires.
pub struct Lease {
    key: String,
    revision: u64,
}

impl ConsumerRecords {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            bus: bus.clone(),
            records: Records::open(bus, streams::CONSUMERS).await?,
        })
    }

    /// What is recorded of the routers' position, and its revision. A position that is not stored
    /// any more is taken from the memory of this process.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub(super) async fn position(
        &self,
        events: &StreamInfo,
    ) -> Result<(Recorded, Option<u64>), BusError> {
        let (stored, revision) = self
            .records
            .load::<ConsumerPosition>(streams::ROUTER)
            .await?;
        let known = stored.or_else(|| self.bus.known_position.lock().clone());
        let recorded = match known {
            Some(position) => Recorded::Position(position),
            None if revision.is_none() && self.nothing_was_routed(events).await? => Recorded::Never,
            None => Recorded::Missing,
        };
        Ok((recorded, revision))
    }

    /// Whether no router ever read EVENTS. A router records its position before it creates the
    /// consumer, so an untouched bucket that is as old as EVENTS proves it.
    async fn nothing_was_routed(&self, events: &StreamInfo) -> Result<bool, BusError> {
        if !self
            .records
            .version()
            .await?
            .is_untouched_since(events.created)
        {
            return Ok(false);
        }
        let deliveries = self.bus.stream_info(streams::DELIVERIES).await;
        Ok(deliveries.map_err(BusError::Unavailable)?.last_sequence() == 0)
    }

    /// Records the routers' position, unless another process changed the record.
    ///
    /// # Errors
    /// The position might not be stored.
    pub(super) async fn record(
        &self,
        position: ConsumerPosition,
        revision: Option<u64>,
    ) -> Result<(), BusError> {
        let stored = self
            .records
            .store(streams::ROUTER, &position, revision)
            .await?;
        if stored.is_some() {
            *self.bus.known_position.lock() = Some(position);
        }
        Ok(())
    }

    /// Records a position that an operator chose.
    ///
    /// # Errors
    /// The position might not be stored.
    pub(super) async fn overwrite(&self, position: ConsumerPosition) -> Result<(), BusError> {
        loop {
            let stored = self.records.load::<ConsumerPosition>(streams::ROUTER);
            let (_, revision) = stored.await?;
            let stored = self
                .records
                .store(streams::ROUTER, &position, revision)
                .await?;
            if stored.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes the lease to recreate a consumer. `None` if another process has it. The lease is
    /// stored, so its success also proves that the server can write.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn lease(&self, stream: &str, consumer: &str) -> Result<Option<Lease>, BusError> {
        let [stream, consumer] = [stream, consumer].map(Token::new);
        let key = format!("lease.{}.{}", stream.as_str(), consumer.as_str());
        let (lease, revision) = self.records.load::<ConsumerLease>(&key).await?;
        let now = self.bus.clock().now();
        if lease.is_some_and(|lease| is_held(&lease, now)) {
            return Ok(None);
        }
        let lease = ConsumerLease {
            holder: format!("{:016x}", rand::random::<u64>()),
            until: Some(to_proto(after(now, LEASE))),
        };
        let stored = self.records.store(&key, &lease, revision).await?;
        Ok(stored.map(|revision| Lease { key, revision }))
    }

    /// Returns a lease. If it fails, the lease expires.
    pub async fn release(&self, lease: Lease) {
        let released = ConsumerLease::default();
        let _ = self
            .records
            .store(&lease.key, &released, Some(lease.revision))
            .await;
    }
}

fn is_held(lease: &ConsumerLease, now: Timestamp) -> bool {
    from_proto(lease.until).is_some_and(|until| until > now)
}
