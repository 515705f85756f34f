//! Waking: parked deliveries resume before their time, because the circuit of their destination
//! closed or a user resumed their Provider.

use std::time::Duration;

use async_nats::header;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use bytes::Bytes;
use futures::{StreamExt, stream};
use prost::Message as _;

use crate::bus::park::{MAY_BE_WOKEN, REPLACES};
use crate::bus::publish::PublishRejected;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::destination::Destination;
use crate::model::subject;
use crate::runtime::traces::{TraceContext, carrying};
use crate::wire::Delivery;

/// The number of parked deliveries that are sorted by age together.
const BATCH: usize = 1000;
/// How many parked deliveries are read to find one for a probe.
const SEARCHED_FOR_ONE: usize = 1000;
/// The number of deliveries that resume in the first second. Each further second has twice as many,
/// so that a service that has just recovered is not flooded.
const FIRST_SECOND: f64 = 64.0;
/// How many parked deliveries are read again and rescheduled at the same time. Each may have the
/// manifest of its Alert, so more of them could take much memory.
const AT_A_TIME: usize = 16;

/// Which parked deliveries [`Bus::wake`] wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeScope {
    /// Those that wait until the circuit of their destination closes.
    Circuit,
    /// Also those that wait for their next attempt, by the backoff or the service's `Retry-After`.
    Retries,
    /// Also those that wait for their reserved send time. They do not reserve another.
    Everything,
}

impl WakeScope {
    fn includes(self, may_be_woken: bool, slot_ms: i64) -> bool {
        match self {
            Self::Circuit => may_be_woken,
            Self::Retries => may_be_woken || slot_ms == 0,
            Self::Everything => true,
        }
    }
}

/// The result of [`Bus::wake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// The number of deliveries that were woken.
    pub count: usize,
    /// Deliveries that were parked up to this sequence were considered.
    pub up_to: u64,
    /// The number of parked deliveries that the scope does not include.
    pub left: usize,
    /// The last reserved send time of those, in milliseconds since 1970; 0 if there is none.
    pub left_until_ms: i64,
}

/// Where a parked delivery is, and when it was planned. The delivery itself is read again when it
/// is rescheduled, because a batch of them may take much memory.
struct Found {
    sequence: u64,
    may_be_woken: bool,
    slot_ms: i64,
    /// Seconds and nanoseconds.
    planned_at: Option<(i64, i32)>,
}

/// A parked delivery as it is stored.
struct Parked {
    subject: String,
    sequence: u64,
    replaces: String,
    may_be_woken: bool,
    delivery: Delivery,
    payload: Bytes,
    trace: Option<TraceContext>,
}

impl Bus {
    /// Reschedules the parked deliveries of a destination that `scope` includes. The oldest resume
    /// first: a few in the first second, and twice as many in each further one.
    ///
    /// `takes_unnamed` says whether deliveries without a channel belong to the destination. Copies
    /// parked up to the sequence `after` are not changed.
    ///
    /// # Guarantees
    /// No delivery is lost or duplicated: a copy is replaced only if it is still the one that was
    /// read. A delivery that is not woken resumes at its scheduled time.
    ///
    /// # Errors
    /// The bus is unavailable. Some deliveries may be woken.
    pub async fn wake(
        &self,
        destination: &Destination,
        takes_unnamed: bool,
        after: u64,
        scope: WakeScope,
    ) -> Result<Woken, BusError> {
        let info = self.stream_info(streams::DELIVERIES).await;
        let up_to = info.map_err(BusError::Unavailable)?.last_sequence();
        let is_selected =
            |delivery: &Delivery| is_selected(destination, takes_unnamed, &delivery.channel);
        let filter = subject::parked_filter(&destination.namespace, &destination.provider);
        let deliveries = self.deliveries().await?;
        let mut from = after + 1;
        let mut woken = Woken {
            count: 0,
            up_to,
            left: 0,
            left_until_ms: 0,
        };
        loop {
            let (batch, next) =
                parked_batch(&deliveries, &filter, from, up_to, &is_selected).await?;
            let (mut batch, left): (Vec<_>, Vec<_>) = batch
                .into_iter()
                .partition(|found| scope.includes(found.may_be_woken, found.slot_ms));
            woken.left += left.len();
            let slots = left.iter().map(|found| found.slot_ms);
            woken.left_until_ms = slots.fold(woken.left_until_ms, i64::max);
            batch.sort_by_key(|found| found.planned_at);
            woken.count += self.wake_batch(&deliveries, batch, woken.count).await?;
            match next {
                Some(next) => from = next,
                None => return Ok(woken),
            }
        }
    }

    /// Reschedules one parked delivery of a destination that waits for its circuit, so that it
    /// becomes the probe. Returns whether there was one among the first 1,000 of the Provider.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn wake_one(
        &self,
        destination: &Destination,
        takes_unnamed: bool,
    ) -> Result<bool, BusError> {
        let filter = subject::parked_filter(&destination.namespace, &destination.provider);
        let deliveries = self.deliveries().await?;
        let mut from = 1;
        for _ in 0..SEARCHED_FOR_ONE {
            let Some(message) = next_message(&deliveries, &filter, from).await? else {
                return Ok(false);
            };
            from = message.sequence + 1;
            let parked = Parked::read(message).filter(|parked| {
                is_selected(destination, takes_unnamed, &parked.delivery.channel)
                    && WakeScope::Circuit.includes(parked.may_be_woken, 0)
            });
            if let Some(parked) = parked
                && self.reschedule(parked, Duration::ZERO).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Wakes these deliveries, after as many as `before`. Returns how many it woke.
    async fn wake_batch(
        &self,
        deliveries: &Stream<()>,
        batch: Vec<Found>,
        before: usize,
    ) -> Result<usize, BusError> {
        let waking = batch
            .into_iter()
            .zip(before..)
            .map(|(found, number)| self.wake_found(deliveries, found, ramp(number)));
        let mut waking = stream::iter(waking).buffered(AT_A_TIME);
        let mut count = 0;
        while let Some(is_woken) = waking.next().await {
            count += usize::from(is_woken?);
        }
        Ok(count)
    }

    /// Reads a parked delivery again and reschedules it. `false` if it is no longer there.
    async fn wake_found(
        &self,
        deliveries: &Stream<()>,
        found: Found,
        wait: Duration,
    ) -> Result<bool, BusError> {
        match read_again(deliveries, &found).await? {
            Some(parked) => self.reschedule(parked, wait).await,
            None => Ok(false),
        }
    }

    async fn deliveries(&self) -> Result<Stream<()>, BusError> {
        let stream = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        stream.await.map_err(unavailable)
    }

    /// Replaces a parked copy by one with an earlier time, which is then also its reserved send
    /// time if it has one. `false` if the copy is no longer there.
    async fn reschedule(&self, mut parked: Parked, wait: Duration) -> Result<bool, BusError> {
        let target = subject::delivery(&parked.delivery.provider.clone().unwrap_or_default());
        let at = self.clock().after(wait);
        let schedule = format!("@at {at:.3}");
        if !parked.may_be_woken && parked.delivery.slot_ms > 0 {
            parked.delivery.slot_ms = at.as_millisecond();
            parked.payload = parked.delivery.encode_to_vec().into();
        }
        let message = PublishMessage::build()
            .expected_last_subject_sequence(parked.sequence)
            .header(header::NATS_SCHEDULE, schedule.as_str())
            .header(header::NATS_SCHEDULE_TARGET, target.as_str())
            .header(REPLACES, parked.replaces.as_str())
            .payload(parked.payload.clone());
        let publishing = self.publish(parked.subject.clone(), message);
        match carrying(parked.trace.take(), publishing).await {
            Ok(_) => Ok(true),
            Err(PublishRejected::Replaced) => Ok(false),
            Err(rejected) => Err(rejected.into()),
        }
    }
}

/// Reads a batch of parked deliveries, up to the sequence `last`. Also returns the sequence where
/// the next batch begins; `None` after the last batch.
async fn parked_batch(
    stream: &Stream<()>,
    filter: &str,
    mut from: u64,
    last: u64,
    is_selected: &impl Fn(&Delivery) -> bool,
) -> Result<(Vec<Found>, Option<u64>), BusError> {
    let mut batch = Vec::new();
    while batch.len() < BATCH {
        let message = match next_message(stream, filter, from).await? {
            Some(message) if message.sequence <= last => message,
            _ => return Ok((batch, None)),
        };
        from = message.sequence + 1;
        let parked = Parked::read(message).filter(|parked| is_selected(&parked.delivery));
        batch.extend(parked.map(|parked| Found::of(&parked)));
    }
    Ok((batch, Some(from)))
}

/// Reads a parked delivery that was found before. `None` if it is no longer there.
async fn read_again(stream: &Stream<()>, found: &Found) -> Result<Option<Parked>, BusError> {
    match stream.direct_get(found.sequence).await {
        Ok(message) => Ok(Parked::read(message)),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

/// The first message of a filter from this sequence on.
pub(super) async fn next_message(
    stream: &Stream<()>,
    filter: &str,
    from: u64,
) -> Result<Option<StreamMessage>, BusError> {
    let found = stream.direct_get_next_for_subject(filter, Some(from)).await;
    match found {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

impl Found {
    fn of(parked: &Parked) -> Self {
        let planned_at = parked.delivery.planned_at;
        Self {
            sequence: parked.sequence,
            may_be_woken: parked.may_be_woken,
            slot_ms: parked.delivery.slot_ms,
            planned_at: planned_at.map(|time| (time.seconds, time.nanos)),
        }
    }
}

impl Parked {
    /// `None` if the message is not a delivery.
    fn read(message: StreamMessage) -> Option<Self> {
        let replaces = message.headers.get(REPLACES).map(ToString::to_string);
        Some(Self {
            subject: message.subject.to_string(),
            sequence: message.sequence,
            replaces: replaces.unwrap_or_default(),
            may_be_woken: message.headers.get(MAY_BE_WOKEN).is_some(),
            delivery: Delivery::decode(message.payload.clone()).ok()?,
            payload: message.payload,
            trace: TraceContext::of_message(Some(&message.headers)),
        })
    }
}

/// Whether a delivery with this channel, which may be empty, belongs to a destination.
fn is_selected(destination: &Destination, takes_unnamed: bool, channel: &str) -> bool {
    match (channel, &destination.channel) {
        ("", Some(_)) => takes_unnamed,
        _ => destination.includes(channel),
    }
}

/// The wait before the delivery with this number resumes. Each second resumes twice as many
/// deliveries as the one before.
fn ramp(number: usize) -> Duration {
    let number = f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    Duration::from_secs_f64((1.0 + number / FIRST_SECOND).log2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_of_the_channel_are_selected_and_perhaps_those_without_one() {
        let channel = Destination::channel("apps", "slack", "#a");
        let whole = Destination::whole("apps", "slack");
        for (destination, takes_unnamed, name, expected) in [
            (&channel, false, "#a", true),
            (&channel, true, "#b", false),
            (&channel, false, "", false),
            (&channel, true, "", true),
            (&whole, false, "", true),
            (&whole, false, "#b", true),
        ] {
            let selected = is_selected(destination, takes_unnamed, name);
            assert_eq!(
                selected, expected,
                "{destination:?} {takes_unnamed} {name:?}"
            );
        }
    }

    #[test]
    fn the_number_of_woken_deliveries_doubles_each_second() {
        for (number, seconds) in [(0, 0), (64, 1), (192, 2), (448, 3), (64 * 1023, 10)] {
            assert_eq!(ramp(number), Duration::from_secs(seconds), "{number}");
        }
    }
}
