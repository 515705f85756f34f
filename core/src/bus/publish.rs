//! Publishes events, deliveries, dead letters and outcomes.

use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use prost::Message as _;

use crate::bus::{Bus, BusError};
use crate::model::jitter::jitter;
use crate::model::{id, subject};
use crate::runtime::codes::log as codes;
use crate::runtime::traces::{TraceContext, carry};
use crate::wire::{DeadLetter, Delivery, Event, Outcome};

/// How often the publish of an event is repeated, 100 ms apart, while another replica of the stream
/// stores the same event.
const MAX_CONFLICTS: u32 = 10;
/// The pause of [`until_stored`] between two attempts.
const PAUSE: Duration = Duration::from_millis(750);

/// The server's confirmation that a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishAck {
    /// A message with the same id was stored before. This one was not stored again.
    pub duplicate: bool,
    /// The sequence of the stored message in its stream.
    pub sequence: u64,
}

/// Why the server did not store a message.
pub(super) enum PublishRejected {
    /// A message with the same id is being stored by another replica of the stream.
    Conflict,
    /// The subject's last message is not the one that this message was to replace.
    Replaced,
    Failed(BusError),
}

impl From<PublishRejected> for BusError {
    fn from(rejected: PublishRejected) -> Self {
        match rejected {
            PublishRejected::Conflict => {
                Self::Unavailable("the same message is published at the same time".to_owned())
            }
            PublishRejected::Replaced => {
                Self::Unavailable("the message to replace was replaced already".to_owned())
            }
            PublishRejected::Failed(error) => error,
        }
    }
}

/// Calls `store` until it succeeds. `log` is called with each error.
///
/// A message is acknowledged only after its results are stored, so a failed store is retried
/// without an end. If the process ends first, the message is redelivered.
pub async fn until_stored<T, F>(store: impl Fn() -> F, log: impl Fn(&BusError)) -> T
where
    F: Future<Output = Result<T, BusError>>,
{
    loop {
        match store().await {
            Ok(stored) => return stored,
            Err(error) => log(&error),
        }
        tokio::time::sleep(jitter(PAUSE)).await;
    }
}

impl Bus {
    /// Stores an event in EVENTS. Its dedupe key is the message id, or its first part.
    ///
    /// # Errors
    /// The event might not be stored: the sender must send it again.
    pub async fn store_event(&self, event: &Event) -> Result<PublishAck, BusError> {
        self.store_event_as(event, &event.dedupe_key).await
    }

    /// Stores an event in EVENTS under another message id than its dedupe key.
    ///
    /// # Errors
    /// The event might not be stored: the sender must send it again.
    pub async fn store_event_as(
        &self,
        event: &Event,
        message_id: &str,
    ) -> Result<PublishAck, BusError> {
        let payload = self.encoded(event).await?;
        let subject = subject::event(event);
        let message_id = self.message_id(message_id);
        let mut conflicts = 0;
        loop {
            let message = PublishMessage::build()
                .message_id(&message_id)
                .payload(payload.clone());
            match self.publish(subject.clone(), message).await {
                Err(PublishRejected::Conflict) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => {
                    let stored = result?;
                    if !stored.duplicate {
                        self.stored_events.note(self.clock.now());
                    }
                    return Ok(stored);
                }
            }
        }
    }

    /// The message id of an event as this client publishes it.
    pub(super) fn message_id(&self, message_id: &str) -> String {
        match &self.member_secret {
            Some(secret) => id::message_id_of_member(message_id, secret),
            None => message_id.to_owned(),
        }
    }

    /// Stores a delivery for the workers of its pool and type. Its id is the message id.
    ///
    /// # Guarantees
    /// Within two minutes the same delivery is stored once.
    ///
    /// # Errors
    /// The delivery might not be stored: the event must not be acknowledged.
    pub async fn enqueue(&self, delivery: &Delivery) -> Result<PublishAck, BusError> {
        self.publish_delivery(delivery, delivery.id.clone()).await
    }

    /// Stores a delivery again, under the subject of its Provider's current type. It replaces the
    /// message with the sequence `replaces`, which the caller acknowledges next.
    ///
    /// # Errors
    /// The delivery might not be stored: the message must not be acknowledged.
    pub async fn requeue(
        &self,
        delivery: &Delivery,
        replaces: u64,
    ) -> Result<PublishAck, BusError> {
        self.publish_delivery(delivery, format!("requeue-{replaces}-{}", delivery.id))
            .await
    }

    /// Stores a delivery again that is gone from DELIVERIES, also within the duplicate window of
    /// the first copy. Each `run` of a tool may restore it once.
    ///
    /// # Errors
    /// The delivery might not be stored.
    pub async fn restore(&self, delivery: &Delivery, run: u64) -> Result<PublishAck, BusError> {
        self.publish_delivery(delivery, format!("restore-{run:016x}-{}", delivery.id))
            .await
    }

    async fn publish_delivery(
        &self,
        delivery: &Delivery,
        message_id: String,
    ) -> Result<PublishAck, BusError> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(message_id)
            .payload(self.encoded(delivery).await?);
        Ok(self.publish(subject::delivery(&provider), message).await?)
    }

    /// Stores a dead letter in DEAD. The delivery's id and attempt are the message id.
    ///
    /// # Errors
    /// The dead letter might not be stored: the message must not be acknowledged.
    pub async fn store_dead_letter(&self, letter: &DeadLetter) -> Result<PublishAck, BusError> {
        let delivery = letter.delivery.clone().unwrap_or_default();
        let provider = delivery.provider.unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(format!("{}/{}", delivery.id, delivery.attempt))
            .payload(self.encoded(letter).await?);
        Ok(self.publish(subject::dead(&provider), message).await?)
    }

    /// Publishes how an attempt ended, without waiting for a confirmation. Outcomes are history
    /// only, so a lost one does no harm. It can carry the trace of the attempt.
    pub async fn publish_outcome(&self, outcome: &Outcome, trace: Option<&TraceContext>) {
        let provider = outcome.provider.clone().unwrap_or_default();
        let name = outcome
            .attempt
            .as_ref()
            .map_or("", |attempt| attempt.outcome.as_str());
        let subject = subject::outcome(&provider, name);
        let payload = outcome.encode_to_vec().into();
        #[expect(clippy::disallowed_methods, reason = "only the bus publishes messages")]
        let published = match trace {
            None => self.client.publish(subject, payload).await,
            Some(trace) => {
                let headers = trace.headers();
                let publishing = self.client.publish_with_headers(subject, headers, payload);
                publishing.await
            }
        };
        if let Err(error) = published {
            tracing::debug!(code = codes::OUTCOME_NOT_PUBLISHED, %error, "outcome not published");
        }
    }

    pub(super) async fn publish(
        &self,
        subject: String,
        message: PublishMessage,
    ) -> Result<PublishAck, PublishRejected> {
        let sent = self.send(subject, message).await?;
        self.confirmed(sent).await
    }

    /// Sends a message. Messages are sent in the order of the calls. [`Bus::confirmed`] waits until
    /// it is stored. A message carries the trace of its task.
    pub(super) async fn send(
        &self,
        subject: String,
        message: PublishMessage,
    ) -> Result<PublishAckFuture, PublishRejected> {
        // Without a connection the client would buffer the message and publish it at an unknown
        // later time. The sender retries instead.
        if !self.is_connected() {
            return Err(PublishRejected::Failed(BusError::Unavailable(
                "not connected".to_owned(),
            )));
        }
        let sent = self.jetstream.send_publish(subject, carry(message)).await;
        sent.map_err(|error| self.rejected(&error))
    }

    /// Waits for the server's confirmation of a message.
    pub(super) async fn confirmed(
        &self,
        sent: PublishAckFuture,
    ) -> Result<PublishAck, PublishRejected> {
        let ack = sent.await.map_err(|error| self.rejected(&error))?;
        Ok(PublishAck {
            duplicate: ack.duplicate,
            sequence: ack.sequence,
        })
    }

    fn rejected(&self, error: &PublishError) -> PublishRejected {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                return PublishRejected::Failed(BusError::TooLarge(self.client.max_payload()));
            }
            PublishErrorKind::WrongLastSequence => return PublishRejected::Replaced,
            _ => {}
        }
        let cause = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>());
        match cause.map(jetstream::Error::error_code) {
            Some(ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT) => PublishRejected::Conflict,
            Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => PublishRejected::Replaced,
            Some(
                ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::STREAM_STORE_FAILED
                | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ) => PublishRejected::Failed(BusError::StorageFull),
            _ => PublishRejected::Failed(BusError::Unavailable(error.to_string())),
        }
    }
}
