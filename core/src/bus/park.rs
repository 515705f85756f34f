//! Parking: a delivery waits in the stream until its next attempt, as a scheduled message.
//!
//! At the scheduled time JetStream publishes the message to the subject from which workers pull. A
//! delayed NAK would count against the consumer's `max_ack_pending` while it waits, so that one
//! failing provider could block all providers of its type.

use std::time::Duration;

use async_nats::header;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::DirectGetErrorKind;
use jiff::Timestamp;
use prost::Message as _;

use crate::bus::publish::PublishAck;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::subject;
use crate::wire::Delivery;

/// A header: the sequence of the message that the parked copy replaces.
pub(super) const REPLACES: &str = "Tidings-Settles";
/// A header: [`Bus::wake`] may resume the parked delivery before its time.
pub(super) const MAY_BE_WOKEN: &str = "Tidings-Until-Woken";

impl Bus {
    /// Parks a delivery for `wait`, by the server's clock. The parked copy replaces the message
    /// with the sequence `replaces`, which the caller acknowledges next.
    ///
    /// `parking_key` is the last token of the parked subject: the delivery's id, or a key that
    /// several deliveries share. A second delivery parked under the same key replaces the first.
    ///
    /// # Guarantees
    /// Parking twice for the same message stores one copy.
    ///
    /// # Errors
    /// The copy might not be stored: the message must not be acknowledged.
    pub async fn park(
        &self,
        delivery: &Delivery,
        parking_key: &str,
        replaces: u64,
        wait: Duration,
    ) -> Result<PublishAck, BusError> {
        self.park_until(
            delivery,
            parking_key,
            replaces,
            self.clock.after(wait),
            false,
        )
        .await
    }

    /// Parks a delivery until a time of the server's clock, see [`Bus::park`]. With `may_be_woken`,
    /// [`Bus::wake`] can resume it earlier.
    ///
    /// # Errors
    /// The copy might not be stored: the message must not be acknowledged.
    pub async fn park_until(
        &self,
        delivery: &Delivery,
        parking_key: &str,
        replaces: u64,
        until: Timestamp,
        may_be_woken: bool,
    ) -> Result<PublishAck, BusError> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let mut message = PublishMessage::build()
            // The sequence alone is not unique: a recreated stream starts at 1 again.
            .message_id(format!("{replaces}-{}", delivery.id))
            .header(header::NATS_SCHEDULE, format!("@at {until:.3}").as_str())
            .header(
                header::NATS_SCHEDULE_TARGET,
                subject::delivery(&provider).as_str(),
            )
            .header(REPLACES, replaces.to_string().as_str())
            .payload(self.encoded(delivery).await?);
        if may_be_woken {
            message = message.header(MAY_BE_WOKEN, "1");
        }
        Ok(self
            .publish(subject::parked(&provider, parking_key), message)
            .await?)
    }

    /// Whether the copy parked under `parking_key` replaces the message with the sequence
    /// `replaces`.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn is_parked_by(
        &self,
        delivery: &Delivery,
        parking_key: &str,
        replaces: u64,
    ) -> Result<bool, BusError> {
        let parked = self.parked_copy(delivery, parking_key).await?;
        let replaced = parked
            .as_ref()
            .and_then(|message| message.headers.get(REPLACES));
        Ok(replaced.is_some_and(|value| value.as_str() == replaces.to_string()))
    }

    /// The reserved send time of the copy parked under `parking_key`, in milliseconds since 1970. 0
    /// if there is no copy or it has none.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn parked_slot(
        &self,
        delivery: &Delivery,
        parking_key: &str,
    ) -> Result<i64, BusError> {
        let parked = self.parked_copy(delivery, parking_key).await?;
        Ok(parked
            .and_then(|message| Delivery::decode(message.payload).ok())
            .map_or(0, |parked| parked.slot_ms))
    }

    async fn parked_copy(
        &self,
        delivery: &Delivery,
        parking_key: &str,
    ) -> Result<Option<StreamMessage>, BusError> {
        let provider = delivery.provider.clone().unwrap_or_default();
        let deliveries = self
            .jetstream
            .get_stream_no_info(streams::DELIVERIES)
            .await
            .map_err(unavailable)?;
        let found = deliveries
            .direct_get_last_for_subject(subject::parked(&provider, parking_key))
            .await;
        match found {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }
}
