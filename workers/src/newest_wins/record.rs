//! The newest state of a key wins: what to do with one that comes in, as a pure decision.
//!
//! ```text
//!  delivery ─► merge into `desired` ─► older than what is posted: superseded
//!                     │                 same as what is posted:  duplicate
//!                     │                 somebody else writes:    wait
//!                     └────────────────► lease the record, write `desired`, note it as posted
//! ```
//!
//! While a write is under way nothing counts as posted: after a crash, a time-out or a stale writer
//! the state is written once more rather than believed.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::Event;
use tidings_core::model::time::{after, between, from_proto, proto_ms, to_proto};
use tidings_core::wire::{Desired, Order, Record};

/// A sender's clock may be ahead of receipt by this much; beyond, receipt counts.
const MOST_AHEAD_MS: i64 = 60_000;

/// What to do with a state that comes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A newer state is posted.
    Superseded,
    /// The same state is posted; the record only notes that it is still wanted, where that is news.
    Duplicate(Option<Record>),
    /// Somebody else is writing; look again after this long. The record notes the state, where it
    /// is newer.
    Wait(Duration, Option<Record>),
    /// Store this record, which holds the lease, then write its `desired`.
    Write(Record),
}

/// Who wants to write, and for how long.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Unique for each attempt.
    pub holder: String,
    /// Longer than asking and writing can take.
    pub lasts: Duration,
    /// The longest that a write alone can take: with less left of the lease, none is begun.
    pub write: Duration,
}

/// The place of an event's state in time: the sender's clock, but not far ahead of ours; then the
/// stream's sequence.
pub fn order(event: &Event, sequence: u64) -> Order {
    let received = proto_ms(event.received_at);
    let happened = event
        .timestamp
        .map_or(received, |time| proto_ms(Some(time)));
    Order {
        time_ms: happened.min(received + MOST_AHEAD_MS),
        sequence,
    }
}

/// Decides about a state. `record` is what is known of its key, `newest` the newest state that is
/// known otherwise (`mine`, mostly), `now` the server's time.
pub fn step(
    record: Option<&Record>,
    newest: &Desired,
    mine: &Desired,
    lease: &Lease,
    now: Timestamp,
) -> Step {
    let mut record = record.cloned().unwrap_or_default();
    let is_news = merge(&mut record, newest);
    let desired = record.desired.clone().unwrap_or_default();
    if is_posted(&record, &desired.state) {
        if place(&desired) > place(mine) || desired.state != mine.state {
            return Step::Superseded;
        }
        record.posted = desired.order;
        return Step::Duplicate(is_news.then_some(record));
    }
    if let Some(wait) = foreign_lease(&record, lease, now) {
        return Step::Wait(wait, is_news.then_some(record));
    }
    Step::Write(leased(record, lease, now))
}

/// Notes a state in the record, if it is newer; whether it was.
pub fn merge(record: &mut Record, desired: &Desired) -> bool {
    let is_newer = record
        .desired
        .as_ref()
        .is_none_or(|known| place(known) < place(desired));
    if is_newer {
        record.desired = Some(desired.clone());
    }
    is_newer
}

/// Whether the service is known to hold a state.
pub fn is_posted(record: &Record, state: &[u8]) -> bool {
    record.posted.is_some() && record.posted_state == state
}

/// The record once `written` has been accepted: `None` where another has taken the lease, or
/// another state is desired by now, so that the present `desired` must be written again.
///
/// A lease that ran out and was taken by nobody is still ours: nobody can have written since.
pub fn posted(record: &Record, written: &Desired, lease: &Lease) -> Option<Record> {
    let desired = record.desired.as_ref()?;
    if record.lease_holder != lease.holder || record.doubted || desired.state != written.state {
        return None;
    }
    let (posted, posted_state) = (desired.order, written.state.clone());
    Some(Record {
        posted,
        posted_state,
        read: true,
        ..freed(record.clone())
    })
}

/// The record with the lease taken or prolonged: nothing counts as posted until the write is known.
pub fn leased(record: Record, lease: &Lease, now: Timestamp) -> Record {
    let lease_until = to_proto(after(now, lease.lasts));
    Record {
        posted: None,
        doubted: false,
        lease_holder: lease.holder.clone(),
        lease_until: Some(lease_until),
        ..record
    }
}

/// The record without a lease.
pub fn freed(record: Record) -> Record {
    Record {
        lease_holder: String::new(),
        lease_until: None,
        ..record
    }
}

/// The record after a write that may have come after somebody else's: what they have noted, or are
/// about to note, must not stand.
pub fn doubted(record: Record) -> Record {
    Record {
        posted: None,
        doubted: true,
        ..record
    }
}

/// How long somebody else's lease still holds.
pub fn foreign_lease(record: &Record, lease: &Lease, now: Timestamp) -> Option<Duration> {
    let is_foreign = !record.lease_holder.is_empty() && record.lease_holder != lease.holder;
    let left = left(record, now);
    (is_foreign && !left.is_zero()).then_some(left)
}

/// Whether enough is left of our own lease for a write.
pub fn allows_a_write(record: &Record, lease: &Lease, now: Timestamp) -> bool {
    record.lease_holder == lease.holder && left(record, now) >= lease.write
}

fn left(record: &Record, now: Timestamp) -> Duration {
    from_proto(record.lease_until).map_or(Duration::ZERO, |until| between(now, until))
}

fn place(desired: &Desired) -> (i64, u64) {
    desired
        .order
        .map_or((i64::MIN, 0), |order| (order.time_ms, order.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(time_ms: i64, state: &str) -> Desired {
        Desired {
            order: Some(Order {
                time_ms,
                sequence: 1,
            }),
            state: state.into(),
            ..Desired::default()
        }
    }

    fn lease(holder: &str) -> Lease {
        Lease {
            holder: holder.into(),
            lasts: Duration::from_secs(30),
            write: Duration::from_secs(5),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn decide(record: Option<&Record>, mine: &Desired, holder: &str, second: i64) -> Step {
        step(record, mine, mine, &lease(holder), at(second))
    }

    /// The record after `mine` was written and noted at second 1000.
    fn posted_record(mine: &Desired) -> Record {
        let Step::Write(record) = decide(None, mine, "a", 1000) else {
            panic!("must write")
        };
        posted(&record, mine, &lease("a")).expect("nothing moved")
    }

    #[test]
    fn a_first_state_is_written_and_noted() {
        let record = posted_record(&desired(5, "ok"));
        assert_eq!(
            (record.posted_state.as_slice(), record.lease_holder.as_str()),
            (b"ok".as_slice(), "")
        );
    }

    #[test]
    fn the_same_state_again_is_a_duplicate_and_an_older_one_is_superseded() {
        let record = posted_record(&desired(5, "ok"));
        let Step::Duplicate(Some(newer)) = decide(Some(&record), &desired(9, "ok"), "b", 2000)
        else {
            panic!()
        };
        assert_eq!(
            decide(Some(&newer), &desired(7, "failed"), "b", 2000),
            Step::Superseded
        );
        assert_eq!(
            decide(Some(&record), &desired(5, "ok"), "b", 2000),
            Step::Duplicate(None)
        );
        assert_eq!(
            decide(Some(&record), &desired(4, "ok"), "b", 2000),
            Step::Superseded
        );
        assert_eq!(
            decide(Some(&record), &desired(5, "told otherwise"), "b", 2000),
            Step::Superseded,
            "of one event the first"
        );
    }

    #[test]
    fn a_change_and_the_change_back_are_both_written() {
        let record = posted_record(&desired(5, "ok"));
        let Step::Write(record) = decide(Some(&record), &desired(6, "failed"), "b", 2000) else {
            panic!()
        };
        let record = posted(&record, &desired(6, "failed"), &lease("b")).unwrap();
        assert!(matches!(
            decide(Some(&record), &desired(7, "ok"), "b", 2002),
            Step::Write(_)
        ));
    }

    #[test]
    fn while_another_writes_a_state_waits_but_is_noted() {
        let Step::Write(record) = decide(None, &desired(5, "ok"), "a", 1000) else {
            panic!()
        };
        let Step::Wait(wait, Some(record)) =
            decide(Some(&record), &desired(6, "failed"), "b", 1010)
        else {
            panic!()
        };
        assert_eq!(wait, Duration::from_secs(20));
        assert_eq!(
            posted(&record, &desired(5, "ok"), &lease("a")),
            None,
            "the record has moved"
        );
        let Step::Write(record) = decide(Some(&record), &desired(5, "ok"), "b", 1031) else {
            panic!()
        };
        assert_eq!(
            record.desired.unwrap().state,
            b"failed",
            "a wake-up writes the newest state, whoever brings it"
        );
    }

    #[test]
    fn a_write_whose_lease_was_taken_does_not_count() {
        let mine = desired(5, "ok");
        let Step::Write(first) = decide(None, &mine, "a", 1000) else {
            panic!()
        };
        assert!(
            posted(&first, &mine, &lease("a")).is_some(),
            "nobody else can have written"
        );
        let Step::Write(second) = decide(Some(&first), &mine, "b", 1031) else {
            panic!()
        };
        assert_eq!(posted(&second, &mine, &lease("a")), None);
        assert_eq!(
            posted(&doubted(second), &mine, &lease("b")),
            None,
            "another's late write may have come after it"
        );
    }

    #[test]
    fn a_write_of_unknown_end_is_not_believed() {
        let record = posted_record(&desired(5, "ok"));
        let Step::Write(record) = decide(Some(&record), &desired(6, "failed"), "a", 2000) else {
            panic!()
        };
        assert!(matches!(
            decide(Some(&record), &desired(7, "ok"), "b", 2031),
            Step::Write(_)
        ));
    }

    #[test]
    fn no_write_is_begun_with_too_little_left_of_the_lease() {
        let Step::Write(record) = decide(None, &desired(5, "ok"), "a", 1000) else {
            panic!()
        };
        assert!(allows_a_write(&record, &lease("a"), at(1025)));
        assert!(!allows_a_write(&record, &lease("a"), at(1026)));
        assert!(!allows_a_write(&record, &lease("b"), at(1000)));
    }

    #[test]
    fn a_clock_that_is_far_ahead_counts_as_receipt_and_a_minute() {
        let time = |seconds| Some(to_proto(at(seconds)));
        let event = |happened| Event {
            timestamp: happened,
            received_at: time(1000),
            ..Event::default()
        };
        for (happened, time_ms) in [
            (time(900), 900_000),
            (time(1030), 1_030_000),
            (time(4_070_908_800), 1_060_000),
            (None, 1_000_000),
        ] {
            assert_eq!(
                order(&event(happened), 7),
                Order {
                    time_ms,
                    sequence: 7
                }
            );
        }
    }
}
