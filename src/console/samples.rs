//! Numbers of the last hour, for plots. Kept in memory: they begin when the console starts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tidings_core::bus::{Bus, streams};
use tidings_core::runtime::scaling::Scaling;
use tokio_util::sync::CancellationToken;

use super::recent::{Counts, Recent};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(10);
/// The samples of an hour.
const MOST: usize = 360;

/// The samples, oldest first. Clones share them.
#[derive(Clone, Default)]
pub struct Samples(Arc<Mutex<VecDeque<Sample>>>);

/// What was counted in an interval, and what waited at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Events that were stored, per second; absent for the first sample.
    pub events_per_second: Option<f64>,
    pub delivered: u64,
    pub retrying: u64,
    pub dead: u64,
    /// The median time from plan to delivery, in milliseconds, and that of the slowest twentieth.
    pub latency_median_ms: Option<u64>,
    pub latency_high_ms: Option<u64>,
    pub ready: u64,
    pub parked: u64,
    pub unrouted: u64,
    pub oldest_ready_ms: u64,
}

impl Samples {
    /// Adds samples until `stop`. While the bus does not answer, there are none.
    pub async fn follow(self, bus: Bus, scaling: Scaling, recent: Recent, stop: CancellationToken) {
        let mut before = None;
        loop {
            let counts = recent.take_counts();
            let now = Timestamp::now().as_millisecond();
            if let Some(stored) = events_stored(&bus).await
                && let Ok(workload) = scaling.asked().await
            {
                let ready = workload.queues.values().map(|queue| queue.ready).sum();
                let sample = Sample {
                    at: now,
                    events_per_second: before
                        .and_then(|(at, former)| rate(former, stored, now - at)),
                    ready,
                    parked: workload.parked,
                    unrouted: workload.events_unrouted,
                    oldest_ready_ms: u64::try_from(workload.oldest_ready.as_millis())
                        .unwrap_or(u64::MAX),
                    ..Sample::of(counts)
                };
                self.add(sample);
                before = Some((now, stored));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock();
        if samples.len() >= MOST {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The samples of the last hour.
    pub fn all(&self) -> Vec<Sample> {
        self.0.lock().iter().cloned().collect()
    }
}

impl Sample {
    fn of(mut counts: Counts) -> Self {
        counts.latencies.sort_unstable();
        let latencies = &counts.latencies;
        let at = |part: usize| {
            let index = (latencies.len() * part).div_ceil(100).saturating_sub(1);
            latencies.get(index).copied()
        };
        Self {
            delivered: counts.delivered,
            retrying: counts.retrying,
            dead: counts.dead,
            latency_median_ms: at(50),
            latency_high_ms: at(95),
            ..Self::default()
        }
    }
}

async fn events_stored(bus: &Bus) -> Option<u64> {
    let stream = bus.jetstream().get_stream(streams::EVENTS).await.ok()?;
    Some(stream.cached_info().state.last_sequence)
}

/// `None` if the stream was recreated meanwhile.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is shown with three digits"
)]
fn rate(former: u64, now: u64, elapsed_ms: i64) -> Option<f64> {
    let stored = now.checked_sub(former)?;
    (elapsed_ms > 0).then(|| stored as f64 * 1000.0 / elapsed_ms as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_median_and_the_slowest_twentieth() {
        let counts = |latencies: Vec<u64>| Counts {
            delivered: 100,
            latencies,
            ..Counts::default()
        };
        let sample = Sample::of(counts((1..=100).rev().collect()));
        assert_eq!(sample.latency_median_ms, Some(50));
        assert_eq!(sample.latency_high_ms, Some(95));
        let one = Sample::of(counts(vec![7]));
        assert_eq!(
            (one.latency_median_ms, one.latency_high_ms),
            (Some(7), Some(7))
        );
        assert_eq!(Sample::of(counts(Vec::new())).latency_median_ms, None);
    }

    #[test]
    fn the_samples_of_an_hour_are_kept() {
        let samples = Samples::default();
        for at in 0..400 {
            samples.add(Sample {
                at,
                ..Sample::default()
            });
        }
        let kept = samples.all();
        assert_eq!((kept.len(), kept[0].at), (MOST, 40));
    }

    #[test]
    fn a_recreated_stream_has_no_rate() {
        assert_eq!(rate(100, 150, 10_000), Some(5.0));
        assert_eq!(rate(100, 10, 10_000), None);
        assert_eq!(rate(100, 100, 0), None);
    }
}
