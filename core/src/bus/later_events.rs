//! Reads the events that were stored after another one.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use jiff::Timestamp;

use crate::bus::{Bus, BusError, batches, streams, unavailable};
use crate::model::stored_event;
use crate::model::token::Token;
use crate::wire::Event;

/// A read returns at most this many bytes. Each event may have 1 KiB of subject and headers.
const MAX_BYTES: usize = LaterEvents::MAX_BYTES + (1 << 20);
/// The number of reads at a time. Each may hold [`MAX_BYTES`] twice.
pub(super) const MAX_READS: usize = 2;
/// The server deletes the consumer after this time without a request.
const CONSUMER_EXPIRES_AFTER: Duration = Duration::from_secs(5);

/// Events that were stored after a sequence.
#[derive(Debug, Default)]
pub struct LaterEvents {
    /// The events, oldest first.
    pub events: Vec<LaterEvent>,
    /// Whether these are all. More than the limits allow are not read.
    pub is_complete: bool,
}

/// An event that was stored after a sequence.
#[derive(Clone, Debug, Default)]
pub struct LaterEvent {
    /// Its sequence.
    pub sequence: u64,
    /// Its size in bytes.
    pub size: usize,
    /// The event; empty if the message is refused.
    pub event: Event,
}

/// What identifies the stream EVENTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsStream {
    /// When it was created. A recreated stream has new sequences.
    pub created: Timestamp,
    /// How long a second copy of an event counts as a duplicate.
    pub dedupe_interval: Duration,
}

impl LaterEvents {
    /// Up to this many bytes of events can be read at once.
    pub const MAX_BYTES: usize = 8 << 20;
}

impl Bus {
    /// Which stream EVENTS is, to notice that it was recreated.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn events_stream(&self) -> Result<EventsStream, BusError> {
        if self.member().is_some() {
            let stream = *self.member_stream.lock();
            return stream.ok_or_else(|| unavailable("the state of EVENTS is not known yet"));
        }
        let info = self.stream_info(streams::EVENTS).await;
        let info = info.map_err(BusError::Unavailable)?;
        Ok(EventsStream {
            created: info.created,
            dedupe_interval: info.config.duplicate_window,
        })
    }

    /// Reads the events of a cluster that match a filter and were stored after `sequence`: at most
    /// `limit`, and at most 8 MiB. Without such events it takes one request.
    ///
    /// A short-lived consumer reads them ([`crate::bus::readers`]).
    ///
    /// # Errors
    /// The bus is unavailable, or does not permit the request.
    pub async fn events_after(
        &self,
        cluster: &str,
        filter: String,
        sequence: u64,
        limit: usize,
    ) -> Result<LaterEvents, BusError> {
        let _one_of_few = self.later_reads.acquire().await.map_err(unavailable)?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: sequence + 1,
            },
            filter_subject: filter,
            inactive_threshold: CONSUMER_EXPIRES_AFTER,
            ..pull::Config::default()
        };
        let reader = self.create_reader(&Token::new(cluster), config).await?;
        let later = read(&reader.consumer, limit).await;
        reader.end().await;
        later
    }
}

async fn read(consumer: &PullConsumer, limit: usize) -> Result<LaterEvents, BusError> {
    let pending = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
    let mut later = LaterEvents::default();
    if pending > 0 {
        let batch = consumer
            .fetch()
            .max_messages(pending.min(limit))
            .max_bytes(MAX_BYTES);
        let mut messages = batch.messages().await.map_err(unavailable)?;
        while let Some(Ok(message)) = batches::next(&mut messages).await {
            let sequence = message.info().map_err(unavailable)?.stream_sequence;
            later.events.push(LaterEvent {
                sequence,
                size: message.payload.len(),
                event: stored_event::read(&message.subject, &message.payload).unwrap_or_default(),
            });
        }
    }
    later.is_complete = later.events.len() >= pending;
    Ok(later)
}
