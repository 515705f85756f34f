//! Stores events on the bus, and rejects them while its storage is nearly full.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::bus::publish::PublishAck;
use tidings_core::bus::{Bus, BusError};
use tidings_core::runtime::failpoint;
use tidings_core::{Event, Message as _};

use crate::quota::Quota;
use crate::state_change::StateChanges;
use crate::store::{EventStore, StoreAck, StoreError, StoreErrorReason};

/// `Retry-After` while the bus is unavailable.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(2);
/// `Retry-After` while the storage is nearly full. Longer, because it empties slowly.
const RETRY_FULL: Duration = Duration::from_secs(10);

/// Stores events in the stream EVENTS.
///
/// # Guarantees
/// Reports an event as stored only after the server confirmed it. Rejects events while more than
/// 80 % of the storage is used, and while EVENTS would evict events that the router has not read.
///
/// Rejects what exceeds the quota of the cluster; duplicates count, too.
///
/// A duplicate that repeats a state after it changed is stored again ([`StateChanges`]).
#[derive(Clone)]
pub struct BusStore {
    bus: Bus,
    quota: Quota,
    changes: Arc<StateChanges>,
}

impl BusStore {
    /// Stores on this bus, within a quota.
    pub fn new(bus: Bus, quota: Quota) -> Self {
        Self {
            changes: Arc::new(StateChanges::new(bus.clone())),
            bus,
            quota,
        }
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    async fn publish(&self, event: &Event) -> Result<PublishAck, BusError> {
        let first = self.bus.store_event(event).await?;
        if !first.duplicate {
            return Ok(first);
        }
        match self.changes.message_id(event, first.sequence).await {
            Some(message_id) => self.bus.store_event_as(event, &message_id).await,
            None => Ok(first),
        }
    }
}

impl EventStore for BusStore {
    async fn store(&self, event: Event) -> Result<StoreAck, StoreError> {
        if let Some(error) = self.bus.storage().events_write_error() {
            return Err(store_error(
                StoreErrorReason::StorageFailed,
                RETRY_FULL,
                &error,
            ));
        }
        if !self.bus.storage().has_room_for_events() {
            return Err(store_error(
                StoreErrorReason::StorageFull,
                RETRY_FULL,
                "the storage of the bus is nearly full",
            ));
        }
        if self.bus.storage().eviction_is_near() {
            let detail = "the router is far behind, and events would be evicted unread";
            return Err(store_error(StoreErrorReason::Retention, RETRY_FULL, detail));
        }
        if let Err(wait) = self.quota.take(event.encoded_len()) {
            let detail = "the cluster sent more than its quota";
            return Err(store_error(StoreErrorReason::Quota, wait, detail));
        }
        failpoint::reach("ingest:storing");
        let stored = self
            .publish(&event)
            .await
            .map_err(|error| from_bus(&error))?;
        failpoint::reach("ingest:stored");
        Ok(if stored.duplicate {
            StoreAck::Duplicate
        } else {
            StoreAck::New
        })
    }
}

fn from_bus(error: &BusError) -> StoreError {
    let (reason, retry_after) = match error {
        BusError::Unavailable(_) => (StoreErrorReason::Unavailable, RETRY_UNAVAILABLE),
        BusError::StorageFull => (StoreErrorReason::StorageFull, RETRY_FULL),
        BusError::TooLarge(limit) => (
            StoreErrorReason::TooLarge { limit: *limit },
            RETRY_UNAVAILABLE,
        ),
    };
    store_error(reason, retry_after, &error.to_string())
}

fn store_error(reason: StoreErrorReason, retry_after: Duration, detail: &str) -> StoreError {
    StoreError {
        reason,
        retry_after,
        detail: detail.to_owned(),
    }
}
