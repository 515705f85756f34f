//! Tests which status must be written, and when.

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
        origin: Default::default(),
        identity: identity(kind),
        uid: uid.into(),
        generation: Some(generation),
        rejection: None,
        in_effect: true,
        problems: Vec::new(),
    }
}

fn set_conditions(
    cache: &mut StatusCache,
    entries: &[RuleEntry],
    reason: Reason,
    status: Value,
) -> (usize, usize) {
    let condition = ReadyCondition {
        reason,
        message: "m".into(),
    };
    let conditions = entries
        .iter()
        .map(|entry| (entry.identity.clone(), condition.clone()))
        .collect();
    let (changed, removed) = cache.set_conditions(entries, conditions, |_, _| status.clone());
    (changed.len(), removed.len())
}

/// Writes the desired status and returns it.
fn write(cache: &mut StatusCache, kind: &str, second: i64) -> Option<Value> {
    let status = cache.desired(&identity(kind), at(second))?;
    let uid = cache.uid(&identity(kind)).unwrap().to_owned();
    cache.written(&identity(kind), &uid, status.clone());
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
fn a_condition_is_written_once_and_its_time_changes_with_its_status() {
    let mut cache = StatusCache::default();
    let mut all_written = Vec::new();
    for (second, generation, reason) in [
        (10, 1, Reason::Initialized),
        (20, 1, Reason::Initialized),
        (30, 2, Reason::Initialized),
        (40, 3, Reason::InvalidPattern),
        (50, 3, Reason::ProviderNotFound),
        (60, 4, Reason::Initialized),
    ] {
        let (changed, _) = set_conditions(
            &mut cache,
            &[entry("Alert", "u", generation)],
            reason,
            Value::Null,
        );
        let written = write(&mut cache, "Alert", second);
        assert_eq!(changed == 1, written.is_some(), "at {second}");
        all_written.extend(written.map(|status| {
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
        all_written,
        expected.map(|(second, status, reason, time)| (
            second,
            status.to_owned(),
            reason.to_owned(),
            time
        ))
    );
}

#[test]
fn a_new_leader_rewrites_nothing_and_ignores_older_outcomes() {
    let entries = [entry("Alert", "u", 1)];
    let mut first = StatusCache::default();
    set_conditions(&mut first, &entries, Reason::Initialized, Value::Null);
    assert_eq!(
        first.apply_outcome(7, &outcome("u", 90), at(100)),
        [identity("Alert")]
    );
    assert_eq!(first.since(), Some(7));
    let mut status = write(&mut first, "Alert", 100).unwrap();
    assert_eq!(first.since(), None);
    status["lastHandledReconcileAt"] = "now".into();
    let mut second = StatusCache::default();
    assert_eq!(
        set_conditions(&mut second, &entries, Reason::Initialized, status),
        (0, 0)
    );
    assert!(
        second
            .apply_outcome(7, &outcome("u", 90), at(100))
            .is_empty()
    );
    assert!(
        second
            .apply_outcome(6, &outcome("u", 80), at(99))
            .is_empty()
    );
    assert_eq!(second.desired(&identity("Alert"), at(200)), None);
    assert_eq!(
        second.apply_outcome(8, &outcome("u", 110), at(120)),
        [identity("Alert")]
    );
    assert_eq!(
        write(&mut second, "Alert", 200).unwrap()["conditions"][0]["lastTransitionTime"],
        "1970-01-01T00:01:40Z"
    );
}

#[test]
fn a_lost_or_older_status_is_written_again_with_its_times() {
    let entries = [entry("Alert", "u", 1)];
    let mut cache = StatusCache::default();
    set_conditions(&mut cache, &entries, Reason::Initialized, Value::Null);
    let early = write(&mut cache, "Alert", 10).unwrap();
    cache.apply_outcome(7, &outcome("u", 90), at(100));
    let late = write(&mut cache, "Alert", 100).unwrap();
    assert!(cache.reload(|_, _| Some(late.clone())).is_empty());
    assert!(
        cache.reload(|_, _| None).is_empty(),
        "its status is not available"
    );
    for current in [early, Value::Null] {
        assert_eq!(
            cache.reload(|_, uid| (uid == "u").then(|| current.clone())),
            [identity("Alert")]
        );
        let again = write(&mut cache, "Alert", 200).unwrap();
        assert_eq!(
            (&again["lastMatchTime"], &again["lastDeliveryTime"]),
            (&late["lastMatchTime"], &late["lastDeliveryTime"])
        );
        assert_eq!(again["conditions"][0]["reason"], "Initialized");
    }
}

#[test]
fn outcomes_of_a_deleted_object_do_not_apply_to_a_recreated_object() {
    let mut cache = StatusCache::default();
    set_conditions(
        &mut cache,
        &[entry("Alert", "old", 1)],
        Reason::Initialized,
        Value::Null,
    );
    cache.apply_outcome(1, &outcome("old", 5), at(9));
    write(&mut cache, "Alert", 10);
    assert_eq!(
        set_conditions(
            &mut cache,
            &[entry("Alert", "new", 1)],
            Reason::Initialized,
            Value::Null
        ),
        (1, 0)
    );
    assert!(
        cache
            .apply_outcome(2, &outcome("old", 6), at(11))
            .is_empty()
    );
    assert_eq!(
        write(&mut cache, "Alert", 12).unwrap()["lastMatchTime"],
        Value::Null
    );
    assert_eq!(
        set_conditions(&mut cache, &[], Reason::Initialized, Value::Null),
        (0, 1)
    );
}

#[test]
fn the_worst_circuit_of_a_provider_is_shown() {
    let mut cache = StatusCache::default();
    set_conditions(
        &mut cache,
        &[entry("Provider", "u", 1)],
        Reason::Initialized,
        Value::Null,
    );
    let mut apply = |channel: Option<&str>, state: State, since: Option<i64>| {
        let time = |second: i64| ProtoTimestamp {
            seconds: second,
            nanos: 0,
        };
        let changed = cache.apply_circuit(Circuit {
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
            changed.map(|(_, calls_changed)| calls_changed),
            write(&mut cache, "Provider", 1).map(|status| status["circuit"].clone()),
        )
    };
    assert_eq!(
        apply(Some("#a"), State::Closed, None).0,
        None,
        "a single failure is not shown"
    );
    let (calls_changed, shown) = apply(Some("#a"), State::Open, Some(5));
    let expected = json!({
        "state": "open", "since": "1970-01-01T00:00:05Z", "until": "1970-01-01T00:01:40Z",
        "reason": "channel #a: h answered 503",
    });
    assert_eq!((calls_changed, shown), (Some(true), Some(expected)));
    assert_eq!(
        apply(Some("#b"), State::HalfOpen, Some(6)),
        (None, None),
        "#a is worse"
    );
    assert_eq!(apply(Some("#a"), State::HalfOpen, Some(5)).0, Some(false));
    assert_eq!(
        apply(None, State::Paused, Some(7)).1.unwrap()["state"],
        "paused"
    );
    apply(Some("#a"), State::Closed, Some(8));
    apply(Some("#b"), State::Closed, Some(9));
    let (calls_changed, shown) = apply(None, State::Closed, Some(10));
    assert_eq!(
        (calls_changed, shown),
        (
            Some(true),
            Some(json!({"state": "closed", "since": "1970-01-01T00:00:10Z"}))
        )
    );
}
