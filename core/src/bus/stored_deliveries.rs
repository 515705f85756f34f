//! Reads ready and parked deliveries for tools. Nothing is consumed.

use async_nats::header;
use async_nats::jetstream::message::StreamMessage;
use jiff::Timestamp;
use prost::Message as _;

use crate::bus::park::MAY_BE_WOKEN;
use crate::bus::wake::next_message;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::excerpt::{carried_event, excerpt};
use crate::wire::Delivery;

/// The most undecodable messages that are passed over in one reading.
const MOST_UNDECODABLE: usize = 1000;

/// A delivery in DELIVERIES.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDelivery {
    /// The delivery with its last attempt only, and without what can be large: of the event only
    /// the excerpt is kept.
    pub delivery: Delivery,
    /// When it was stored: became ready, or was parked.
    pub stored_at: Timestamp,
    /// When a parked delivery becomes ready. `None` for a ready one.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether a parked delivery waits for the circuit of its destination, and becomes ready
    /// earlier if that closes.
    pub waits_for_circuit: bool,
}

impl Bus {
    /// Reads the first `limit` deliveries whose subjects fit a filter, in the order in which they
    /// were stored. Also returns whether there are more.
    ///
    /// # Errors
    /// The bus is unavailable, or the stream does not exist.
    pub async fn stored_deliveries(
        &self,
        filter: &str,
        limit: usize,
    ) -> Result<(Vec<StoredDelivery>, bool), BusError> {
        let deliveries = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        let deliveries = deliveries.await.map_err(unavailable)?;
        let (mut found, mut undecodable, mut from) = (Vec::new(), 0, 1);
        while let Some(message) = next_message(&deliveries, filter, from).await? {
            if found.len() == limit || undecodable > MOST_UNDECODABLE {
                return Ok((found, true));
            }
            from = message.sequence + 1;
            match StoredDelivery::read(&message) {
                Some(stored) => found.push(stored),
                None => undecodable += 1,
            }
        }
        Ok((found, false))
    }
}

impl StoredDelivery {
    /// `None` if the message is not a delivery.
    fn read(message: &StreamMessage) -> Option<Self> {
        let schedule = message.headers.get(header::NATS_SCHEDULE);
        let stored_at = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos());
        let delivery = Delivery::decode(message.payload.clone()).ok()?;
        Some(Self {
            delivery: without_large_parts(delivery),
            stored_at: stored_at.ok()?,
            next_attempt_at: schedule
                .and_then(|schedule| schedule.as_str().strip_prefix("@at ")?.parse().ok()),
            waits_for_circuit: message.headers.get(MAY_BE_WOKEN).is_some(),
        })
    }
}

/// Thousands of deliveries are listed at a time, and each may be larger than 100 KiB.
fn without_large_parts(mut delivery: Delivery) -> Delivery {
    delivery.excerpt = carried_event(&delivery).map(|event| {
        let mut short = excerpt(event);
        short.message.clear();
        short
    });
    delivery.event = None;
    delivery.metadata.clear();
    delivery.template = None;
    if let Some(alert) = &mut delivery.alert {
        alert.manifest.clear();
    }
    let earlier = delivery.attempts.len().saturating_sub(1);
    delivery.attempts.drain(..earlier);
    delivery
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AlertReference, Attempt, Event};

    #[test]
    fn a_listed_delivery_is_small_and_has_its_last_attempt() {
        let large = "x".repeat(1 << 20);
        let attempt = |number| Attempt {
            number,
            ..Attempt::default()
        };
        let delivery = Delivery {
            id: "d".to_owned(),
            event: Some(Event {
                cluster: "prod".to_owned(),
                message: large.clone(),
                metadata: [("k".to_owned(), large.clone())].into(),
                ..Event::default()
            }),
            alert: Some(AlertReference {
                name: "all".to_owned(),
                manifest: large.clone(),
                ..AlertReference::default()
            }),
            metadata: [("k".to_owned(), large)].into(),
            attempts: vec![attempt(1), attempt(2)],
            ..Delivery::default()
        };
        let small = without_large_parts(delivery);
        assert!(small.encoded_len() < 100, "{small:?}");
        assert_eq!(small.attempts, [attempt(2)]);
        assert_eq!(carried_event(&small).unwrap().cluster, "prod");
        assert_eq!(small.alert.unwrap().name, "all");
    }
}
