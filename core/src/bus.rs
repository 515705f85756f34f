//! The bus: everything that is published goes out here, and everything that is pulled comes in
//! here.
//!
//! ```text
//!  ingest ─ store ─► EVENTS ─ pull ─► router ─ enqueue ─► DELIVERIES ─ pull ─► worker ─ settle
//!                                                             ▲ park (a schedule) ─┤
//!                                                    DEAD ◄ bury ─┤   OUTCOMES ◄ tell
//! ```

use crate::runtime::codes::log as codes;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, header};
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use prost::Message as _;

use crate::bus::clock::ServerClock;
use crate::bus::storage::Storage;
use crate::model::subject;
use crate::wire::{DeadLetter, Delivery, Event, Outcome};

pub mod circuits;
pub mod clock;
pub mod connect;
pub mod crash_marks;
mod history;
pub mod pull;
pub mod records;
pub mod setup;
pub mod storage;
pub mod streams;
pub mod wake;
pub mod watch;

/// A publish that the server has not confirmed after this long counts as not stored: what waits for
/// an answer within 5 s gets one within 4 s.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);
/// So many publishes may wait for their confirmation; more wait for a place.
const MOST_UNCONFIRMED: usize = 20_000;
/// Equal ids that meet on three replicas are tried again this often, 100 ms apart.
const MOST_CONFLICTS: u32 = 10;
/// The sequence of the message whose settling parked this one.
const SETTLES: &str = "Tidings-Settles";
/// Says of a parked message that it may go before its time, once its destination is called again.
const WOKEN: &str = "Tidings-Until-Woken";

/// A connection to NATS with JetStream, shared by all parts of a process.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    jetstream: Context,
    clock: Arc<ServerClock>,
    storage: Arc<Storage>,
    /// Streams that this process has made anew, until they are counted.
    recreated: Arc<Mutex<Vec<String>>>,
}

/// The server has stored a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The same message was stored before; this one was not.
    pub duplicate: bool,
    /// The sequence of the stored message in its stream.
    pub sequence: u64,
}

/// A message is not known to be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// No connection, no stream, or no confirmation in time. It may have been stored all the same.
    #[error("the bus is not available: {0}")]
    Unavailable(String),
    /// The server's storage is used up.
    #[error("the storage of the bus is full")]
    StorageFull,
    /// The message is larger than the server takes.
    #[error("the message is larger than the {0} bytes that the bus takes")]
    TooLarge(usize),
}

// === impl Bus ===

impl Bus {
    pub(crate) fn new(client: Client) -> Self {
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(CONFIRMED_WITHIN)
            .ack_timeout(CONFIRMED_WITHIN)
            .max_ack_inflight(MOST_UNCONFIRMED)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Self {
            client,
            jetstream,
            clock: Arc::default(),
            storage: Arc::default(),
            recreated: Arc::default(),
        }
    }

    /// The client below, for what has no word of its own here.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream below, for what has no word of its own here.
    pub fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// The server's clock, as last sampled.
    pub fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// How full the storage is, as last sampled.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether there is a connection right now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Stores an event; its dedupe key is the message's id.
    ///
    /// # Errors
    /// It is not known to be stored: the sender must send it again.
    pub async fn store_event(&self, event: &Event) -> Result<Stored, NotStored> {
        let payload = Bytes::from(event.encode_to_vec());
        let subject = subject::event(event);
        let mut conflicts = 0;
        loop {
            let message = PublishMessage::build()
                .message_id(&event.dedupe_key)
                .payload(payload.clone());
            match self.publish(subject.clone(), message).await {
                Err(Refused::Conflict) if conflicts < MOST_CONFLICTS => {
                    conflicts += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return result.map_err(Refused::into_not_stored),
            }
        }
    }

    /// Puts a delivery where the workers of its pool and type take it; its id is the message's id.
    ///
    /// # Guarantees
    /// The same delivery within two minutes is stored once.
    ///
    /// # Errors
    /// It is not known to be stored: what caused it must not be acknowledged.
    pub async fn enqueue(&self, delivery: &Delivery) -> Result<Stored, NotStored> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(&delivery.id)
            .payload(delivery.encode_to_vec().into());
        self.publish(subject::delivery(&provider), message)
            .await
            .map_err(Refused::into_not_stored)
    }

    /// Puts a delivery under another subject (its provider's type has changed), on behalf of the
    /// message with the sequence `settles`.
    ///
    /// # Errors
    /// It is not known to be stored: the message must not be acknowledged.
    pub async fn requeue(&self, delivery: &Delivery, settles: u64) -> Result<Stored, NotStored> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(format!("requeue-{settles}-{}", delivery.id))
            .payload(delivery.encode_to_vec().into());
        self.publish(subject::delivery(&provider), message)
            .await
            .map_err(Refused::into_not_stored)
    }

    /// Parks a delivery until `wait` has passed by the server's clock, on behalf of the message
    /// with the sequence `settles`. `place` is the delivery's id, or what stands for all
    /// deliveries of a key: a second one at the same place takes the first one's.
    ///
    /// # Guarantees
    /// Parking twice on behalf of the same message is parking once.
    ///
    /// # Errors
    /// It is not known to be parked: the message must not be acknowledged.
    pub async fn park(
        &self,
        delivery: &Delivery,
        place: &str,
        settles: u64,
        wait: Duration,
    ) -> Result<Stored, NotStored> {
        self.park_until(delivery, place, settles, self.clock.after(wait), false)
            .await
    }

    /// The same until an instant of the server's clock. What may be woken goes at once when its
    /// destination is called again.
    ///
    /// # Errors
    /// It is not known to be parked: the message must not be acknowledged.
    pub async fn park_until(
        &self,
        delivery: &Delivery,
        place: &str,
        settles: u64,
        until: Timestamp,
        may_be_woken: bool,
    ) -> Result<Stored, NotStored> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let mut message = PublishMessage::build()
            // Sequences begin anew with a stream that is made anew; ids don't.
            .message_id(format!("{settles}-{}", delivery.id))
            .header(header::NATS_SCHEDULE, format!("@at {until:.3}").as_str())
            .header(
                header::NATS_SCHEDULE_TARGET,
                subject::delivery(&provider).as_str(),
            )
            .header(SETTLES, settles.to_string().as_str())
            .payload(delivery.encode_to_vec().into());
        if may_be_woken {
            message = message.header(WOKEN, "1");
        }
        self.publish(subject::parked(&provider, place), message)
            .await
            .map_err(Refused::into_not_stored)
    }

    /// Whether the copy that is parked at this place was parked on behalf of the message with the
    /// sequence `settles`.
    ///
    /// # Errors
    /// The bus could not be asked.
    pub async fn is_parked_by(
        &self,
        delivery: &Delivery,
        place: &str,
        settles: u64,
    ) -> Result<bool, NotStored> {
        let parked = self.parked_at(delivery, place).await?;
        let settled = parked
            .as_ref()
            .and_then(|message| message.headers.get(SETTLES));
        Ok(settled.is_some_and(|value| value.as_str() == settles.to_string()))
    }

    /// The slot that the copy parked at this place has, in milliseconds since 1970; 0 where there
    /// is none.
    ///
    /// # Errors
    /// The bus could not be asked.
    pub async fn parked_slot(&self, delivery: &Delivery, place: &str) -> Result<i64, NotStored> {
        let parked = self.parked_at(delivery, place).await?;
        Ok(parked
            .and_then(|message| Delivery::decode(message.payload).ok())
            .map_or(0, |parked| parked.slot_ms))
    }

    async fn parked_at(
        &self,
        delivery: &Delivery,
        place: &str,
    ) -> Result<Option<StreamMessage>, NotStored> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let deliveries = self
            .jetstream
            .get_stream_no_info(streams::DELIVERIES)
            .await
            .map_err(unavailable)?;
        match deliveries
            .direct_get_last_for_subject(subject::parked(&provider, place))
            .await
        {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == jetstream::stream::DirectGetErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Keeps a dead letter. The delivery's id and attempt are the message's id.
    ///
    /// # Errors
    /// It is not known to be kept: the message must not be acknowledged.
    pub async fn store_dead_letter(&self, letter: &DeadLetter) -> Result<Stored, NotStored> {
        let delivery = letter.delivery.clone().unwrap_or_default();
        let provider = delivery.provider.unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(format!("{}/{}", delivery.id, delivery.attempt))
            .payload(letter.encode_to_vec().into());
        self.publish(subject::dead(&provider), message)
            .await
            .map_err(Refused::into_not_stored)
    }

    /// Tells how an attempt ended, to whom it may concern. Nothing waits for it: a lost one costs a
    /// line of history.
    pub async fn publish_outcome(&self, outcome: &Outcome) {
        let provider = outcome.provider.clone().unwrap_or_default();
        let word = outcome
            .attempt
            .as_ref()
            .map_or("", |attempt| attempt.outcome.as_str());
        let subject = subject::outcome(&provider, word);
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let told = self
            .client
            .publish(subject, outcome.encode_to_vec().into())
            .await;
        if let Err(error) = told {
            tracing::debug!(code = codes::OUTCOME_NOT_PUBLISHED, %error, "outcome not published");
        }
    }

    /// Reads an event back by its sequence; nothing where it is no longer stored. In a stream that
    /// was made anew the same sequence is another event's.
    ///
    /// # Errors
    /// The bus could not be asked.
    pub async fn event_at(&self, sequence: u64, id: &str) -> Result<Option<Event>, NotStored> {
        let events = self
            .jetstream
            .get_stream_no_info(streams::EVENTS)
            .await
            .map_err(unavailable)?;
        match events.direct_get(sequence).await {
            Ok(message) => Ok(Event::decode(message.payload)
                .ok()
                .filter(|event| event.id == id)),
            Err(error) if error.kind() == jetstream::stream::DirectGetErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Acknowledges a message and waits until the server has noted it: after an external effect
    /// nothing less will do.
    ///
    /// # Errors
    /// The server did not confirm: the message may come again.
    pub async fn acknowledge(&self, message: &async_nats::Message) -> Result<(), NotStored> {
        let Some(reply) = message.reply.clone() else {
            return Ok(());
        };
        let asked = self.client.request(reply, Bytes::from_static(b"+ACK"));
        match tokio::time::timeout(CONFIRMED_WITHIN, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(NotStored::Unavailable(
                "no confirmation of an acknowledgement".to_owned(),
            )),
        }
    }

    /// Tells the server about a message in hand without waiting for its answer: in progress, or
    /// handed back.
    pub async fn send_ack(&self, reply: Option<&async_nats::Subject>, kind: jetstream::AckKind) {
        let Some(reply) = reply else { return };
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let told = self.client.publish(reply.clone(), kind.into()).await;
        if let Err(error) = told {
            tracing::debug!(code = codes::ACK_NOT_SENT, %error, "acknowledgement not sent");
        }
    }

    /// Gives a message back, so that another may have it at once, and waits until that is on its
    /// way: what a process that ends has not sent is lost.
    pub async fn return_message(&self, reply: Option<&async_nats::Subject>) {
        self.send_ack(reply, jetstream::AckKind::Nak(None)).await;
        if let Err(error) = self.client.flush().await {
            tracing::debug!(code = codes::MESSAGE_NOT_RETURNED, %error, "message not returned to the server; it is redelivered after ack_wait");
        }
    }

    async fn publish(&self, subject: String, message: PublishMessage) -> Result<Stored, Refused> {
        // The client would keep it for the time after the next connection; the sender can do that
        // better.
        if !self.is_connected() {
            return Err(Refused::Final(NotStored::Unavailable(
                "not connected".to_owned(),
            )));
        }
        let confirmation = self
            .jetstream
            .send_publish(subject, message)
            .await
            .map_err(|error| self.refused(&error))?;
        let ack = confirmation.await.map_err(|error| self.refused(&error))?;
        Ok(Stored {
            duplicate: ack.duplicate,
            sequence: ack.sequence,
        })
    }

    fn refused(&self, error: &jetstream::context::PublishError) -> Refused {
        use jetstream::ErrorCode;
        if error.kind() == PublishErrorKind::MaxPayloadExceeded {
            return Refused::Final(NotStored::TooLarge(self.client.max_payload()));
        }
        if error.kind() == PublishErrorKind::WrongLastSequence {
            return Refused::Moved;
        }
        let code = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>());
        match code.map(jetstream::Error::error_code) {
            Some(ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT) => Refused::Conflict,
            Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) => Refused::Moved,
            Some(
                ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::STREAM_STORE_FAILED
                | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ) => Refused::Final(NotStored::StorageFull),
            _ => Refused::Final(NotStored::Unavailable(error.to_string())),
        }
    }
}

enum Refused {
    Conflict,
    /// What was to be replaced is not there any more.
    Moved,
    Final(NotStored),
}

impl Refused {
    fn into_not_stored(self) -> NotStored {
        match self {
            Self::Conflict => {
                NotStored::Unavailable("equal messages meet on several servers".to_owned())
            }
            Self::Moved => NotStored::Unavailable("what was to be replaced has moved".to_owned()),
            Self::Final(not_stored) => not_stored,
        }
    }
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> NotStored {
    NotStored::Unavailable(error.to_string())
}
