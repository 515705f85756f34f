//! Waking what is parked until its destination is called again.

use std::time::Duration;

use async_nats::header;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use prost::Message as _;

use crate::bus::streams;
use crate::bus::{Bus, NotStored, Refused, SETTLES, WOKEN, unavailable};
use crate::model::destination::Destination;
use crate::model::subject;
use crate::wire::Delivery;

/// So many are put into the order of their planning at a time.
const TOGETHER: usize = 1000;
/// In the first second after an outage so many go; in each that follows, twice as many.
const FIRST_SECOND: f64 = 8.0;

/// A parked delivery, as it lies in the stream.
struct Parked {
    subject: String,
    sequence: u64,
    settles: String,
    delivery: Delivery,
    payload: Bytes,
}

/// What was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// How many deliveries.
    pub count: usize,
    /// Up to which sequence of the stream; what was parked later was not looked at.
    pub up_to: u64,
}

impl Bus {
    /// Lets what is parked until a destination is called again come soon: the oldest first, few at
    /// the beginning, then more and more. Deliveries without a channel of their own are those
    /// of `channel`. What was parked up to the sequence `after` is left as it is.
    ///
    /// # Guarantees
    /// None is lost or comes twice, whatever happens meanwhile: each is replaced only as it was
    /// read. What is not woken comes by itself, later.
    ///
    /// # Errors
    /// The bus can't be asked; some may be awake.
    pub async fn wake(
        &self,
        destination: &Destination,
        channel: &str,
        after: u64,
    ) -> Result<Woken, NotStored> {
        let up_to = self
            .stream_info(streams::DELIVERIES)
            .await
            .map_err(NotStored::Unavailable)?
            .last_sequence();
        let filter = subject::parked_filter(&destination.namespace, &destination.provider);
        let (mut from, mut count) = (after + 1, 0);
        loop {
            let (mut batch, next) = self
                .parked(&filter, from, up_to, destination, channel)
                .await?;
            let planned = |parked: &Parked| {
                parked
                    .delivery
                    .planned_at
                    .map(|time| (time.seconds, time.nanos))
            };
            batch.sort_by_key(planned);
            for parked in batch {
                if self.hasten(&parked, ramp(count)).await? {
                    count += 1;
                }
            }
            match next {
                Some(next) => from = next,
                None => return Ok(Woken { count, up_to }),
            }
        }
    }

    /// A batch of what is parked until it is woken, up to the sequence `last`, and where the next
    /// one begins.
    async fn parked(
        &self,
        filter: &str,
        mut from: u64,
        last: u64,
        destination: &Destination,
        channel: &str,
    ) -> Result<(Vec<Parked>, Option<u64>), NotStored> {
        let deliveries = self
            .jetstream()
            .get_stream_no_info(streams::DELIVERIES)
            .await
            .map_err(unavailable)?;
        let mut batch = Vec::new();
        while batch.len() < TOGETHER {
            let message = match deliveries
                .direct_get_next_for_subject(filter, Some(from))
                .await
            {
                Ok(message) if message.sequence <= last => message,
                Ok(_) => return Ok((batch, None)),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                    return Ok((batch, None));
                }
                Err(error) => return Err(unavailable(error)),
            };
            from = message.sequence + 1;
            let Ok(delivery) = Delivery::decode(message.payload.clone()) else {
                continue;
            };
            let own = if delivery.channel.is_empty() {
                channel
            } else {
                &delivery.channel
            };
            let is_meant = destination
                .channel
                .as_deref()
                .is_none_or(|channel| channel == own);
            if is_meant && message.headers.get(WOKEN).is_some() {
                let settles = message
                    .headers
                    .get(SETTLES)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let subject = message.subject.to_string();
                batch.push(Parked {
                    subject,
                    sequence: message.sequence,
                    settles,
                    delivery,
                    payload: message.payload,
                });
            }
        }
        Ok((batch, Some(from)))
    }

    /// Whether it was still there to be replaced.
    async fn hasten(&self, parked: &Parked, wait: Duration) -> Result<bool, NotStored> {
        let target = subject::delivery(&parked.delivery.provider.clone().unwrap_or_default());
        let message = PublishMessage::build()
            .expected_last_subject_sequence(parked.sequence)
            .header(
                header::NATS_SCHEDULE,
                format!("@at {:.3}", self.clock().after(wait)).as_str(),
            )
            .header(header::NATS_SCHEDULE_TARGET, target.as_str())
            .header(SETTLES, parked.settles.as_str())
            .payload(parked.payload.clone());
        match self.publish(parked.subject.clone(), message).await {
            Ok(_) => Ok(true),
            Err(Refused::Moved) => Ok(false),
            Err(refused) => Err(refused.into_not_stored()),
        }
    }
}

/// When the one with this number goes: what goes in a second doubles with each.
fn ramp(number: usize) -> Duration {
    let number = f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    Duration::from_secs_f64((1.0 + number / FIRST_SECOND).log2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_go_at_first_and_then_more_and_more() {
        for (number, seconds) in [(0, 0), (8, 1), (24, 2), (56, 3), (8 * 1023, 10)] {
            assert_eq!(ramp(number), Duration::from_secs(seconds), "{number}");
        }
    }
}
