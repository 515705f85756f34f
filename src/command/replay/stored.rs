//! What the streams hold of planned deliveries.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::stream::DirectGetErrorKind;
use jiff::Timestamp;
use tidings_core::bus::{Bus, streams};
use tidings_core::model::id;
use tidings_core::wire::Outcome as PublishedOutcome;
use tidings_core::{DeadLetter, Delivery, Message as _, Outcome};

use super::Planned;
use super::span::for_each_since;

/// A worker publishes an outcome this soon after its delivery left DELIVERIES.
const OUTCOME_WITHIN: Duration = Duration::from_secs(1);

/// A delivery id as a number, which takes less memory.
pub type DeliveryKey = u128;

/// The key of a delivery id: 32 hexadecimal digits.
pub fn key(delivery_id: &str) -> DeliveryKey {
    u128::from_str_radix(delivery_id, 16)
        .or_else(|_| u128::from_str_radix(&id::digest(&[delivery_id]), 16))
        .unwrap_or_default()
}

/// Removes the deliveries that have a stored message, a dead letter, or an outcome that ended them.
///
/// A delivery that moves meanwhile is found: in DELIVERIES it moves to a higher sequence, and it
/// leaves for OUTCOMES and DEAD, which are read later.
///
/// # Errors
/// A stream cannot be read.
pub async fn remove_stored(
    bus: &Bus,
    from: Timestamp,
    missing: &mut Planned,
) -> anyhow::Result<()> {
    remove_pending(bus, missing).await?;
    tokio::time::sleep(OUTCOME_WITHIN).await;
    for_each_since(bus, streams::OUTCOMES, from, |message| {
        if let Ok(outcome) = PublishedOutcome::decode(message.payload)
            && has_ended(&outcome)
        {
            missing.remove(&key(&outcome.delivery_id));
        }
        Ok(true)
    })
    .await?;
    for_each_since(bus, streams::DEAD, from, |message| {
        if let Ok(dead_letter) = DeadLetter::decode(message.payload) {
            missing.remove(&key(&dead_letter.delivery.unwrap_or_default().id));
        }
        Ok(true)
    })
    .await
}

/// A delivery is parked again after the outcome `retrying`, and may be lost from there.
fn has_ended(outcome: &PublishedOutcome) -> bool {
    let attempt = outcome.attempt.as_ref();
    attempt.is_some_and(|attempt| attempt.outcome != Outcome::Retrying.as_str())
}

/// Removes the deliveries that are ready or parked. A work queue has no second consumer, so each
/// message is read by itself.
async fn remove_pending(bus: &Bus, missing: &mut Planned) -> anyhow::Result<()> {
    let stream = bus
        .jetstream()
        .get_stream_no_info(streams::DELIVERIES)
        .await?;
    let mut next = 1;
    loop {
        let found = stream.direct_get_next_for_subject(">", Some(next)).await;
        let message = match found {
            Ok(message) => message,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                return require_end(bus, next).await;
            }
            Err(error) => return Err(error).context("cannot read the stream DELIVERIES"),
        };
        next = message.sequence + 1;
        if let Ok(delivery) = Delivery::decode(message.payload) {
            missing.remove(&key(&delivery.id));
        }
    }
}

/// Checks that DELIVERIES has no last message beyond where reading ended. The server answers the
/// same at a block that it cannot read.
async fn require_end(bus: &Bus, next: u64) -> anyhow::Result<()> {
    let stream = bus.jetstream().get_stream(streams::DELIVERIES).await?;
    let last = stream.cached_info().state.last_sequence;
    if last < next || stream.direct_get(last).await.is_err() {
        return Ok(());
    }
    let found = stream.direct_get_next_for_subject(">", Some(next)).await;
    found.map(drop).context(
        "a block of the stream DELIVERIES cannot be read: restart the NATS server, which cuts it \
         off, and run the command again",
    )
}

#[cfg(test)]
mod tests {
    use tidings_core::Attempt;

    use super::*;

    #[test]
    fn a_delivery_that_is_retried_has_not_ended() {
        let outcome = |outcome: &str| PublishedOutcome {
            attempt: Some(Attempt {
                outcome: outcome.to_owned(),
                ..Attempt::default()
            }),
            ..PublishedOutcome::default()
        };
        for ended in Outcome::ALL {
            let expected = *ended != Outcome::Retrying;
            assert_eq!(has_ended(&outcome(ended.as_str())), expected, "{ended}");
        }
        assert!(!has_ended(&PublishedOutcome::default()));
    }

    #[test]
    fn a_key_is_the_id_as_a_number() {
        assert_eq!(key("000000000000000000000000000000ff"), 255);
        assert_ne!(key("not hexadecimal"), key("another"));
    }
}
