//! What is told of dead letters, and how often.

use tidings_core::{
    AlertReference, Delivery, Event as ToldEvent, ObjectReference as Object, ProtoTimestamp,
    ProviderReference,
};

use super::*;

const NOW: i64 = 10_000;

fn letter(alert: &str, died: i64) -> DeadLetter {
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
        event: Some(ToldEvent {
            involved_object: Some(object),
            ..ToldEvent::default()
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

fn note(notices: &mut Notices, sequence: u64, letter: &DeadLetter, at: Instant) {
    notices.note(
        sequence,
        letter,
        "u",
        (Timestamp::from_second(NOW).unwrap(), at),
    );
}

fn created(taken: Option<Taken>) -> Event {
    match taken.unwrap().write {
        Write::Create(event) => *event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_letter_becomes_a_warning_on_its_alert() {
    let (mut notices, start) = (Notices::new("host_1"), Instant::now());
    note(&mut notices, 7, &letter("a", NOW), start);
    assert_eq!(notices.since(), Some(7));
    let event = created(notices.take(start));
    assert_eq!(notices.since(), None);
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
            "a notification about Kustomization apps/x to Provider apps/p is given up (rejected): h answered 400"
        )
    );
}

#[test]
fn a_flood_is_one_event_that_counts_once_a_minute() {
    let (mut notices, start) = (Notices::new("i"), Instant::now());
    let mut counts = Vec::new();
    for second in 0..130 {
        let now = start + Duration::from_secs(second);
        (0..100).for_each(|more| note(&mut notices, second * 100 + more, &letter("a", NOW), now));
        counts.extend(notices.take(now).map(|taken| match taken.write {
            Write::Create(event) => event.series.map_or(1, |series| series.count),
            Write::Count(_, _, series) => series.count,
        }));
    }
    assert_eq!(counts, [100, 6_100, 12_100]);
}

#[test]
fn after_a_quiet_minute_a_new_event_begins() {
    let (mut notices, start) = (Notices::new("i"), Instant::now());
    note(&mut notices, 1, &letter("a", NOW), start);
    let first = created(notices.take(start));
    let later = start + Duration::from_secs(61);
    note(&mut notices, 2, &letter("a", NOW), later);
    let second = created(notices.take(later));
    assert!(first.metadata.name != second.metadata.name && second.series.is_none());
}

#[test]
fn many_alerts_at_once_are_five_writes_a_second() {
    let (mut notices, start) = (Notices::new("i"), Instant::now());
    (0..100).for_each(|number| {
        note(
            &mut notices,
            number,
            &letter(&format!("a{number}"), NOW),
            start,
        )
    });
    let milliseconds = (0..2_000).map(|millisecond| start + Duration::from_millis(millisecond));
    assert_eq!(milliseconds.filter_map(|now| notices.take(now)).count(), 10);
    assert!(notices.since().is_some());
}

#[test]
fn the_same_letter_gives_the_same_event_and_an_old_one_gives_none() {
    let name = |sequence, died| {
        let (mut notices, start) = (Notices::new("i"), Instant::now());
        note(
            &mut notices,
            sequence,
            &letter(&"a".repeat(253), died),
            start,
        );
        notices
            .when(start)
            .map(|_| created(notices.take(start)).metadata.name.unwrap())
    };
    assert_eq!(name(1, NOW), name(1, NOW));
    assert_ne!(name(1, NOW), name(2, NOW));
    assert!(name(1, NOW).unwrap().len() <= 253);
    assert_eq!(name(1, NOW - 3601), None);
}

#[test]
fn what_could_not_be_written_is_written_later_and_what_is_gone_anew() {
    let (mut notices, start) = (Notices::new("i"), Instant::now());
    note(&mut notices, 1, &letter("a", NOW), start);
    let taken = notices.take(start).unwrap();
    notices.again(&taken, true);
    assert_eq!(notices.take(start + Duration::from_secs(1)), Some(taken));
    note(
        &mut notices,
        2,
        &letter("a", NOW),
        start + Duration::from_secs(2),
    );
    let later = start + Duration::from_secs(90);
    let counted = notices.take(later).unwrap();
    assert!(matches!(counted.write, Write::Count(..)));
    notices.again(&counted, true);
    assert_eq!(
        created(notices.take(later + Duration::from_secs(1)))
            .series
            .unwrap()
            .count,
        2
    );
}
