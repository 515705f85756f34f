//! The consumer that is pulled from: made, held against what it must be, and looked at when it
//! brings nothing.

use crate::runtime::codes::log as codes;
use async_nats::jetstream::consumer::{self, DeliverPolicy, Info, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;

use super::Puller;
use crate::bus::streams::{EVENTS, consumer_differences};

/// What a consumer had for us when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing, or nothing before others have settled what they hold.
    Nothing,
    /// Messages that could be handed out.
    Waiting,
}

impl Seen {
    pub(super) fn at(info: &Info) -> Self {
        let may_hand_out = i64::try_from(info.num_ack_pending)
            .is_ok_and(|held| held < info.config.max_ack_pending);
        if info.num_pending > 0 && may_hand_out {
            Self::Waiting
        } else {
            Self::Nothing
        }
    }

    /// What it has after another pull that has brought nothing.
    ///
    /// # Errors
    /// Messages waited before that pull, and still do.
    fn then(self, info: &Info) -> Result<Self, String> {
        match (self, Self::at(info)) {
            (Self::Waiting, Self::Waiting) => Err(format!(
                "{} messages wait, and none is handed out",
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

    /// The consumer on the server, made where it is missing, and changed back where somebody has
    /// changed it.
    ///
    /// One on EVENTS that we have seen, and that somebody has deleted, is made again where it was:
    /// from the beginning it would bring all that is still stored, and everybody would be told
    /// everything of the last days again.
    pub(super) async fn consumer(&self) -> Result<PullConsumer, String> {
        let stream = self
            .bus
            .jetstream()
            .get_stream_no_info(self.stream)
            .await
            .map_err(|error| error.to_string())?;
        let mut config = self.consumer.clone();
        if self.stream == EVENTS
            && let Some(up_to) = self
                .bus
                .storage()
                .routed_up_to(self.bus.stream_info(EVENTS).await?.created)
        {
            config.deliver_policy = DeliverPolicy::ByStartSequence {
                start_sequence: up_to + 1,
            };
        }
        let made = stream
            .get_or_create_consumer(self.name(), config.clone())
            .await;
        let mut consumer: PullConsumer = made.map_err(|error| error.to_string())?;
        let differences = consumer_differences(&consumer.cached_info().config, &self.consumer);
        if !differences.is_empty() {
            tracing::error!(
                code = codes::CONSUMER_RESTORED,
                consumer = self.name(),
                differences = differences.join("; "),
                "consumer configuration restored"
            );
            consumer = self
                .change_back(&stream, &consumer.cached_info().config, config)
                .await?;
        }
        self.usable(consumer.cached_info())?;
        Ok(consumer)
    }

    async fn change_back(
        &self,
        stream: &Stream<()>,
        is: &consumer::Config,
        must: pull::Config,
    ) -> Result<PullConsumer, String> {
        if (&is.filter_subject, &is.filter_subjects)
            == (&must.filter_subject, &must.filter_subjects)
        {
            // Where a consumer begins can't be changed.
            let must = pull::Config {
                deliver_policy: is.deliver_policy,
                ..must
            };
            return stream
                .update_consumer(must)
                .await
                .map_err(|error| error.to_string());
        }
        // What another filter has passed over it would never see again. What is under way may come
        // twice.
        stream
            .delete_consumer(self.name())
            .await
            .map_err(|error| error.to_string())?;
        stream
            .create_consumer(must)
            .await
            .map_err(|error| error.to_string())
    }

    /// Looks why a pull has brought nothing: a consumer that answers each pull with nothing is as
    /// dead as one that is gone.
    pub(super) async fn look(&self, consumer: &PullConsumer, before: Seen) -> Result<Seen, String> {
        let info = consumer
            .get_info()
            .await
            .map_err(|error| error.to_string())?;
        self.usable(&info)?;
        before.then(&info)
    }

    /// # Errors
    /// Somebody has changed or paused the consumer.
    fn usable(&self, is: &Info) -> Result<(), String> {
        let differences = consumer_differences(&is.config, &self.consumer);
        if !differences.is_empty() {
            return Err(format!(
                "the consumer is not as it must be: {}",
                differences.join("; ")
            ));
        }
        if is.paused {
            let (stream, name) = (&is.stream_name, &is.name);
            return Err(format!(
                "somebody has paused the consumer; `nats consumer resume {stream} {name}` ends that"
            ));
        }
        Ok(())
    }
}

/// The sequence after which a consumer was made to begin.
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
            "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": "instant", "max_ack_pending": 10,
        });
        let text = serde_json::json!({
            "stream_name": "EVENTS", "name": "router", "created": "2026-01-02T03:04:05Z", "config": config,
            "delivered": sequence, "ack_floor": sequence,
            "num_ack_pending": held, "num_redelivered": 0, "num_waiting": 1, "num_pending": pending,
        });
        serde_json::from_value(text).expect("it is what a server tells")
    }

    #[test]
    fn messages_wait_for_us_unless_others_hold_all_that_may_be_held() {
        for (pending, held, seen) in [
            (0, 0, Seen::Nothing),
            (5, 0, Seen::Waiting),
            (5, 9, Seen::Waiting),
            (5, 10, Seen::Nothing),
            (0, 10, Seen::Nothing),
        ] {
            assert_eq!(Seen::at(&info(pending, held)), seen, "{pending} {held}");
        }
    }

    #[test]
    fn what_waits_twice_and_is_not_handed_out_is_trouble() {
        use Seen::{Nothing, Waiting};
        for (before, pending, is_trouble) in [
            (Nothing, 5, false),
            (Waiting, 0, false),
            (Waiting, 5, true),
            (Nothing, 0, false),
        ] {
            assert_eq!(
                before.then(&info(pending, 0)).is_err(),
                is_trouble,
                "{before:?} {pending}"
            );
        }
    }
}
