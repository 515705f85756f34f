//! Reads what the streams hold.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::header;
use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::DirectGetErrorKind;
use jiff::Timestamp;

use crate::bus::{Bus, BusError, batches, streams, unavailable};
use crate::model::time::to_offset;
use crate::model::token::Token;
use crate::model::{id, stored_event, subject};
use crate::wire::Event;

/// The number of keys that are read with one request.
const KEYS_AT_ONCE: usize = 1_000;
/// The server deletes the consumer after this time without a request.
const READER_EXPIRES_AFTER: Duration = Duration::from_secs(10);

impl Bus {
    /// Reads an event by its sequence. `None` if it is no longer stored, if the sequence belongs to
    /// another event because the stream was recreated, or if the message is refused
    /// ([`stored_event`]).
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn event_at(&self, sequence: u64, id: &str) -> Result<Option<Event>, BusError> {
        if !self.may_read(streams::EVENTS) {
            return Ok(None);
        }
        let event = self.event_with_sequence(sequence).await?;
        Ok(event.filter(|event| event.id == id))
    }

    /// Reads the event with a sequence. `None` if it is not stored, or is refused.
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
            Ok(message) => Ok(stored_event::read(&message.subject, &message.payload).ok()),
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
        let start_time = to_offset(from);
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            filter_subject: subject::event_filter(Some(cluster), None, None, None),
            headers_only: true,
            inactive_threshold: READER_EXPIRES_AFTER,
            ..pull::Config::default()
        };
        let reader = self.create_reader(&Token::new(cluster), config).await?;
        let keys = read_keys(&reader.consumer, to).await;
        reader.end().await;
        keys
    }
}

/// Reads the dedupe keys of the events that were stored until a time.
async fn read_keys(consumer: &PullConsumer, to: Timestamp) -> Result<HashSet<String>, BusError> {
    let mut left = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
    let mut keys = HashSet::new();
    while left > 0 {
        let batch = consumer.fetch().max_messages(left.min(KEYS_AT_ONCE));
        let mut messages = batch.messages().await.map_err(unavailable)?;
        let mut read = 0;
        while let Some(message) = batches::next(&mut messages).await {
            let message = message?;
            let info = message.info().map_err(unavailable)?;
            if info.published.unix_timestamp() > to.as_second() {
                return Ok(keys);
            }
            let headers = message.headers.as_ref();
            let key = headers.and_then(|headers| headers.get(header::NATS_MESSAGE_ID));
            keys.extend(key.map(|key| id::dedupe_key_of(key.as_str()).to_owned()));
            read += 1;
        }
        // What is left was evicted meanwhile.
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
    }
    Ok(keys)
}
