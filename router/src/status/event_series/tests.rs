//! Tests which Kubernetes Events report dead letters, and how often.

use tidings_core::{
    AlertReference, Delivery, Event as FluxEvent, ObjectReference as Object, ProtoTimestamp,
    ProviderReference,
};

use super::*;

const NOW: i64 = 10_000;

fn dead_letter(alert: &str, died: i64) -> DeadLetter {
    let object = Object {
        kind: "Kustomization".into(),
        namespace: "apps".into(),
        name: "x".into(),
        ..Object::default()
    };
    let delivery = Delivery {
        alert: Some(AlertReference {
            namespace: "apps".into(),
            name: alert.into(),
            ..AlertReference::default()
        }),
        provider: Some(ProviderReference {
            namespace: "apps".into(),
            name: "p".into(),
            ..ProviderReference::default()
        }),
        event: Some(FluxEvent {
            involved_object: Some(object),
            ..FluxEvent::default()
        }),
        ..Delivery::default()
    };
    let died_at = Some(ProtoTimestamp {
        seconds: died,
        nanos: 0,
    });
    DeadLetter {
        delivery: Some(delivery),
        reason: "rejected".into(),
        detail: "h answered 400".into(),
        died_at,
    }
}

fn add(events: &mut DeadLetterEvents, sequence: u64, dead_letter: &DeadLetter, at: Instant) {
    events.add(
        sequence,
        dead_letter,
        "u",
        (Timestamp::from_second(NOW).unwrap(), at),
    );
}

fn created(taken: Option<PendingWrite>) -> Event {
    match taken.unwrap().write {
        EventWrite::Create(event) => *event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_letter_becomes_a_warning_on_its_alert() {
    let (mut events, start) = (DeadLetterEvents::new("host_1"), Instant::now());
    add(&mut events, 7, &dead_letter("a", NOW), start);
    assert_eq!(events.since(), Some(7));
    let event = created(events.take(start));
    assert_eq!(events.since(), None);
    let regarding = event.regarding.unwrap();
    assert_eq!(
        [regarding.kind, regarding.name, regarding.uid],
        ["Alert", "a", "u"].map(|text| Some(text.to_owned()))
    );
    assert_eq!(
        (
            event.type_.as_deref(),
            event.reason.as_deref(),
            event.series
        ),
        (Some("Warning"), Some(REASON), None)
    );
    assert_eq!(
        event.note.as_deref(),
        Some(
            "event of Kustomization apps/x not delivered to Provider apps/p (rejected): \
             h answered 400"
        )
    );
}

#[test]
fn many_dead_letters_form_one_event_whose_count_is_written_once_a_minute() {
    let (mut events, start) = (DeadLetterEvents::new("i"), Instant::now());
    let mut counts = Vec::new();
    for second in 0..130 {
        let now = start + Duration::from_secs(second);
        (0..100).for_each(|more| {
            add(
                &mut events,
                second * 100 + more,
                &dead_letter("a", NOW),
                now,
            )
        });
        counts.extend(events.take(now).map(|taken| match taken.write {
            EventWrite::Create(event) => event.series.map_or(1, |series| series.count),
            EventWrite::Count(_, _, series) => series.count,
        }));
    }
    assert_eq!(counts, [100, 6_100, 12_100]);
}

#[test]
fn a_new_event_starts_after_a_quiet_minute() {
    let (mut events, start) = (DeadLetterEvents::new("i"), Instant::now());
    add(&mut events, 1, &dead_letter("a", NOW), start);
    let first = created(events.take(start));
    let later = start + Duration::from_secs(61);
    add(&mut events, 2, &dead_letter("a", NOW), later);
    let second = created(events.take(later));
    assert!(first.metadata.name != second.metadata.name && second.series.is_none());
}

#[test]
fn events_of_many_alerts_are_limited_to_five_writes_a_second() {
    let (mut events, start) = (DeadLetterEvents::new("i"), Instant::now());
    (0..100).for_each(|number| {
        add(
            &mut events,
            number,
            &dead_letter(&format!("a{number}"), NOW),
            start,
        )
    });
    let milliseconds = (0..2_000).map(|millisecond| start + Duration::from_millis(millisecond));
    assert_eq!(milliseconds.filter_map(|now| events.take(now)).count(), 10);
    assert!(events.since().is_some());
}

#[test]
fn a_repeated_dead_letter_gives_the_same_event_and_an_old_one_gives_none() {
    let name = |sequence, died| {
        let (mut events, start) = (DeadLetterEvents::new("i"), Instant::now());
        add(
            &mut events,
            sequence,
            &dead_letter(&"a".repeat(253), died),
            start,
        );
        events
            .when(start)
            .map(|_| created(events.take(start)).metadata.name.unwrap())
    };
    assert_eq!(name(1, NOW), name(1, NOW));
    assert_ne!(name(1, NOW), name(2, NOW));
    assert!(name(1, NOW).unwrap().len() <= 253);
    assert_eq!(name(1, NOW - 3601), None);
}

#[test]
fn a_failed_write_is_retried_and_a_missing_event_is_recreated() {
    let (mut events, start) = (DeadLetterEvents::new("i"), Instant::now());
    add(&mut events, 1, &dead_letter("a", NOW), start);
    let taken = events.take(start).unwrap();
    events.retry(&taken, true);
    assert_eq!(events.take(start + Duration::from_secs(1)), Some(taken));
    add(
        &mut events,
        2,
        &dead_letter("a", NOW),
        start + Duration::from_secs(2),
    );
    let later = start + Duration::from_secs(90);
    let counted = events.take(later).unwrap();
    assert!(matches!(counted.write, EventWrite::Count(..)));
    events.retry(&counted, true);
    assert_eq!(
        created(events.take(later + Duration::from_secs(1)))
            .series
            .unwrap()
            .count,
        2
    );
}
