//! The consumer of a puller: found or created, restored to its expected configuration, and checked
//! after an empty pull.

use async_nats::jetstream::consumer::{self, DeliverPolicy, Info, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;

use super::{PullError, Puller};
use crate::bus::streams::consumer_differences;
use crate::runtime::codes::log as codes;

/// Whether a consumer has messages that it can deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// No messages, or the limit of unacknowledged messages is reached.
    Empty,
    /// Messages wait, and the server can deliver them.
    Waiting,
}

impl Supply {
    pub(super) fn of(info: &Info) -> Self {
        let may_deliver = i64::try_from(info.num_ack_pending)
            .is_ok_and(|held| held < info.config.max_ack_pending);
        if info.num_pending > 0 && may_deliver {
            Self::Waiting
        } else {
            Self::Empty
        }
    }

    /// The supply after a pull without messages.
    ///
    /// # Errors
    /// Messages waited before that pull and still wait: the consumer does not deliver.
    fn after_empty_pull(self, info: &Info) -> Result<Self, String> {
        match (self, Self::of(info)) {
            (Self::Waiting, Self::Waiting) => Err(format!(
                "the consumer delivers nothing although {} messages wait",
                info.num_pending
            )),
            (_, now) => Ok(now),
        }
    }
}

impl Puller {
    pub(super) fn name(&self) -> &str {
        self.consumer.durable_name.as_deref().unwrap_or_default()
    }

    /// Returns the consumer on the server. If [`Puller::restores`], it is created if it is missing,
    /// restored if another client changed it, and recreated if the server lost its state.
    pub(super) async fn consumer(&self) -> Result<PullConsumer, PullError> {
        let stream = self.bus.jetstream().get_stream_no_info(self.stream).await;
        let stream = stream.map_err(|error| error.to_string())?;
        if !self.restores {
            let consumer = self.existing(&stream).await?;
            self.check_usable(consumer.cached_info())?;
            return Ok(consumer);
        }
        let exists = self.bus.consumer_state(self.stream, self.name()).await?;
        if exists.is_none() {
            self.create(&stream).await?;
        } else if self.keeps_position() {
            self.keep_position().await?;
        }
        let mut consumer = self.existing(&stream).await?;
        let differences = consumer_differences(&consumer.cached_info().config, &self.consumer);
        if !differences.is_empty() {
            tracing::error!(
                code = codes::CONSUMER_RESTORED,
                consumer = self.name(),
                differences = differences.join("; "),
                "consumer configuration restored"
            );
            consumer = self
                .restore(&stream, &consumer.cached_info().config)
                .await?;
        }
        self.check_usable(consumer.cached_info())?;
        Ok(consumer)
    }

    pub(super) async fn existing(&self, stream: &Stream<()>) -> Result<PullConsumer, String> {
        let consumer = stream.get_consumer(self.name()).await;
        consumer.map_err(|error| error.to_string())
    }

    async fn restore(
        &self,
        stream: &Stream<()>,
        actual: &consumer::Config,
    ) -> Result<PullConsumer, PullError> {
        let expected = self.consumer.clone();
        if (&actual.filter_subject, &actual.filter_subjects)
            == (&expected.filter_subject, &expected.filter_subjects)
        {
            // The server refuses to change where a consumer begins.
            let expected = pull::Config {
                deliver_policy: actual.deliver_policy,
                memory_storage: actual.memory_storage,
                ..expected
            };
            let updated = stream.update_consumer(expected).await;
            return Ok(updated.map_err(|error| error.to_string())?);
        }
        // An updated consumer would never deliver what the wrong filter skipped, so it is
        // recreated. Messages that are held now may be delivered twice.
        let deleted = stream.delete_consumer(self.name()).await;
        deleted.map_err(|error| error.to_string())?;
        self.create(stream).await?;
        Ok(self.existing(stream).await?)
    }

    /// Checks the consumer after an empty pull. A consumer that answers every pull but never
    /// delivers is as broken as a deleted one.
    pub(super) async fn check_supply(
        &self,
        consumer: &PullConsumer,
        before: Supply,
    ) -> Result<Supply, String> {
        let info = consumer.get_info().await;
        let info = info.map_err(|error| error.to_string())?;
        self.check_usable(&info)?;
        before.after_empty_pull(&info)
    }

    fn check_usable(&self, info: &Info) -> Result<(), String> {
        let differences = consumer_differences(&info.config, &self.consumer);
        if !differences.is_empty() {
            return Err(format!(
                "the consumer's configuration differs: {}",
                differences.join("; ")
            ));
        }
        if info.paused {
            let (stream, name) = (&info.stream_name, &info.name);
            return Err(format!(
                "the consumer is paused; resume it with `nats consumer resume {stream} {name}`"
            ));
        }
        Ok(())
    }
}

/// The sequence after which a consumer begins.
pub(super) fn begins_after(consumer: &PullConsumer) -> u64 {
    match consumer.cached_info().config.deliver_policy {
        DeliverPolicy::ByStartSequence { start_sequence } => start_sequence.saturating_sub(1),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(pending: u64, held: usize) -> Info {
        let sequence = serde_json::json!({"consumer_seq": 0, "stream_seq": 0});
        let config = serde_json::json!({
            "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant",
            "max_ack_pending": 10,
        });
        let text = serde_json::json!({
            "stream_name": "EVENTS", "name": "router", "created": "2026-01-02T03:04:05Z",
            "config": config, "delivered": sequence, "ack_floor": sequence,
            "num_ack_pending": held, "num_redelivered": 0, "num_waiting": 1,
            "num_pending": pending,
        });
        serde_json::from_value(text).expect("the server's answer")
    }

    #[test]
    fn messages_wait_unless_max_ack_pending_is_reached() {
        for (pending, held, supply) in [
            (0, 0, Supply::Empty),
            (5, 0, Supply::Waiting),
            (5, 9, Supply::Waiting),
            (5, 10, Supply::Empty),
            (0, 10, Supply::Empty),
        ] {
            assert_eq!(Supply::of(&info(pending, held)), supply, "{pending} {held}");
        }
    }

    #[test]
    fn messages_that_wait_twice_without_a_delivery_are_an_error() {
        use Supply::{Empty, Waiting};
        for (before, pending, is_error) in [
            (Empty, 5, false),
            (Waiting, 0, false),
            (Waiting, 5, true),
            (Empty, 0, false),
        ] {
            assert_eq!(
                before.after_empty_pull(&info(pending, 0)).is_err(),
                is_error,
                "{before:?} {pending}"
            );
        }
    }
}
