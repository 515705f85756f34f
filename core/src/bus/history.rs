//! What was stored in a stretch of time.

use std::collections::HashSet;

use async_nats::header;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures::StreamExt;
use jiff::Timestamp;
use time::OffsetDateTime;

use super::{Bus, NotStored, unavailable};
use crate::bus::streams;
use crate::model::subject;

impl Bus {
    /// The dedupe keys of a cluster's events that were stored between two times of the server's
    /// clock.
    ///
    /// # Errors
    /// The bus could not be asked.
    pub async fn dedupe_keys(
        &self,
        cluster: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<HashSet<String>, NotStored> {
        let start_time =
            OffsetDateTime::from_unix_timestamp(from.as_second()).map_err(unavailable)?;
        let events = self
            .jetstream
            .get_stream_no_info(streams::EVENTS)
            .await
            .map_err(unavailable)?;
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            filter_subject: subject::event_filter(Some(cluster), None, None, None),
            headers_only: true,
            ..OrderedConfig::default()
        };
        let consumer = events.create_consumer(config).await.map_err(unavailable)?;
        let stored = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        let mut messages = consumer.messages().await.map_err(unavailable)?.take(stored);
        let mut keys = HashSet::new();
        while let Some(message) = messages.next().await {
            let message = message.map_err(unavailable)?;
            let published = message
                .info()
                .map_err(unavailable)?
                .published
                .unix_timestamp();
            if published > to.as_second() {
                break;
            }
            let key = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(header::NATS_MESSAGE_ID));
            keys.extend(key.map(|key| key.as_str().to_owned()));
        }
        Ok(keys)
    }
}
