//! The last quota of an edge, which it enforces until it can read that of the hub.

use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::wire::EdgeQuota;

/// The key of the record.
const KEY: &str = "quota";

impl Bus {
    /// The quota that an edge recorded last on its own server. No limits if there is none.
    pub(super) async fn edge_quota(&self) -> Result<EdgeQuota, BusError> {
        let records = Records::open(self, streams::EDGE).await?;
        let (quota, _) = records.load::<EdgeQuota>(KEY).await?;
        Ok(quota.unwrap_or_default())
    }

    /// Records the quota of an edge on its own server.
    ///
    /// # Errors
    /// It might not be recorded.
    pub async fn keep_edge_quota(&self, quota: &EdgeQuota) -> Result<(), BusError> {
        let records = Records::open(self, streams::EDGE).await?;
        let (_, revision) = records.load::<EdgeQuota>(KEY).await?;
        let stored = records.store(KEY, quota, revision).await?;
        // No other process writes it.
        stored
            .map(drop)
            .ok_or_else(|| unavailable("the quota was changed"))
    }
}
