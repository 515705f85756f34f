//! The state of EVENTS and of the server's storage, for members of a fleet.
//!
//! A member may not ask the server about the stream of all clusters. Routers and workers report
//! what it needs in the bucket `hub`, and the member reads that one record.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::bus::later_events::EventsStream;
use crate::bus::records::{Found, Records};
use crate::bus::storage::Backlog;
use crate::bus::{Bus, BusError, streams};
use crate::model::time::{between, from_proto, to_proto};
use crate::runtime::codes::log as codes;
use crate::runtime::log_pace::LogPace;
use crate::wire::EventsState;

/// The key in the bucket `hub`, which a full disk does not concern.
pub const KEY: &str = "events";
/// How often the record is written, by all routers and workers together.
const REPORT_EVERY: Duration = Duration::from_secs(3);
/// A record that does not change for this long is not written any more: no router or worker runs.
const STALE_AFTER: Duration = Duration::from_secs(15);

/// Writes the record, unless another process has just done so.
#[derive(Default)]
pub(super) struct Reporter {
    records: Option<Records>,
    reported: Option<Instant>,
    pace: LogPace,
}

impl Reporter {
    /// Writes the record if it is due. A failure is logged; the record then stays as it is. Returns
    /// whether there was no failure.
    pub(super) async fn report(&mut self, bus: &Bus, state: EventsState) -> bool {
        let is_recent = |reported: Instant| reported.elapsed() < REPORT_EVERY;
        let may_report = bus.may_publish(&crate::bus::records::subject(streams::HUB, KEY));
        if !may_report || self.reported.is_some_and(is_recent) {
            return true;
        }
        match self.store(bus, state).await {
            Ok(()) => {
                self.reported = Some(Instant::now());
                self.pace.reset();
                true
            }
            Err(error) => {
                self.records = None;
                if self.pace.is_due(&error.to_string(), Instant::now()) {
                    tracing::warn!(
                        code = codes::EVENTS_STATE_NOT_REPORTED,
                        %error,
                        "state of EVENTS not reported to members"
                    );
                }
                false
            }
        }
    }

    async fn store(&mut self, bus: &Bus, state: EventsState) -> Result<(), BusError> {
        let records = match &self.records {
            Some(records) => records.clone(),
            None => Records::open(bus, streams::HUB).await?,
        };
        self.records = Some(records.clone());
        let (stored, revision) = records.load::<EventsState>(KEY).await?;
        let stored_at = stored.and_then(|stored| from_proto(stored.at));
        let now = bus.clock().now();
        let is_recent = |at: Timestamp| at <= now && between(at, now) < REPORT_EVERY;
        if stored_at.is_some_and(is_recent) {
            return Ok(());
        }
        let state = EventsState {
            at: Some(to_proto(now)),
            ..state
        };
        // If another process was first, its record is as good.
        records.store(KEY, &state, revision).await.map(drop)
    }
}

impl Bus {
    /// Reads what routers and workers reported. `None` if none has run yet.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub(super) async fn reported_events_state(&self) -> Result<Option<EventsState>, BusError> {
        self.record(streams::HUB, KEY).await.map(Found::into_record)
    }
}

/// Which stream EVENTS is, from the record.
pub(super) fn stream_of(state: &EventsState) -> Option<EventsStream> {
    Some(EventsStream {
        created: from_proto(state.created)?,
        dedupe_interval: Duration::from_millis(state.dedupe_interval_ms),
    })
}

/// The record of a backlog and of the storage.
pub(super) fn to_state(
    stream: EventsStream,
    backlog: &Backlog,
    (storage_used, storage_limit): (u64, Option<u64>),
    write_error: Option<String>,
) -> EventsState {
    EventsState {
        created: Some(to_proto(stream.created)),
        dedupe_interval_ms: milliseconds(stream.dedupe_interval),
        messages: backlog.messages,
        bytes: backlog.bytes,
        max_bytes: backlog.max_bytes,
        last_sequence: backlog.last_sequence,
        routed_up_to: backlog.routed_up_to,
        oldest_unrouted_ms: milliseconds(backlog.oldest_unrouted),
        max_age_ms: milliseconds(backlog.max_age),
        storage_used,
        storage_limit: storage_limit.unwrap_or_default(),
        write_error: write_error.unwrap_or_default(),
        at: None,
    }
}

/// The backlog in a record that has not changed for some time. While no router or worker runs,
/// nothing is routed, and what was stored since gets older.
pub(super) fn to_backlog(state: &EventsState, unchanged_for: Duration) -> Backlog {
    let backlog = Backlog {
        messages: state.messages,
        bytes: state.bytes,
        max_bytes: state.max_bytes,
        last_sequence: state.last_sequence,
        routed_up_to: state.routed_up_to,
        oldest_unrouted: Duration::from_millis(state.oldest_unrouted_ms),
        max_age: Duration::from_millis(state.max_age_ms),
    };
    if unchanged_for < STALE_AFTER {
        return backlog;
    }
    Backlog {
        messages: backlog.messages.max(1),
        last_sequence: backlog.last_sequence.max(backlog.routed_up_to + 1),
        oldest_unrouted: backlog.oldest_unrouted.saturating_add(unchanged_for),
        ..backlog
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::storage::Storage;

    const HOUR: Duration = Duration::from_secs(3600);

    fn state() -> EventsState {
        let stream = EventsStream {
            created: Timestamp::constant(10, 0),
            dedupe_interval: Duration::from_secs(300),
        };
        let backlog = Backlog {
            messages: 7,
            bytes: 700,
            max_bytes: 1000,
            last_sequence: 9,
            routed_up_to: 9,
            oldest_unrouted: Duration::ZERO,
            max_age: 72 * HOUR,
        };
        to_state(stream, &backlog, (5, Some(10)), None)
    }

    #[test]
    fn a_record_holds_what_a_member_needs() {
        let state = state();
        let stream = stream_of(&state).unwrap();
        assert_eq!(stream.created, Timestamp::constant(10, 0));
        assert_eq!(stream.dedupe_interval, Duration::from_secs(300));
        let backlog = to_backlog(&state, Duration::ZERO);
        assert_eq!((backlog.last_sequence, backlog.routed_up_to), (9, 9));
        assert_eq!((state.storage_used, state.storage_limit), (5, 10));
    }

    #[test]
    fn events_get_older_while_no_router_runs() {
        let storage = Storage::default();
        for (unchanged_for, is_near) in [
            (Duration::ZERO, false),
            (57 * HOUR, false),
            (58 * HOUR, true),
        ] {
            storage.note_backlog(&to_backlog(&state(), unchanged_for));
            assert_eq!(storage.eviction_is_near(), is_near, "{unchanged_for:?}");
        }
    }
}
