//! Reads the events of an edge from its own server, in order.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use bytes::Bytes;

use crate::bus::{Bus, BusError, batches, streams, unavailable};
use crate::model::stored_event::{self, RefusedEvent};
use crate::runtime::traces::TraceContext;

/// A read waits this long for the next event.
const WAIT: Duration = Duration::from_secs(5);
/// What the server answers to a read whose next message exceeds its bytes.
const EXCEEDS_BYTES: &str = "Exceeds MaxBytes";
/// The server deletes the consumer after this time without a request.
const CONSUMER_EXPIRES_AFTER: Duration = Duration::from_secs(60);

/// An event that an edge stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) subject: String,
    pub(super) payload: Bytes,
    pub(super) trace: Option<TraceContext>,
    /// Its id and dedupe key.
    pub(super) event: Result<(String, String), RefusedEvent>,
}

/// Reads events from a sequence on.
pub(super) struct Reader {
    consumer: PullConsumer,
    /// The number of messages that were read.
    read: u64,
    /// The bytes that a read may return, if it returns more than one event.
    max_bytes: usize,
}

impl Reader {
    /// Starts after a sequence. A read returns one event, or at most `max_bytes`.
    pub(super) async fn open(edge: &Bus, after: u64, max_bytes: usize) -> Result<Self, BusError> {
        let stream = edge.jetstream().get_stream_no_info(streams::EVENTS).await;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: after + 1,
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_EXPIRES_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let stream = stream.map_err(unavailable)?;
        let consumer = stream.create_consumer(config).await;
        Ok(Self {
            consumer: consumer.map_err(unavailable)?,
            read: 0,
            max_bytes,
        })
    }

    /// Reads the next events, at most `limit`. Waits a few seconds for the first, and then returns
    /// none. After an error, or if it is canceled, the reader must not be used again.
    pub(super) async fn next(&mut self, limit: usize) -> Result<Vec<Stored>, BusError> {
        let first = self.consumer.batch().max_messages(1).expires(WAIT);
        let mut events = Vec::new();
        let messages = first.messages().await.map_err(unavailable)?;
        self.collect(messages, &mut events).await?;
        let bytes: usize = events.iter().map(|event| event.payload.len()).sum();
        let left = self.max_bytes.saturating_sub(bytes);
        if !events.is_empty() && limit > 1 && left > 0 {
            let more = self.consumer.fetch().max_messages(limit - 1);
            let messages = more.max_bytes(left).messages().await;
            self.collect(messages.map_err(unavailable)?, &mut events)
                .await?;
        }
        Ok(events)
    }

    async fn collect(
        &mut self,
        mut messages: pull::Batch,
        events: &mut Vec<Stored>,
    ) -> Result<(), BusError> {
        while let Some(message) = batches::next(&mut messages).await {
            let message = match message {
                // The next read returns it.
                Err(error) if error.to_string().contains(EXCEEDS_BYTES) => break,
                message => message?,
            };
            events.push(self.accept(message)?);
        }
        Ok(())
    }

    fn accept(&mut self, message: Message) -> Result<Stored, BusError> {
        let info = message.info().map_err(unavailable)?;
        let (sequence, number) = (info.stream_sequence, info.consumer_sequence);
        self.read += 1;
        if number != self.read {
            return Err(unavailable(
                "a message of the edge's stream was not received",
            ));
        }
        let event = stored_event::read(&message.subject, &message.payload);
        Ok(Stored {
            sequence,
            subject: message.subject.to_string(),
            payload: message.payload.clone(),
            trace: TraceContext::of_message(message.headers.as_ref()),
            event: event.map(|event| (event.id, event.dedupe_key)),
        })
    }
}
