//! What a board says should be written, and when nothing is.

use serde_json::json;
use tidings_core::{AlertReference, Attempt, ProtoTimestamp, ProviderReference};

use super::*;
use crate::status::ready_condition::Reason;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn identity(kind: &str) -> Identity {
    Identity {
        kind: kind.into(),
        namespace: "apps".into(),
        name: "x".into(),
    }
}

fn entry(kind: &str, uid: &str, generation: i64) -> RuleEntry {
    RuleEntry {
        identity: identity(kind),
        uid: uid.into(),
        generation: Some(generation),
        rejection: None,
        in_effect: true,
        problems: Vec::new(),
    }
}

fn find(board: &mut Board, entries: &[RuleEntry], reason: Reason, status: Value) -> (usize, usize) {
    let finding = Finding {
        reason,
        message: "m".into(),
    };
    let findings = entries
        .iter()
        .map(|entry| (entry.identity.clone(), finding.clone()))
        .collect();
    let (changed, gone) = board.find(entries, findings, |_, _| status.clone());
    (changed.len(), gone.len())
}

/// Writes what is desired, and tells it.
fn write(board: &mut Board, kind: &str, second: i64) -> Option<Value> {
    let status = board.desired(&identity(kind), at(second))?;
    let uid = board.uid(&identity(kind)).unwrap().to_owned();
    board.written(&identity(kind), &uid, status.clone());
    Some(status)
}

fn outcome(uid: &str, planned: i64) -> Outcome {
    Outcome {
        alert: Some(AlertReference {
            namespace: "apps".into(),
            name: "x".into(),
            uid: uid.into(),
            ..Default::default()
        }),
        provider: Some(ProviderReference {
            namespace: "apps".into(),
            name: "x".into(),
            ..Default::default()
        }),
        attempt: Some(Attempt {
            outcome: "delivered".into(),
            ..Attempt::default()
        }),
        planned_at: Some(ProtoTimestamp {
            seconds: planned,
            nanos: 0,
        }),
        ..Outcome::default()
    }
}

#[test]
fn a_condition_is_written_once_and_its_time_moves_with_its_status_only() {
    let mut board = Board::default();
    let mut told = Vec::new();
    for (second, generation, reason) in [
        (10, 1, Reason::Initialized),
        (20, 1, Reason::Initialized),
        (30, 2, Reason::Initialized),
        (40, 3, Reason::InvalidPattern),
        (50, 3, Reason::ProviderNotFound),
        (60, 4, Reason::Initialized),
    ] {
        let (changed, _) = find(
            &mut board,
            &[entry("Alert", "u", generation)],
            reason,
            Value::Null,
        );
        let written = write(&mut board, "Alert", second);
        assert_eq!(changed == 1, written.is_some(), "at {second}");
        told.extend(written.map(|status| {
            let condition = status["conditions"][0].clone();
            assert_eq!(
                [
                    &condition["observedGeneration"],
                    &status["observedGeneration"]
                ],
                [&json!(generation); 2]
            );
            let text = |field: &str| condition[field].as_str().unwrap().to_owned();
            let time = text("lastTransitionTime").parse::<Timestamp>().unwrap();
            (second, text("status"), text("reason"), time.as_second())
        }));
    }
    let expected = [
        (10, "True", "Initialized", 10),
        (30, "True", "Initialized", 10),
        (40, "False", "InvalidPattern", 40),
        (50, "False", "ProviderNotFound", 40),
        (60, "True", "Initialized", 60),
    ];
    assert_eq!(
        told,
        expected.map(|(second, status, reason, time)| (
            second,
            status.to_owned(),
            reason.to_owned(),
            time
        ))
    );
}

#[test]
fn another_holder_finds_nothing_to_write_and_lets_no_older_news_in() {
    let entries = [entry("Alert", "u", 1)];
    let mut first = Board::default();
    find(&mut first, &entries, Reason::Initialized, Value::Null);
    assert_eq!(
        first.hear(7, &outcome("u", 90), at(100)),
        [identity("Alert")]
    );
    assert_eq!(first.since(), Some(7));
    let mut status = write(&mut first, "Alert", 100).unwrap();
    assert_eq!(first.since(), None);
    status["lastHandledReconcileAt"] = "now".into();
    let mut second = Board::default();
    assert_eq!(
        find(&mut second, &entries, Reason::Initialized, status),
        (0, 0)
    );
    assert!(second.hear(7, &outcome("u", 90), at(100)).is_empty());
    assert!(second.hear(6, &outcome("u", 80), at(99)).is_empty());
    assert_eq!(second.desired(&identity("Alert"), at(200)), None);
    assert_eq!(
        second.hear(8, &outcome("u", 110), at(120)),
        [identity("Alert")]
    );
    assert_eq!(
        write(&mut second, "Alert", 200).unwrap()["conditions"][0]["lastTransitionTime"],
        "1970-01-01T00:01:40Z"
    );
}

#[test]
fn a_status_that_was_lost_or_went_back_is_written_again_with_its_times() {
    let entries = [entry("Alert", "u", 1)];
    let mut board = Board::default();
    find(&mut board, &entries, Reason::Initialized, Value::Null);
    let early = write(&mut board, "Alert", 10).unwrap();
    board.hear(7, &outcome("u", 90), at(100));
    let late = write(&mut board, "Alert", 100).unwrap();
    assert!(board.read_again(|_, _| Some(late.clone())).is_empty());
    assert!(
        board.read_again(|_, _| None).is_empty(),
        "nothing is known of it"
    );
    for told in [early, Value::Null] {
        assert_eq!(
            board.read_again(|_, uid| (uid == "u").then(|| told.clone())),
            [identity("Alert")]
        );
        let again = write(&mut board, "Alert", 200).unwrap();
        assert_eq!(
            (&again["lastMatchTime"], &again["lastDeliveryTime"]),
            (&late["lastMatchTime"], &late["lastDeliveryTime"])
        );
        assert_eq!(again["conditions"][0]["reason"], "Initialized");
    }
}

#[test]
fn news_of_an_object_that_was_made_anew_does_not_count_for_the_new_one() {
    let mut board = Board::default();
    find(
        &mut board,
        &[entry("Alert", "old", 1)],
        Reason::Initialized,
        Value::Null,
    );
    board.hear(1, &outcome("old", 5), at(9));
    write(&mut board, "Alert", 10);
    assert_eq!(
        find(
            &mut board,
            &[entry("Alert", "new", 1)],
            Reason::Initialized,
            Value::Null
        ),
        (1, 0)
    );
    assert!(board.hear(2, &outcome("old", 6), at(11)).is_empty());
    assert_eq!(
        write(&mut board, "Alert", 12).unwrap()["lastMatchTime"],
        Value::Null
    );
    assert_eq!(
        find(&mut board, &[], Reason::Initialized, Value::Null),
        (0, 1)
    );
}

#[test]
fn of_the_circuits_of_a_provider_the_worst_is_shown_and_turns_are_told() {
    let mut board = Board::default();
    find(
        &mut board,
        &[entry("Provider", "u", 1)],
        Reason::Initialized,
        Value::Null,
    );
    let mut tell = |channel: Option<&str>, state: State, since: Option<i64>| {
        let time = |second: i64| ProtoTimestamp {
            seconds: second,
            nanos: 0,
        };
        let told = board.circuit(Circuit {
            namespace: "apps".into(),
            provider: "x".into(),
            channel: channel.map(str::to_owned),
            state: state.into(),
            since: since.map(time),
            until: (state == State::Open).then(|| time(100)),
            reason: "h answered 503".into(),
            ..Circuit::default()
        });
        (
            told.map(|(_, turns)| turns),
            write(&mut board, "Provider", 1).map(|status| status["circuit"].clone()),
        )
    };
    assert_eq!(
        tell(Some("#a"), State::Closed, None).0,
        None,
        "it has failed once"
    );
    let (turns, shown) = tell(Some("#a"), State::Open, Some(5));
    let expected = json!({
        "state": "open", "since": "1970-01-01T00:00:05Z", "until": "1970-01-01T00:01:40Z",
        "reason": "channel #a: h answered 503",
    });
    assert_eq!((turns, shown), (Some(true), Some(expected)));
    assert_eq!(
        tell(Some("#b"), State::HalfOpen, Some(6)),
        (None, None),
        "#a is worse"
    );
    assert_eq!(tell(Some("#a"), State::HalfOpen, Some(5)).0, Some(false));
    assert_eq!(
        tell(None, State::Paused, Some(7)).1.unwrap()["state"],
        "paused"
    );
    tell(Some("#a"), State::Closed, Some(8));
    tell(Some("#b"), State::Closed, Some(9));
    let (turns, shown) = tell(None, State::Closed, Some(10));
    assert_eq!(
        (turns, shown),
        (
            Some(true),
            Some(json!({"state": "closed", "since": "1970-01-01T00:00:10Z"}))
        )
    );
}
