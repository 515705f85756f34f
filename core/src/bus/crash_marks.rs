//! Deliveries that have come again, because the process that held them may have died of them: how
//! often each was attempted alone without an end. In the bucket `suspects`.

use crate::bus::records::Records;
use crate::bus::streams;
use crate::bus::{Bus, NotStored};

/// Counts the attempts that began alone and did not end.
#[derive(Clone)]
pub struct CrashMarks {
    /// A number for each delivery.
    records: Records,
}

impl CrashMarks {
    /// Opens the bucket.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus) -> Result<Self, NotStored> {
        Ok(Self {
            records: Records::open(bus, streams::SUSPECTS).await?,
        })
    }

    /// Notes that an attempt of this delivery begins, and tells how many have begun before and did
    /// not end.
    ///
    /// # Errors
    /// It is not known to be noted: the attempt must not begin.
    pub async fn begin(&self, delivery_id: &str) -> Result<u32, NotStored> {
        loop {
            let (begun, revision) = self.records.load::<u32>(delivery_id).await?;
            let begun = begun.unwrap_or_default();
            if self
                .records
                .store(delivery_id, &begun.saturating_add(1), revision)
                .await?
                .is_some()
            {
                return Ok(begun);
            }
        }
    }

    /// Forgets a delivery: what it was suspected of did not happen.
    ///
    /// # Errors
    /// It is not known to be forgotten.
    pub async fn clear(&self, delivery_id: &str) -> Result<(), NotStored> {
        self.records.remove(delivery_id).await
    }
}
