//! Crash marks: for each redelivered delivery, the number of attempts that began and did not end.
//!
//! A delivery is redelivered when the process that held it ends. The delivery itself may be the
//! cause, so workers count its attempts in the bucket `suspects` before they begin one.

use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams};

/// The bucket `suspects`: one count for each redelivered delivery.
#[derive(Clone)]
pub struct CrashMarks {
    records: Records,
}

impl CrashMarks {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            records: Records::open(bus, streams::SUSPECTS).await?,
        })
    }

    /// Records that an attempt begins. Returns how many attempts began before and did not end.
    ///
    /// # Errors
    /// The mark might not be stored: the attempt must not begin.
    pub async fn begin(&self, delivery_id: &str) -> Result<u32, BusError> {
        loop {
            let (begun, revision) = self.records.load::<u32>(delivery_id).await?;
            let begun = begun.unwrap_or_default();
            let stored = self
                .records
                .store(delivery_id, &begun.saturating_add(1), revision)
                .await?;
            if stored.is_some() {
                return Ok(begun);
            }
        }
    }

    /// Removes the marks of a delivery after an attempt that did not end the process.
    ///
    /// # Errors
    /// The marks may still be there.
    pub async fn clear(&self, delivery_id: &str) -> Result<(), BusError> {
        self.records.remove(delivery_id).await
    }
}
