//! Events on an edge that are of another cluster than the edge is now: the cluster was renamed.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use super::EdgeState;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::subject;
use crate::model::token;

impl Bus {
    /// Counts the events of an edge that the hub does not have yet, for each cluster except
    /// `cluster`. The edge must be set up.
    ///
    /// # Errors
    /// The edge's own server is unavailable.
    pub async fn waiting_of_other_clusters(
        &self,
        cluster: &str,
        state: &EdgeState,
    ) -> Result<BTreeMap<String, u64>, BusError> {
        let from = state.forwarded() + 1;
        let all = self.count_filtered(subject::ALL_EVENTS, from).await?;
        let mut waiting = BTreeMap::new();
        if all == self.count_events(cluster, from).await? {
            return Ok(waiting);
        }
        let events = self.jetstream().get_stream_no_info(streams::EVENTS);
        let events = events.await.map_err(unavailable)?;
        let subjects = events.info_with_subjects(subject::ALL_EVENTS).await;
        let mut subjects = subjects.map_err(unavailable)?;
        while let Some((subject, _)) = subjects.try_next().await.map_err(unavailable)? {
            let token = subject.split('.').nth(1).unwrap_or_default();
            waiting.entry(token::decoded(token)).or_insert(0);
        }
        waiting.remove(cluster);
        for (other, count) in &mut waiting {
            *count = self.count_events(other, from).await?;
        }
        waiting.retain(|_, count| *count > 0);
        Ok(waiting)
    }
}
