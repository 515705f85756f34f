//! The record of a state: what to do with a delivery of its key, as a pure decision.
//!
//! ```text
//!  delivery ─► merge into `desired` ─► older than the posted state:    superseded
//!                     │                 same as the posted state:      duplicate
//!                     │                 another delivery is writing:   wait
//!                     └────────────────► store a lease, write `desired`, store it as posted
//! ```
//!
//! While a write is in flight, no state counts as posted. After a crash, a timeout or a stale
//! writer the state is written once more, because the service may hold either state.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::Event;
use tidings_core::bus::stream_history::StreamHistory;
use tidings_core::model::time::{after, between, from_proto, proto_ms, to_proto};
use tidings_core::model::{object_state, process_lease};
use tidings_core::wire::{Desired, Holder, Order, Record};

/// What to do with a delivery that carries a state.
#[derive(Clone, Debug, PartialEq)]
pub enum StateDecision {
    /// A newer state is posted.
    Superseded,
    /// The same state is posted. The record, if there is one, notes that it is desired again.
    Duplicate(Option<Record>),
    /// Another delivery is writing: retry after this long. The record, if there is one, notes a
    /// newer state.
    Wait(Duration, Option<Record>),
    /// Store this record, which holds the lease, then write its `desired`.
    Write(Record),
}

/// The right to write the states of a key, for a while.
#[derive(Clone, Debug)]
pub struct WriteLease {
    /// Unique for each attempt.
    pub holder: String,
    /// The id of its process. The lease ends with the process.
    pub process: String,
    /// The length of the lease: longer than reading and writing can take.
    pub lasts: Duration,
    /// The longest that a write can take. No write begins if less than this is left of the lease.
    pub write: Duration,
}

/// The order of an event's state: the sender's clock, bounded by the time of receipt; then the
/// epoch of the stream; then the sequence in the stream.
pub fn order(event: &Event, sequence: u64, history: &StreamHistory) -> Order {
    let received_ms = proto_ms(event.received_at);
    Order {
        time_ms: object_state::time_ms(event),
        sequence,
        received_ms,
        epoch_ms: history.epoch_ms(received_ms),
    }
}

/// Decides about the state `mine`. `newest` is the newest state that the attempt has seen, usually
/// `mine`; `now` is the server's time.
pub fn decide(
    record: Option<&Record>,
    newest: &Desired,
    mine: &Desired,
    lease: &WriteLease,
    now: Timestamp,
) -> StateDecision {
    let mut record = record.cloned().unwrap_or_default();
    let is_changed = merge(&mut record, newest);
    let desired = record.desired.clone().unwrap_or_default();
    if is_posted(&record, &desired.state) {
        if compare(&desired, mine).is_gt() || desired.state != mine.state {
            return StateDecision::Superseded;
        }
        record.posted = desired.order;
        return StateDecision::Duplicate(is_changed.then_some(record));
    }
    if let Some(wait) = foreign_lease(&record, lease, now) {
        return StateDecision::Wait(wait, is_changed.then_some(record));
    }
    StateDecision::Write(leased(record, lease, now))
}

/// Merges a state into the record. Returns whether it is newer than the desired one.
pub fn merge(record: &mut Record, desired: &Desired) -> bool {
    let present = record.desired.as_ref();
    let is_newer = present.is_none_or(|present| compare(present, desired).is_lt());
    if is_newer {
        record.desired = Some(desired.clone());
    }
    is_newer
}

/// Whether the service is known to hold a state.
pub fn is_posted(record: &Record, state: &[u8]) -> bool {
    record.posted.is_some() && record.posted_state == state
}

/// The record after the service accepted `written`. `None` if another delivery has taken the lease,
/// or if another state is desired now. Then `desired` must be written.
///
/// An expired lease that no other delivery has taken is still ours, because no other delivery can
/// have written since.
pub fn posted(record: &Record, written: &Desired, lease: &WriteLease) -> Option<Record> {
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

/// The record with the lease taken or extended. Nothing counts as posted until the write has ended.
pub fn leased(record: Record, lease: &WriteLease, now: Timestamp) -> Record {
    let lease_until = to_proto(after(now, lease.lasts));
    Record {
        posted: None,
        doubted: false,
        lease_holder: lease.holder.clone(),
        lease_until: Some(lease_until),
        lease_process: Some(process_lease::holder(&lease.process, now)),
        ..record
    }
}

/// The record without a lease.
pub fn freed(record: Record) -> Record {
    Record {
        lease_holder: String::new(),
        lease_until: None,
        lease_process: None,
        ..record
    }
}

/// The record if the service may have another state than was recorded: it is read again.
pub fn unconfirmed(record: Record) -> Record {
    Record {
        posted: None,
        read: false,
        ..record
    }
}

/// The record after a write that may have come after another delivery's write. What that delivery
/// stores as posted does not count.
pub fn doubted(record: Record) -> Record {
    Record {
        posted: None,
        doubted: true,
        ..record
    }
}

/// How long the lease of another delivery still lasts.
pub fn foreign_lease(record: &Record, lease: &WriteLease, now: Timestamp) -> Option<Duration> {
    let is_foreign = !record.lease_holder.is_empty() && record.lease_holder != lease.holder;
    let left = time_left(record, now);
    (is_foreign && !left.is_zero()).then_some(left)
}

/// The process of another delivery that has the lease. `None` if there is none, or an older version
/// has it: then only its time counts.
pub fn foreign_holder<'a>(record: &'a Record, lease: &WriteLease) -> Option<&'a Holder> {
    let is_foreign = record.lease_holder != lease.holder;
    record.lease_process.as_ref().filter(|_| is_foreign)
}

/// Whether enough of our own lease is left for a write.
pub fn allows_a_write(record: &Record, lease: &WriteLease, now: Timestamp) -> bool {
    record.lease_holder == lease.holder && time_left(record, now) >= lease.write
}

fn time_left(record: &Record, now: Timestamp) -> Duration {
    from_proto(record.lease_until).map_or(Duration::ZERO, |until| between(now, until))
}

/// Orders two states. The sequences of a stream that was restored from a backup, or recreated,
/// begin again, so the epoch comes first. A total order: the newest of three states must not depend
/// on which of them a worker sees first.
fn compare(left: &Desired, right: &Desired) -> Ordering {
    let place = |order: Order| (order.time_ms, order.epoch_ms, order.sequence);
    left.order.map(place).cmp(&right.order.map(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(time_ms: i64, state: &str) -> Desired {
        Desired {
            order: Some(Order {
                time_ms,
                sequence: 1,
                ..Order::default()
            }),
            state: state.into(),
            ..Desired::default()
        }
    }

    fn lease(holder: &str) -> WriteLease {
        WriteLease {
            holder: holder.into(),
            process: format!("process of {holder}"),
            lasts: Duration::from_secs(30),
            write: Duration::from_secs(5),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn decided(
        record: Option<&Record>,
        mine: &Desired,
        holder: &str,
        second: i64,
    ) -> StateDecision {
        decide(record, mine, mine, &lease(holder), at(second))
    }

    /// The record after `mine` was written and stored as posted at second 1000.
    fn posted_record(mine: &Desired) -> Record {
        let StateDecision::Write(record) = decided(None, mine, "a", 1000) else {
            panic!("must write")
        };
        posted(&record, mine, &lease("a")).expect("the record has not changed")
    }

    #[test]
    fn a_first_state_is_written_and_stored_as_posted() {
        let record = posted_record(&desired(5, "ok"));
        assert_eq!(
            (record.posted_state.as_slice(), record.lease_holder.as_str()),
            (b"ok".as_slice(), "")
        );
    }

    #[test]
    fn the_same_state_is_a_duplicate_and_an_older_one_is_superseded() {
        let record = posted_record(&desired(5, "ok"));
        let StateDecision::Duplicate(Some(newer)) =
            decided(Some(&record), &desired(9, "ok"), "b", 2000)
        else {
            panic!()
        };
        assert_eq!(
            decided(Some(&newer), &desired(7, "failed"), "b", 2000),
            StateDecision::Superseded
        );
        assert_eq!(
            decided(Some(&record), &desired(5, "ok"), "b", 2000),
            StateDecision::Duplicate(None)
        );
        assert_eq!(
            decided(Some(&record), &desired(4, "ok"), "b", 2000),
            StateDecision::Superseded
        );
        assert_eq!(
            decided(Some(&record), &desired(5, "rendered otherwise"), "b", 2000),
            StateDecision::Superseded,
            "the first state of an event counts"
        );
    }

    #[test]
    fn a_change_and_the_change_back_are_both_written() {
        let record = posted_record(&desired(5, "ok"));
        let StateDecision::Write(record) = decided(Some(&record), &desired(6, "failed"), "b", 2000)
        else {
            panic!()
        };
        let record = posted(&record, &desired(6, "failed"), &lease("b")).unwrap();
        assert!(matches!(
            decided(Some(&record), &desired(7, "ok"), "b", 2002),
            StateDecision::Write(_)
        ));
    }

    #[test]
    fn while_another_delivery_writes_a_state_waits_and_is_recorded() {
        let StateDecision::Write(record) = decided(None, &desired(5, "ok"), "a", 1000) else {
            panic!()
        };
        let StateDecision::Wait(wait, Some(record)) =
            decided(Some(&record), &desired(6, "failed"), "b", 1010)
        else {
            panic!()
        };
        assert_eq!(wait, Duration::from_secs(20));
        assert_eq!(
            posted(&record, &desired(5, "ok"), &lease("a")),
            None,
            "another state is desired"
        );
        let StateDecision::Write(record) = decided(Some(&record), &desired(5, "ok"), "b", 1031)
        else {
            panic!()
        };
        assert_eq!(
            record.desired.unwrap().state,
            b"failed",
            "any delivery of the key writes the newest state"
        );
    }

    #[test]
    fn a_write_does_not_count_after_its_lease_was_taken() {
        let mine = desired(5, "ok");
        let StateDecision::Write(first) = decided(None, &mine, "a", 1000) else {
            panic!()
        };
        assert!(
            posted(&first, &mine, &lease("a")).is_some(),
            "no other delivery can have written"
        );
        let StateDecision::Write(second) = decided(Some(&first), &mine, "b", 1031) else {
            panic!()
        };
        assert_eq!(posted(&second, &mine, &lease("a")), None);
        assert_eq!(
            posted(&doubted(second), &mine, &lease("b")),
            None,
            "a late write of another delivery may have come after it"
        );
    }

    #[test]
    fn a_write_without_an_answer_is_repeated() {
        let record = posted_record(&desired(5, "ok"));
        let StateDecision::Write(record) = decided(Some(&record), &desired(6, "failed"), "a", 2000)
        else {
            panic!()
        };
        assert!(matches!(
            decided(Some(&record), &desired(7, "ok"), "b", 2031),
            StateDecision::Write(_)
        ));
    }

    #[test]
    fn no_write_begins_with_too_little_left_of_the_lease() {
        let StateDecision::Write(record) = decided(None, &desired(5, "ok"), "a", 1000) else {
            panic!()
        };
        assert!(allows_a_write(&record, &lease("a"), at(1025)));
        assert!(!allows_a_write(&record, &lease("a"), at(1026)));
        assert!(!allows_a_write(&record, &lease("b"), at(1000)));
    }

    #[test]
    fn a_clock_that_is_far_ahead_is_bounded_by_receipt_plus_a_minute() {
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
                order(&event(happened), 7, &StreamHistory::default()),
                Order {
                    time_ms,
                    sequence: 7,
                    received_ms: 1_000_000,
                    epoch_ms: 0,
                }
            );
        }
    }

    #[test]
    fn a_restored_stream_does_not_make_a_new_state_an_old_one() {
        let order = |time_ms, epoch_ms, sequence| placed(time_ms, epoch_ms, sequence, 0);
        for (left, right, expected) in [
            // The time of the event comes first.
            (order(1, 9, 9), order(2, 0, 1), Ordering::Less),
            (order(1, 0, 1), order(1, 0, 2), Ordering::Less),
            (order(1, 5, 9), order(1, 6, 2), Ordering::Less),
            // Records of older versions.
            (order(1, 0, 9), order(1, 6, 2), Ordering::Less),
            (Desired::default(), order(1, 1, 1), Ordering::Less),
            (Desired::default(), Desired::default(), Ordering::Equal),
        ] {
            assert_eq!(compare(&left, &right), expected, "{left:?} {right:?}");
            assert_eq!(compare(&right, &left), expected.reverse());
        }
    }

    fn placed(time_ms: i64, epoch_ms: i64, sequence: u64, received_ms: i64) -> Desired {
        Desired {
            order: Some(Order {
                time_ms,
                sequence,
                received_ms,
                epoch_ms,
            }),
            ..Desired::default()
        }
    }

    #[test]
    fn the_order_of_states_is_total_and_transitive() {
        let mut all = vec![Desired::default()];
        for time in [1, 2] {
            for epoch in [0, 5_000, 12_000] {
                for sequence in 1..4 {
                    for received in [0, 1_000, 9_000, 17_000] {
                        all.push(placed(time, epoch, sequence, received));
                    }
                }
            }
        }
        for a in &all {
            for b in &all {
                assert_eq!(compare(a, b), compare(b, a).reverse(), "{a:?} {b:?}");
                for c in &all {
                    let is_chain = compare(a, b).is_le() && compare(b, c).is_le();
                    assert!(
                        !is_chain || compare(a, c).is_le(),
                        "{a:?} {b:?} {c:?} are a circle"
                    );
                }
            }
        }
    }
}
