//! The quota of a cluster: how many events and bytes it may store in a second.
//!
//! Operators of the hub set it in the record of the cluster (`tidings fleet`). Each ingest reads it
//! and refuses what exceeds it, so a storm of one cluster does not fill the queue of all. Quotas
//! hold for one process: two ingests of a cluster may store twice as much.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::bus::Bus;
use tidings_core::bus::records::Found;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::log_pace::LogPace;
use tidings_core::wire::{Cluster, EdgeQuota};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A cluster that was silent may send as much at once as its quota allows in this time.
const BURST: Duration = Duration::from_secs(10);
/// How often the record of the cluster is read.
const READ_EVERY: Duration = Duration::from_secs(5);

/// Limits for a second; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    events: u64,
    bytes: u64,
}

/// What a cluster may still store.
#[derive(Clone, Default)]
pub struct Quota {
    state: Arc<Mutex<State>>,
    /// The own server of an edge, which records the quota there.
    edge: Option<Bus>,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    events: Bucket,
    bytes: Bucket,
}

/// A token bucket.
#[derive(Debug, Default)]
struct Bucket {
    /// The tokens of a second; 0 for no limit.
    rate: u64,
    /// What is left. Below 0 after an event that is larger than what was left.
    level: f64,
    filled: Option<Instant>,
}

impl Quota {
    /// The quota of an edge: the one that it recorded last, until that of the hub is read. Changes
    /// are recorded on its own server.
    pub fn of_edge(edge: Bus, last: EdgeQuota) -> Self {
        let quota = Self {
            edge: Some(edge),
            ..Self::default()
        };
        let last = Limits {
            events: last.events_per_second,
            bytes: last.bytes_per_second,
        };
        quota.state.lock().set(last, Instant::now());
        quota
    }

    /// Takes an event of this size out of the quota.
    ///
    /// # Errors
    /// The quota is used up for this time.
    pub fn take(&self, bytes: usize) -> Result<(), Duration> {
        self.state.lock().take(bytes, Instant::now())
    }

    /// Reads the quota of a cluster again and again until `stop`. While it cannot be read, and
    /// after the bucket was deleted, the last one stays in effect.
    pub async fn follow(self, bus: Bus, cluster: String, stop: CancellationToken) {
        let mut kept = self.state.lock().limits;
        let mut pace = LogPace::default();
        loop {
            let read = match bus.cluster(&cluster).await {
                Ok(Found::Record(record)) => Some(Limits::of(&record)),
                Ok(Found::Removed) => Some(Limits::default()),
                // A bucket that was deleted and is empty again ends no quota.
                Ok(Found::Missing) | Err(_) => None,
            };
            if let Some(limits) = read {
                self.keep(limits, &mut kept, &mut pace).await;
                self.change(limits, &cluster);
            }
            let pause = tokio::time::sleep(READ_EVERY);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn change(&self, limits: Limits, cluster: &str) {
        {
            let mut state = self.state.lock();
            if state.limits == limits {
                return;
            }
            state.set(limits, Instant::now());
        }
        tracing::info!(
            code = codes::QUOTA_CHANGED,
            cluster,
            events_per_second = limits.events,
            bytes_per_second = limits.bytes,
            "quota of the cluster"
        );
    }

    /// Records the quota on the own server of an edge, if it is not recorded.
    async fn keep(&self, limits: Limits, kept: &mut Limits, pace: &mut LogPace) {
        let Some(edge) = self.edge.as_ref().filter(|_| *kept != limits) else {
            return;
        };
        let quota = EdgeQuota {
            events_per_second: limits.events,
            bytes_per_second: limits.bytes,
        };
        match edge.keep_edge_quota(&quota).await {
            Ok(()) => *kept = limits,
            Err(error) if pace.is_due(&error.to_string(), std::time::Instant::now()) => {
                tracing::warn!(
                    code = codes::EDGE_QUOTA_NOT_KEPT,
                    %error,
                    "the quota is not recorded on the edge, retrying"
                );
            }
            Err(_) => {}
        }
    }
}

impl Limits {
    fn of(cluster: &Cluster) -> Self {
        Self {
            events: cluster.events_per_second,
            bytes: cluster.bytes_per_second,
        }
    }
}

impl State {
    fn set(&mut self, limits: Limits, now: Instant) {
        self.limits = limits;
        self.events.set(limits.events, now);
        self.bytes.set(limits.bytes, now);
    }

    fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Duration> {
        let wait = self.events.wait(now).max(self.bytes.wait(now));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.events.level -= 1.0;
        self.bytes.level -= bytes as f64;
        Ok(())
    }
}

impl Bucket {
    fn set(&mut self, rate: u64, now: Instant) {
        if self.rate != rate {
            *self = Self {
                rate,
                level: full(rate),
                filled: Some(now),
            };
        }
    }

    /// Adds the tokens of the time since the last call. Returns how long none is left.
    fn wait(&mut self, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let rate = self.rate as f64;
        let since = now.duration_since(self.filled.unwrap_or(now));
        self.level = (self.level + rate * since.as_secs_f64()).min(full(self.rate));
        self.filled = Some(now);
        match self.level > 0.0 {
            true => Duration::ZERO,
            // Up to the next token. A level of exactly 0 waits, too.
            false => Duration::from_secs_f64((1.0 - self.level) / rate),
        }
    }
}

fn full(rate: u64) -> f64 {
    rate as f64 * BURST.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(events: u64, bytes: u64) -> (State, Instant) {
        let (mut state, now) = (State::default(), Instant::now());
        state.set(Limits { events, bytes }, now);
        (state, now)
    }

    #[test]
    fn a_cluster_without_a_quota_stores_everything() {
        let (mut state, now) = state(0, 0);
        assert!((0..100_000).all(|_| state.take(1 << 20, now).is_ok()));
    }

    #[test]
    fn a_burst_of_ten_seconds_is_stored_and_then_the_rate() {
        let (mut state, now) = state(5, 0);
        assert!((0..50).all(|_| state.take(1, now).is_ok()));
        assert_eq!(state.take(1, now), Err(Duration::from_millis(200)));
        let later = now + Duration::from_secs(2);
        assert!((0..10).all(|_| state.take(1, later).is_ok()));
        assert!(state.take(1, later).is_err());
    }

    #[test]
    fn an_event_that_is_larger_than_the_rest_is_stored_and_the_next_one_waits() {
        let (mut state, now) = state(0, 1000);
        assert_eq!(state.take(15_000, now), Ok(()));
        let wait = state.take(1, now).unwrap_err();
        assert_eq!(wait.as_secs(), 5);
        assert_eq!(state.take(1, now + Duration::from_secs(6)), Ok(()));
    }

    #[test]
    fn a_change_of_one_limit_keeps_the_level_of_the_other() {
        let (mut state, now) = state(1, 100);
        assert!((0..10).all(|_| state.take(1, now).is_ok()));
        let limits = Limits {
            events: 1,
            bytes: 200,
        };
        state.set(limits, now);
        assert!(state.take(1, now).is_err());
    }
}
