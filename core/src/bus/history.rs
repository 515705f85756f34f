//! Reads what the streams hold.

use std::collections::HashSet;

use async_nats::header;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::DirectGetErrorKind;
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message as _;
use time::OffsetDateTime;

use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::{id, subject};
use crate::wire::Event;

impl Bus {
    /// Reads an event by its sequence. `None` if it is no longer stored, or if the sequence belongs
    /// to another event because the stream was recreated.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn event_at(&self, sequence: u64, id: &str) -> Result<Option<Event>, BusError> {
        let event = self.event_with_sequence(sequence).await?;
        Ok(event.filter(|event| event.id == id))
    }

    /// Reads the event with a sequence. `None` if it is not stored.
    pub(super) async fn event_with_sequence(
        &self,
        sequence: u64,
    ) -> Result<Option<Event>, BusError> {
        let events = self
            .jetstream
            .get_stream_no_info(streams::EVENTS)
            .await
            .map_err(unavailable)?;
        match events.direct_get(sequence).await {
            Ok(message) => Ok(Event::decode(message.payload).ok()),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// When the last stored event of a cluster was stored. `None` if none is stored.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn last_event_at(&self, cluster: &str) -> Result<Option<Timestamp>, BusError> {
        let events = self.jetstream.get_stream_no_info(streams::EVENTS);
        let events = events.await.map_err(unavailable)?;
        let filter = subject::event_filter(Some(cluster), None, None, None);
        match events.direct_get_last_for_subject(filter).await {
            Ok(message) => {
                let time = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos());
                time.map(Some).map_err(unavailable)
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Whether a stream holds a message whose subject fits a filter.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub(super) async fn has_message(&self, stream: &str, filter: &str) -> Result<bool, BusError> {
        let stream = self
            .jetstream
            .get_stream_no_info(stream)
            .await
            .map_err(unavailable)?;
        let found = stream.direct_get_next_for_subject(filter, Some(1)).await;
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Reads the dedupe keys of a cluster's events that were stored between two times of the
    /// server's clock.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn dedupe_keys(
        &self,
        cluster: &str,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<HashSet<String>, BusError> {
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
        let pending = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        let mut messages = consumer
            .messages()
            .await
            .map_err(unavailable)?
            .take(pending);
        let mut keys = HashSet::new();
        while let Some(message) = messages.next().await {
            let message = message.map_err(unavailable)?;
            let info = message.info().map_err(unavailable)?;
            if info.published.unix_timestamp() > to.as_second() {
                break;
            }
            let key = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(header::NATS_MESSAGE_ID));
            keys.extend(key.map(|key| id::dedupe_key_of(key.as_str()).to_owned()));
        }
        Ok(keys)
    }
}
