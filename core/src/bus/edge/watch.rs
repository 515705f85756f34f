//! Samples the stream of an edge, and deletes the events that the hub has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::EdgeState;
use crate::bus::watch::StreamInfo;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::runtime::codes::log as codes;
use crate::runtime::health::Check;
use crate::runtime::log_pace::LogPace;
use crate::runtime::metrics::Metrics;

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Forwarded events are deleted at once while the stream uses more of its limit. Until then they
/// stay for the dedupe interval, so that a restarted server still knows duplicates.
const ROOMY_BELOW: f64 = 0.5;
/// How often the sequence is noted up to which events are forwarded.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Samples the stream every second.
pub struct EdgeWatch {
    edge: Bus,
    state: Arc<EdgeState>,
    metrics: Metrics,
    forwarded: Forwarded,
    pace: LogPace,
}

/// When which events were forwarded.
#[derive(Debug, Default)]
struct Forwarded {
    marks: VecDeque<(Instant, u64)>,
    /// Events up to this sequence are deleted.
    deleted: u64,
}

impl EdgeWatch {
    /// Creates a watch of the edge's own server.
    pub fn new(edge: Bus, state: Arc<EdgeState>, metrics: Metrics) -> Self {
        Self {
            edge,
            state,
            metrics,
            forwarded: Forwarded::default(),
            pace: LogPace::default(),
        }
    }

    /// Samples once, then in the background until `stop`. `check` fails while the stream cannot be
    /// used.
    pub async fn start(mut self, check: Check, stop: CancellationToken) {
        self.sample(&check).await;
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::spawn(async move {
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                stop.run_until_cancelled(self.sample(&check)).await;
            }
        });
    }

    async fn sample(&mut self, check: &Check) {
        let info = match self.edge.is_connected() {
            true => self.edge.stream_info(streams::EVENTS).await,
            false => Err("not connected to the nats-server of the edge".to_owned()),
        };
        self.metrics.bus_up.set(info.is_ok().into());
        let info = match info {
            Ok(info) => info,
            Err(trouble) => return check.fail(trouble),
        };
        check.succeed();
        self.note(&info).await;
        if let Err(error) = self.delete_forwarded(&info).await
            && self.pace.is_due(&error.to_string(), Instant::now())
        {
            tracing::warn!(
                code = codes::EDGE_EVENTS_NOT_DELETED,
                %error,
                "events that the hub has are not deleted from the edge, retrying"
            );
        }
    }

    async fn note(&self, info: &StreamInfo) {
        let limit = u64::try_from(info.config.max_bytes).ok();
        self.edge.storage().note_used(info.bytes(), limit);
        let used = self.edge.storage().used();
        self.metrics.bus_storage_used_ratio.set(used);
        let (last, forwarded) = (info.last_sequence(), self.state.forwarded());
        let waiting = last.saturating_sub(forwarded.max(info.first_sequence().saturating_sub(1)));
        let oldest = self.edge.age_of(last - waiting + 1, last).await;
        self.state.note_backlog(waiting, oldest);
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics.edge_events_waiting.set(waiting);
        let oldest = oldest.as_secs_f64();
        self.metrics.edge_oldest_waiting_seconds.set(oldest);
    }

    async fn delete_forwarded(&mut self, info: &StreamInfo) -> Result<(), BusError> {
        let keep_for = match self.edge.storage().used() < ROOMY_BELOW {
            true => info.config.duplicate_window,
            false => Duration::ZERO,
        };
        let forwarded = self.state.forwarded();
        let due = self.forwarded.due(forwarded, keep_for, Instant::now());
        let Some(up_to) = due.filter(|up_to| *up_to >= info.first_sequence()) else {
            return Ok(());
        };
        let stream = self
            .edge
            .jetstream()
            .get_stream_no_info(streams::EVENTS)
            .await;
        let stream = stream.map_err(unavailable)?;
        let purged = stream.purge().sequence(up_to + 1).await;
        purged.map_err(unavailable)?;
        self.forwarded.deleted = up_to;
        self.pace.reset();
        Ok(())
    }
}

impl Forwarded {
    /// Notes up to which sequence events are forwarded. Returns up to which they may be deleted:
    /// those that were forwarded this long ago.
    fn due(&mut self, forwarded: u64, keep_for: Duration, now: Instant) -> Option<u64> {
        let is_new = self.marks.back().is_none_or(|(at, sequence)| {
            *sequence < forwarded && now.duration_since(*at) >= MARK_EVERY
        });
        if is_new && forwarded > self.deleted {
            self.marks.push_back((now, forwarded));
        }
        let mut due = None;
        while let Some((at, sequence)) = self.marks.front().copied()
            && now.duration_since(at) >= keep_for
        {
            due = Some(sequence);
            self.marks.pop_front();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_events_stay_for_a_time() {
        let (mut forwarded, start) = (Forwarded::default(), Instant::now());
        let second = |second| start + Duration::from_secs(second);
        let minute = Duration::from_secs(60);
        assert_eq!(forwarded.due(5, minute, second(0)), None);
        assert_eq!(forwarded.due(9, minute, second(30)), None);
        assert_eq!(forwarded.due(9, minute, second(60)), Some(5));
        assert_eq!(forwarded.due(9, minute, second(89)), None);
        assert_eq!(forwarded.due(9, minute, second(90)), Some(9));
        assert_eq!(forwarded.due(12, Duration::ZERO, second(91)), Some(12));
    }
}
