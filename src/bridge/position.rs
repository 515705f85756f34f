//! Samples how far a bridge is, and finds events that it can never read.

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use tidings_core::bus::{Bus, streams};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::Metrics;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// How often the position is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// What samples a bridge's position.
pub struct Position {
    /// The bus.
    pub bus: Bus,
    /// The name of the consumer.
    pub name: String,
    /// Whether the bridge reads every event, so that the server's sequences have no other gaps.
    pub reads_all: bool,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Missed events up to this sequence are counted; at first 0.
    pub counted: u64,
    /// When EVENTS was created, as last sampled. A recreated stream has new sequences.
    pub created: Option<OffsetDateTime>,
}

impl Position {
    /// Samples once, and then until `stop`. The first sample is complete when this returns: later,
    /// the position does not show what was evicted while no bridge ran.
    pub async fn start(mut self, stop: CancellationToken) -> impl Future<Output = ()> {
        self.update().await;
        async move {
            let mut ticks = tokio::time::interval(SAMPLE_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                self.update().await;
            }
        }
    }

    async fn update(&mut self) {
        let is_connected = self.bus.is_connected();
        self.metrics.bus_up.set(i64::from(is_connected));
        // What the server does not answer is sampled the next time.
        if let Some((info, first)) = self.sample().await {
            let pending = i64::try_from(info.num_pending).unwrap_or(i64::MAX);
            self.metrics.bridge_events_pending.set(pending);
            self.count_missed(&info, first);
        }
    }

    /// The state of the consumer, and the first sequence of EVENTS before it.
    async fn sample(&mut self) -> Option<(Info, u64)> {
        let events = self
            .bus
            .jetstream()
            .get_stream(streams::EVENTS)
            .await
            .ok()?;
        let info = events.cached_info();
        let first = info.state.first_sequence;
        if self.created.replace(info.created) != Some(info.created) {
            self.counted = 0;
        }
        Some((events.consumer_info(&self.name).await.ok()?, first))
    }

    fn count_missed(&mut self, info: &Info, first: u64) {
        // A consumer that has delivered nothing may begin anywhere.
        if !self.reads_all || info.delivered.consumer_sequence == 0 {
            return;
        }
        let missed = missed(info.delivered.stream_sequence, first, self.counted);
        if missed > 0 {
            self.metrics.bridge_events_missed_total.inc_by(missed);
            tracing::error!(
                code = codes::BRIDGE_MISSED,
                missed,
                first,
                "stream EVENTS evicted events before the bridge read them"
            );
        }
        self.counted = self.counted.max(first.saturating_sub(1));
    }
}

/// The number of events after the last delivered one, before the first that is stored, and not
/// counted before.
fn missed(delivered: u64, first: u64, counted: u64) -> u64 {
    first
        .saturating_sub(1)
        .saturating_sub(delivered.max(counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicted_events_that_were_not_delivered_are_counted_once() {
        for (delivered, first, counted, expected) in [
            (0, 1, 0, 0),
            (10, 5, 0, 0),
            (10, 11, 0, 0),
            (10, 14, 0, 3),
            (10, 14, 13, 0),
            (10, 16, 13, 2),
            (15, 16, 13, 0),
        ] {
            assert_eq!(missed(delivered, first, counted), expected);
        }
    }
}
