//! Events onto the bus, as long as there is room for them.

use std::time::Duration;

use tidings_core::Event;
use tidings_core::bus::{Bus, BusError};
use tidings_core::runtime::failpoint;

use crate::store::{EventStore, NotStored, NotStoredReason, Stored};

/// Senders try again after this long at the earliest, while the bus is away.
const AWAY_FOR: Duration = Duration::from_secs(2);
/// Storage does not drain at once.
const FULL_FOR: Duration = Duration::from_secs(10);

/// Stores events in the stream EVENTS.
///
/// # Guarantees
/// Says that an event is stored only after the server has confirmed it. Refuses while more than
/// four fifths of the storage are used, and while the router is so far behind that EVENTS would
/// evict what it has not read.
pub struct BusStore(pub Bus);

impl EventStore for BusStore {
    async fn store(&self, event: Event) -> Result<Stored, NotStored> {
        if !self.0.storage().has_room_for_events() {
            return Err(refused(
                NotStoredReason::StorageFull,
                FULL_FOR,
                "the bus's storage is nearly full",
            ));
        }
        if self.0.storage().eviction_is_near() {
            let why = "the router is so far behind that events would be evicted unread";
            return Err(refused(NotStoredReason::Retention, FULL_FOR, why));
        }
        failpoint::reach("ingest:storing");
        let stored = self
            .0
            .store_event(&event)
            .await
            .map_err(|error| not_stored(&error))?;
        failpoint::reach("ingest:stored");
        Ok(if stored.duplicate {
            Stored::Duplicate
        } else {
            Stored::New
        })
    }
}

fn not_stored(error: &BusError) -> NotStored {
    let (reason, retry_after) = match error {
        BusError::Unavailable(_) => (NotStoredReason::Unavailable, AWAY_FOR),
        BusError::StorageFull => (NotStoredReason::StorageFull, FULL_FOR),
        BusError::TooLarge(limit) => (NotStoredReason::TooLarge { limit: *limit }, AWAY_FOR),
    };
    refused(reason, retry_after, &error.to_string())
}

fn refused(reason: NotStoredReason, retry_after: Duration, detail: &str) -> NotStored {
    NotStored {
        reason,
        retry_after,
        detail: detail.to_owned(),
    }
}
