//! The newest state of a key wins: what to do with one that comes in, as a pure decision.
//!
//! ```text
//!  delivery ─► merge into `desired` ─► older than what is posted: superseded
//!                     │                 same as what is posted:  duplicate
//!                     │                 somebody else writes:    wait
//!                     └────────────────► lease the record, write `desired`, note it as posted
//! ```
//!
//! While a write is under way nothing counts as posted: after a crash, a time-out or a stale writer the state is written
//! once more rather than believed.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::wire::{Desired, Order, Record};
use tidings_core::{Event, Timestamp as ProtoTimestamp};

/// A sender's clock may be ahead of receipt by this much; beyond, receipt counts.
const MOST_AHEAD_MS: i64 = 60_000;

/// What to do with a state that comes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A newer state is posted.
    Superseded,
    /// The same state is posted; the record only notes that it is still wanted, where that is news.
    Duplicate(Option<Record>),
    /// Somebody else is writing; look again after this long. The record notes the state, where it is newer.
    Wait(Duration, Option<Record>),
    /// Store this record, which holds the lease, then write its `desired`.
    Write(Record),
}

/// Who wants to write, and for how long.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Unique for each attempt.
    pub holder: String,
    /// Longer than a write can take.
    pub lasts: Duration,
}

/// The place of an event's state in time: the sender's clock, but not far ahead of ours; then the stream's sequence.
pub fn order(event: &Event, sequence: u64) -> Order {
    let milliseconds = |time: &ProtoTimestamp| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000;
    let received = event.received_at.as_ref().map_or(0, milliseconds);
    let happened = event.timestamp.as_ref().map_or(received, milliseconds);
    Order { time_ms: happened.min(received + MOST_AHEAD_MS), sequence }
}

/// Decides about a state. `record` is what is known of its key, `now` the server's time.
pub fn step(record: Option<&Record>, mine: &Desired, lease: &Lease, now: Timestamp) -> Step {
    let mut record = record.cloned().unwrap_or_default();
    let is_newer = record.desired.as_ref().is_none_or(|desired| place(desired) < place(mine));
    if is_newer {
        record.desired = Some(mine.clone());
    }
    let desired = record.desired.clone().unwrap_or_default();
    if record.posted.is_some() && record.posted_state == desired.state {
        if place(&desired) > place(mine) {
            return Step::Superseded;
        }
        record.posted = desired.order;
        return Step::Duplicate(is_newer.then_some(record));
    }
    if let Some(wait) = foreign_lease(&record, lease, now) {
        return Step::Wait(wait, is_newer.then_some(record));
    }
    Step::Write(leased(record, lease, now))
}

/// The record once `written` has been accepted: `None` where it moved or the lease ran out meanwhile, so that the present
/// `desired` must be written again.
pub fn posted(record: &Record, written: &Desired, handle: Option<String>, lease: &Lease, now: Timestamp) -> Option<Record> {
    let is_mine = record.lease_holder == lease.holder && until(record) > now;
    if !is_mine || record.desired.as_ref().map(|desired| &desired.state) != Some(&written.state) {
        return None;
    }
    Some(Record {
        posted: record.desired.as_ref().and_then(|desired| desired.order),
        posted_state: written.state.clone(),
        handle: handle.unwrap_or_else(|| record.handle.clone()),
        lease_holder: String::new(),
        lease_until: None,
        read: true,
        ..record.clone()
    })
}

/// The record with the lease taken or prolonged: nothing counts as posted until the write is known.
pub fn leased(record: Record, lease: &Lease, now: Timestamp) -> Record {
    let until = now.checked_add(lease.lasts).unwrap_or(Timestamp::MAX);
    let lease_until = ProtoTimestamp { seconds: until.as_second(), nanos: until.subsec_nanosecond() };
    Record { posted: None, lease_holder: lease.holder.clone(), lease_until: Some(lease_until), ..record }
}

/// How long somebody else's lease still holds.
pub fn foreign_lease(record: &Record, lease: &Lease, now: Timestamp) -> Option<Duration> {
    let is_foreign = !record.lease_holder.is_empty() && record.lease_holder != lease.holder;
    let left = Duration::try_from(until(record).duration_since(now)).unwrap_or_default();
    (is_foreign && !left.is_zero()).then_some(left)
}

fn until(record: &Record) -> Timestamp {
    record.lease_until.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn place(desired: &Desired) -> (i64, u64) {
    desired.order.map_or((i64::MIN, 0), |order| (order.time_ms, order.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(time_ms: i64, state: &str) -> Desired {
        Desired { order: Some(Order { time_ms, sequence: 1 }), state: state.into(), delivery_id: String::new() }
    }

    fn lease(holder: &str) -> Lease {
        Lease { holder: holder.into(), lasts: Duration::from_secs(30) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The record after `mine` was written and noted at second 1000.
    fn posted_record(mine: &Desired) -> Record {
        let Step::Write(record) = step(None, mine, &lease("a"), at(1000)) else { panic!("must write") };
        posted(&record, mine, None, &lease("a"), at(1001)).expect("nothing moved")
    }

    #[test]
    fn a_first_state_is_written_and_noted() {
        let record = posted_record(&desired(5, "ok"));
        assert_eq!((record.posted_state.as_slice(), record.lease_holder.as_str()), (b"ok".as_slice(), ""));
    }

    #[test]
    fn the_same_state_again_is_a_duplicate_and_an_older_one_is_superseded() {
        let record = posted_record(&desired(5, "ok"));
        let Step::Duplicate(Some(newer)) = step(Some(&record), &desired(9, "ok"), &lease("b"), at(2000)) else { panic!() };
        assert_eq!(step(Some(&newer), &desired(7, "failed"), &lease("b"), at(2000)), Step::Superseded);
        assert_eq!(step(Some(&record), &desired(5, "ok"), &lease("b"), at(2000)), Step::Duplicate(None));
        assert_eq!(step(Some(&record), &desired(4, "ok"), &lease("b"), at(2000)), Step::Superseded);
    }

    #[test]
    fn a_change_and_the_change_back_are_both_written() {
        let record = posted_record(&desired(5, "ok"));
        let Step::Write(record) = step(Some(&record), &desired(6, "failed"), &lease("b"), at(2000)) else { panic!() };
        let record = posted(&record, &desired(6, "failed"), None, &lease("b"), at(2001)).unwrap();
        assert!(matches!(step(Some(&record), &desired(7, "ok"), &lease("b"), at(2002)), Step::Write(_)));
    }

    #[test]
    fn while_another_writes_a_state_waits_but_is_noted() {
        let Step::Write(record) = step(None, &desired(5, "ok"), &lease("a"), at(1000)) else { panic!() };
        let Step::Wait(wait, Some(record)) = step(Some(&record), &desired(6, "failed"), &lease("b"), at(1010)) else { panic!() };
        assert_eq!(wait, Duration::from_secs(20));
        assert_eq!(posted(&record, &desired(5, "ok"), None, &lease("a"), at(1011)), None, "the record has moved");
        let Step::Write(record) = step(Some(&record), &desired(5, "ok"), &lease("b"), at(1031)) else { panic!() };
        assert_eq!(record.desired.unwrap().state, b"failed", "a wake-up writes the newest state, whoever brings it");
    }

    #[test]
    fn a_write_whose_lease_ran_out_does_not_count() {
        let mine = desired(5, "ok");
        let Step::Write(record) = step(None, &mine, &lease("a"), at(1000)) else { panic!() };
        assert_eq!(posted(&record, &mine, None, &lease("a"), at(1030)), None);
    }

    #[test]
    fn a_write_of_unknown_end_is_not_believed() {
        let record = posted_record(&desired(5, "ok"));
        let Step::Write(record) = step(Some(&record), &desired(6, "failed"), &lease("a"), at(2000)) else { panic!() };
        assert!(matches!(step(Some(&record), &desired(7, "ok"), &lease("b"), at(2031)), Step::Write(_)));
    }

    #[test]
    fn a_clock_that_is_far_ahead_counts_as_receipt_and_a_minute() {
        let time = |seconds| Some(ProtoTimestamp { seconds, nanos: 0 });
        let event = |happened| Event { timestamp: happened, received_at: time(1000), ..Event::default() };
        for (happened, time_ms) in
            [(time(900), 900_000), (time(1030), 1_030_000), (time(4_070_908_800), 1_060_000), (None, 1_000_000)]
        {
            assert_eq!(order(&event(happened), 7), Order { time_ms, sequence: 7 });
        }
    }
}
