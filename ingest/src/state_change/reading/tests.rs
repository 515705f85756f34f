use jiff::Timestamp;
use tidings_core::bus::LaterEvent;

use super::*;

fn event(name: &str, reason: &str, second: i64) -> Event {
    let time = |seconds| Some(tidings_core::ProtoTimestamp { seconds, nanos: 0 });
    Event {
        involved_object: Some(ObjectReference {
            name: name.into(),
            ..Default::default()
        }),
        severity: if reason.ends_with("Failed") {
            "error"
        } else {
            "info"
        }
        .into(),
        reason: reason.into(),
        timestamp: time(second),
        received_at: time(1_000),
        ..Default::default()
    }
}

/// The stream of all readings here.
pub(in crate::state_change) const STREAM: EventsStream = EventsStream {
    created: Timestamp::UNIX_EPOCH,
    dedupe_interval: Duration::from_secs(300),
};

/// These events, stored after the sequence.
fn later(sequence: u64, events: &[Event], is_complete: bool) -> LaterEvents {
    let events = (sequence + 1..).zip(events.iter().cloned());
    LaterEvents {
        events: events
            .map(|(sequence, event)| LaterEvent {
                sequence,
                size: 1_000,
                event,
            })
            .collect(),
        is_complete,
    }
}

/// A reading of this number of failures after the sequence 10.
pub(in crate::state_change) fn reading(events: usize) -> Reading {
    let mut reading = Reading::default();
    reading.begin(STREAM, 10);
    let events = vec![event("app", "BuildFailed", 1); events];
    assert!(reading.add(later(10, &events, true), Instant::now()));
    reading
}

/// The sequence of the state change that a repeated failure of `app` at `second` follows. Its
/// first copy has the sequence 10; the others follow.
fn found(events: &[Event], second: i64) -> Option<u64> {
    let mut reading = reading(0);
    assert!(reading.add(later(10, events, true), Instant::now()));
    let report = Report::of(&event("app", "BuildFailed", second)).unwrap();
    reading.opposite(&report, 10)
}

#[test]
fn a_success_in_between_is_a_change() {
    let success = event("app", "ReconciliationSucceeded", 20);
    assert_eq!(found(std::slice::from_ref(&success), 30), Some(11));
    assert_eq!(
        found(std::slice::from_ref(&success), 20),
        None,
        "equal seconds"
    );
    assert_eq!(
        found(std::slice::from_ref(&success), 10),
        None,
        "a late copy"
    );
    let again = event("app", "BuildFailed", 25);
    let later = event("app", "ReconciliationSucceeded", 28);
    let all = [success, again, later];
    assert_eq!(found(&all, 30), Some(13), "the last change counts");
    assert_eq!(found(&all, 25), Some(11), "a retry finds its own change");
}

#[test]
fn what_is_no_success_of_the_object_is_no_change() {
    for other in [
        event("other", "ReconciliationSucceeded", 20),
        event("app", "BuildFailed", 20),
        event("app", "Progressing", 20),
        event("app", "DependencyNotReady", 20),
    ] {
        assert_eq!(found(std::slice::from_ref(&other), 30), None, "{other:?}");
    }
}

#[test]
fn an_event_without_success_or_failure_has_no_report() {
    assert!(Report::of(&event("app", "Progressing", 1)).is_none());
    assert!(Report::of(&event("app", "DependencyNotReady", 1)).is_none());
}

#[test]
fn a_warm_reading_has_the_bound_of_a_cold_one() {
    assert!(!reading(MAX_EVENTS).exceeds(10));
    let cold = reading(MAX_EVENTS + 1);
    assert_eq!(cold.len(), MAX_EVENTS);
    assert!(cold.exceeds(10) && !cold.exceeds(11));

    let mut warm = reading(1);
    let events = vec![event("app", "BuildFailed", 1); MAX_EVENTS];
    assert!(warm.add(later(11, &events, true), Instant::now()));
    assert!(warm.exceeds(10) && !warm.exceeds(11));
    assert!(warm.covers(10) && !warm.covers(9));
}

#[test]
fn the_bytes_of_a_reading_are_bounded_alike() {
    let mut reading = reading(2);
    assert!(!reading.exceeds(10));
    reading.events[1].size = LaterEvents::MAX_BYTES;
    assert!(reading.exceeds(10) && !reading.exceeds(11));
}

#[test]
fn a_recreated_stream_is_read_from_the_start() {
    let mut reading = reading(5);
    reading.begin(STREAM, 12);
    assert_eq!((reading.len(), reading.up_to()), (5, 15));
    let recreated = EventsStream {
        created: Timestamp::UNIX_EPOCH + Duration::from_secs(1),
        ..STREAM
    };
    reading.begin(recreated, 12);
    assert_eq!((reading.len(), reading.up_to()), (0, 12));
}

#[tokio::test(start_paused = true)]
async fn events_older_than_the_dedupe_interval_are_forgotten() {
    let mut reading = reading(5);
    tokio::time::advance(STREAM.dedupe_interval + Duration::from_secs(1)).await;
    let events = [event("app", "BuildFailed", 1)];
    assert!(reading.add(later(15, &events, true), Instant::now()));
    reading.begin(STREAM, 15);
    assert_eq!((reading.len(), reading.up_to()), (1, 16));
    assert!(!reading.covers(14), "a new read would be needed");
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_counts_for_those_that_waited_for_it() {
    let mut reading = reading(0);
    let asked = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    reading.failed();
    assert!(reading.has_failed_since(asked));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!reading.has_failed_since(Instant::now()));
}
