//! Deliveries that have come again, because the process that held them may have died of them: how often each was attempted
//! alone without an end. In the bucket `suspects`.

use async_nats::jetstream::kv::Store;

use crate::bus::{Bus, NotStored, unavailable};
use crate::stream;

/// Counts the attempts that began alone and did not end.
#[derive(Clone)]
pub struct Suspects {
    store: Store,
}

impl Suspects {
    /// Opens the bucket.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus) -> Result<Self, NotStored> {
        Ok(Self { store: bus.jetstream().get_key_value(stream::SUSPECTS).await.map_err(unavailable)? })
    }

    /// Notes that an attempt of this delivery begins, and tells how many have begun before and did not end.
    ///
    /// # Errors
    /// It is not known to be noted: the attempt must not begin.
    pub async fn begin(&self, delivery_id: &str) -> Result<u32, NotStored> {
        let noted = self.store.get(delivery_id).await.map_err(unavailable)?;
        let begun = noted.and_then(|count| str::from_utf8(&count).ok()?.parse::<u32>().ok()).unwrap_or_default();
        let count = begun.saturating_add(1).to_string();
        self.store.put(delivery_id, count.into()).await.map_err(unavailable)?;
        Ok(begun)
    }

    /// Forgets a delivery: what it was suspected of did not happen.
    ///
    /// # Errors
    /// It is not known to be forgotten.
    pub async fn clear(&self, delivery_id: &str) -> Result<(), NotStored> {
        self.store.purge(delivery_id).await.map_err(unavailable)
    }
}
