use super::*;
use crate::bus::losses::reading::StreamCount;
use jiff::Timestamp;

/// What the server counts, in the order of the fields below.
#[derive(Clone, Copy, Default)]
struct Counts {
    last: u64,
    ready: u64,
    parked: u64,
    delivered: u64,
    unacknowledged: u64,
    ended: u64,
}

const FULL: Counts = Counts {
    last: 1000,
    ready: 100,
    parked: 200,
    delivered: 500,
    unacknowledged: 10,
    ended: 490,
};

fn reading(server: &str, counts: Counts) -> Reading {
    let subject = "deliveries.default.generic.apps.hook".to_owned();
    let count = StreamCount {
        created_ns: 1,
        last_sequence: counts.last,
        messages: counts.ready + counts.parked,
        ready: [(subject, counts.ready)].into(),
    };
    let consumer = ConsumerCount {
        created_ns: 2,
        filter: "deliveries.default.generic.>".to_owned(),
        delivered: counts.delivered,
        unacknowledged: counts.unacknowledged,
        pending: counts.ready - counts.unacknowledged,
    };
    Reading {
        read_at: Timestamp::from_second(1000).unwrap(),
        server: server.to_owned(),
        is_replicated: false,
        before: count.clone(),
        consumers: [("default-generic".to_owned(), consumer)].into(),
        ended: counts.ended,
        after: count,
    }
}

/// A record of these counts, which have not changed for a minute.
fn quiet(counts: Counts) -> DeliveryCounts {
    let mut record = next_record(None, &reading("a", counts), Lost::default());
    record.changed_at = Some(to_proto(Timestamp::from_second(940).unwrap()));
    record
}

fn busy(counts: Counts) -> DeliveryCounts {
    DeliveryCounts {
        peak: 100,
        ..next_record(None, &reading("a", counts), Lost::default())
    }
}

#[test]
fn what_deliveries_do_is_no_loss() {
    let changes: [(&str, Counts); 8] = [
        ("nothing", FULL),
        (
            "enqueued",
            Counts {
                last: 1007,
                ready: 107,
                ..FULL
            },
        ),
        (
            "delivered",
            Counts {
                delivered: 540,
                unacknowledged: 50,
                ..FULL
            },
        ),
        (
            "acknowledged",
            Counts {
                ready: 90,
                unacknowledged: 0,
                ended: 500,
                ..FULL
            },
        ),
        (
            "redelivered",
            Counts {
                delivered: 510,
                ..FULL
            },
        ),
        (
            "parked and acknowledged",
            Counts {
                last: 1010,
                ready: 90,
                parked: 210,
                unacknowledged: 0,
                ..FULL
            },
        ),
        (
            "resumed",
            Counts {
                last: 1200,
                ready: 300,
                parked: 0,
                ..FULL
            },
        ),
        ("replaced or woken", Counts { last: 1200, ..FULL }),
    ];
    for (what, counts) in changes {
        for (server, is_interrupted) in [("a", false), ("b", false), ("a", true)] {
            let lost = lost(&quiet(FULL), &reading(server, counts), is_interrupted);
            assert_eq!(lost, Lost::default(), "{what} {server} {is_interrupted}");
        }
    }
}

#[test]
fn what_is_gone_without_an_acknowledgement_is_lost() {
    let gone = Counts {
        ready: 40,
        parked: 7,
        unacknowledged: 0,
        ended: 500,
        ..FULL
    };
    for (server, is_interrupted) in [("a", false), ("b", false), ("a", true)] {
        let lost = lost(&quiet(FULL), &reading(server, gone), is_interrupted);
        // The 10 that were in flight are acknowledged.
        let expected = Lost {
            ready: 50,
            parked: 193,
        };
        assert_eq!(lost, expected, "{server} {is_interrupted}");
    }
}

#[test]
fn an_outcome_that_a_killed_worker_did_not_publish_is_no_loss() {
    let ended = Counts {
        ready: 90,
        unacknowledged: 0,
        ..FULL
    };
    assert_eq!(
        lost(&quiet(FULL), &reading("a", ended), false),
        Lost::default()
    );
}

#[test]
fn a_killed_server_that_does_not_know_its_last_deliveries_is_no_loss() {
    let forgotten = Counts {
        ready: 80,
        ended: 510,
        ..FULL
    };
    assert_eq!(
        lost(&quiet(FULL), &reading("a", forgotten), false),
        Lost::default()
    );
    assert_eq!(
        lost(&quiet(FULL), &reading("b", forgotten), false),
        Lost::default()
    );
}

#[test]
fn while_deliveries_end_a_few_may_be_unknown_when_a_server_is_killed() {
    let gone = |parked| reading("b", Counts { parked, ..FULL });
    assert_eq!(lost(&busy(FULL), &gone(189), false), Lost::default());
    assert_eq!(lost(&busy(FULL), &gone(188), false).parked, 12);
    assert_eq!(lost(&quiet(FULL), &gone(199), false).parked, 1);
    let truncated = Counts {
        last: 990,
        parked: 190,
        ..FULL
    };
    assert_eq!(
        lost(&busy(FULL), &reading("b", truncated), false).parked,
        10,
        "a sequence that fell is proof"
    );
}

#[test]
fn a_recreated_stream_has_lost_everything_and_a_recreated_consumer_nothing() {
    let mut recreated = reading(
        "a",
        Counts {
            last: 5,
            ready: 5,
            unacknowledged: 0,
            ..FULL
        },
    );
    recreated.before.created_ns = 9;
    assert_eq!(lost(&quiet(FULL), &recreated, false).total(), 300);
    let mut recreated = reading(
        "a",
        Counts {
            delivered: 0,
            unacknowledged: 0,
            ..FULL
        },
    );
    recreated
        .consumers
        .get_mut("default-generic")
        .unwrap()
        .created_ns = 9;
    assert_eq!(lost(&quiet(FULL), &recreated, false), Lost::default());
}

#[test]
fn messages_that_a_consumer_neither_delivers_nor_waits_for_are_skipped() {
    let mut reading = reading("a", FULL);
    let consumer = reading.consumers.get_mut("default-generic").unwrap();
    consumer.pending -= 3;
    let consumer = consumer.clone();
    assert_eq!(skipped(&reading, &consumer), 3);
}

#[test]
fn skipped_messages_that_are_removed_are_not_lost_again() {
    let mut record = quiet(FULL);
    record.consumers.get_mut("default-generic").unwrap().skipped = 3;
    let removed = Counts { ready: 97, ..FULL };
    assert_eq!(
        lost(&record, &reading("a", removed), false),
        Lost::default()
    );
    let more = Counts { ready: 96, ..FULL };
    assert_eq!(lost(&record, &reading("a", more), false).ready, 1);
}

#[test]
fn a_record_keeps_when_its_counts_changed() {
    let before = quiet(FULL);
    let same = next_record(Some(&before), &reading("a", FULL), Lost::default());
    assert!(is_unchanged(&before, &same) && same.changed_at == before.changed_at);
    let delivered = Counts {
        delivered: 520,
        ..FULL
    };
    let changed = next_record(Some(&before), &reading("a", delivered), Lost::default());
    assert!(!is_unchanged(&before, &changed) && changed.changed_at == changed.read_at);
    assert_eq!(changed.peak, 20);
}
