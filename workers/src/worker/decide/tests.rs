use proptest::prelude::*;
use tidings_core::FailureKind;

use super::*;
use crate::attempt::Ended;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn delivery() -> Delivery {
    Delivery {
        id: "d".into(),
        planned_at: Some(to_proto(at(1000))),
        ..Delivery::default()
    }
}

fn processed(result: impl Into<AttemptResult>) -> Processed {
    Processed {
        started: at(1000),
        took: Duration::from_millis(7),
        template_error: "line 1: no".into(),
        ..Processed::new(&delivery(), result)
    }
}

fn failed(failure: Failure) -> Processed {
    processed(AttemptResult::failed(failure))
}

fn decided(delivery: &Delivery, processed: &Processed, second: i64) -> Disposition {
    decide(delivery, processed, at(second), 0.5).disposition
}

#[test]
fn a_delivery_that_ended_is_acknowledged() {
    let ended = Ended {
        outcome: Outcome::Delivered,
        status: Some(200),
        detail: String::new(),
    };
    let decision = decide(&delivery(), &processed(ended), at(1001), 0.5);
    assert_eq!(
        (decision.disposition, decision.outcome),
        (Disposition::Acknowledge, Outcome::Delivered.into())
    );
    let attempt = decision.report.unwrap().attempt;
    assert_eq!((attempt.number, attempt.outcome.as_str()), (1, "delivered"));
    assert_eq!((attempt.status, attempt.duration_ms), (200, 7));
    assert_eq!(attempt.template_error, "line 1: no");
}

#[test]
fn a_transient_failure_is_parked_with_its_history() {
    let failure = Failure::transient(Reason::ServerError, "h answered 503").with_status(503);
    let Disposition::Retry(parked, wait) = decided(&delivery(), &failed(failure), 1001) else {
        panic!("it is retried")
    };
    assert_eq!((parked.attempt, parked.attempts.len()), (1, 1));
    assert_eq!(wait, Duration::from_secs(1));
    assert_eq!(parked.attempts[0].reason, "server-error");
}

#[test]
fn a_permanent_failure_becomes_a_dead_letter_with_reason_answer_and_attempts() {
    let failure = Failure::permanent(Reason::Rejected, "h answered 400: no").with_status(400);
    let decision = decide(&delivery(), &failed(failure), at(1001), 0.5);
    let Disposition::StoreDeadLetter(dead_letter) = decision.disposition else {
        panic!("{:?}", decision.disposition)
    };
    assert_eq!(
        (dead_letter.reason.as_str(), dead_letter.detail.as_str()),
        ("rejected", "h answered 400: no")
    );
    assert_eq!(decision.report.unwrap().attempt.outcome, "dead");
    assert_eq!(dead_letter.delivery.unwrap().attempts[0].status, 400);
}

#[test]
fn the_hour_for_unauthorized_deliveries_starts_again_after_another_failure() {
    let unauthorized = failed(Failure::transient(Reason::Unauthorized, "401"));
    let Disposition::Retry(first, _) = decided(&delivery(), &unauthorized, 1001) else {
        panic!()
    };
    let Disposition::Retry(second, _) = decided(&first, &unauthorized, 4500) else {
        panic!()
    };
    assert!(matches!(
        decided(&second, &unauthorized, 4600),
        Disposition::StoreDeadLetter(_)
    ));
    let other = failed(Failure::transient(Reason::Timeout, ""));
    let Disposition::Retry(between, _) = decided(&first, &other, 1500) else {
        panic!()
    };
    assert_eq!(between.unauthorized_since, None);
}

#[test]
fn an_attempt_for_a_newer_state_is_retried_until_that_state_is_too_old() {
    let failed = failed(Failure::transient(Reason::ServerError, ""));
    let day = 24 * 3600;
    let for_newer = Processed {
        planned_at: Some(to_proto(at(1000 + day - 60))),
        ..failed.clone()
    };
    let end = 1000 + day + 60;
    let Disposition::Retry(parked, _) = decided(&delivery(), &for_newer, end) else {
        panic!("the newer state has a day left")
    };
    assert_eq!(parked.planned_at, for_newer.planned_at);
    assert!(matches!(
        decided(&delivery(), &failed, end),
        Disposition::StoreDeadLetter(_)
    ));
}

#[test]
fn the_history_is_bounded() {
    let failed = failed(Failure::transient(Reason::Timeout, ""));
    let mut delivery = delivery();
    for _ in 0..30 {
        let Disposition::Retry(parked, _) = decided(&delivery, &failed, 1001) else {
            panic!()
        };
        delivery = *parked;
    }
    assert_eq!(
        (
            delivery.attempts.len(),
            delivery.attempts[0].number,
            delivery.attempt
        ),
        (20, 11, 30)
    );
}

#[test]
fn a_delivery_that_was_not_attempted_is_parked_without_counting_an_attempt() {
    let request = ParkRequest {
        until: at(2000),
        may_be_woken: true,
        slot_ms: 7,
        why: NotAttempted::Paused,
    };
    let decision = decide(
        &delivery(),
        &processed(Refusal::Park(request)),
        at(1001),
        0.5,
    );
    let slotted = Delivery {
        slot_ms: 7,
        ..delivery()
    };
    assert_eq!(
        decision.disposition,
        Disposition::Park(Box::new(slotted), request)
    );
    assert_eq!(
        (decision.outcome, decision.report),
        (NotAttempted::Paused.into(), None)
    );
}

#[test]
fn a_delivery_that_is_given_up_without_an_attempt_keeps_its_history() {
    let why = Refusal::GiveUp(Reason::Exhausted, "the circuit stays open".into());
    let decision = decide(&delivery(), &processed(why), at(1001), 0.5);
    let Disposition::StoreDeadLetter(dead_letter) = decision.disposition else {
        panic!("{:?}", decision.disposition)
    };
    assert_eq!(
        (dead_letter.reason.as_str(), dead_letter.delivery),
        ("exhausted", Some(delivery()))
    );
    assert_eq!(
        (decision.outcome, decision.report.unwrap().attempt.number),
        (Outcome::Dead.into(), 1)
    );
}

#[test]
fn a_delivery_whose_provider_changed_its_type_is_requeued_for_the_new_type() {
    let why = Refusal::TypeChanged("slack");
    let Disposition::Requeue(requeued) = decided(&delivery(), &processed(why), 1001) else {
        panic!("it is requeued")
    };
    assert_eq!(requeued.provider.unwrap().r#type, "slack");
}

fn result() -> impl Strategy<Value = AttemptResult> {
    let reason = prop::sample::select(Reason::ALL.to_vec());
    let retry_after = prop::option::of((0u64..100_000).prop_map(Duration::from_secs));
    let failed = AttemptResult::failed;
    prop_oneof![
        Just(AttemptResult::from(Ended::new(Outcome::Delivered, ""))),
        reason
            .clone()
            .prop_map(move |reason| failed(Failure::permanent(reason, "no"))),
        (reason, retry_after).prop_map(move |(reason, after)| {
            failed(Failure::transient(reason, "later").after(after))
        }),
    ]
}

proptest! {
    /// Follows a delivery from its first attempt to its end, with any results.
    #[test]
    fn every_delivery_ends_in_time_and_with_its_history(
        results in prop::collection::vec((result(), 0.0f64..1.0, 0i64..600), 1..60),
    ) {
        let policy = RetryPolicy::default();
        let (mut current, mut now) = (delivery(), 1000);
        for (result, random, took) in results {
            now += took;
            let processed = Processed { started: at(now - took), ..processed(result) };
            let Decision { disposition, report, .. } =
                decide(&current, &processed, at(now), random);
            let attempt = report.unwrap().attempt;
            prop_assert_eq!(attempt.number, current.attempt + 1);
            let failure = match &processed.result {
                AttemptResult::Failed { failure, .. } => Some(failure),
                _ => None,
            };
            match disposition {
                Disposition::Acknowledge => {
                    prop_assert!(failure.is_none());
                    return Ok(());
                }
                Disposition::Retry(parked, wait) => {
                    let kind = failure.map(|failure| failure.kind);
                    let is_transient = matches!(kind, Some(FailureKind::Transient { .. }));
                    prop_assert!(is_transient);
                    let age = Duration::from_secs((now - 1000).unsigned_abs());
                    prop_assert!(age + wait <= policy.max_age);
                    prop_assert!(parked.attempts.len() <= MOST_ATTEMPTS_KEPT);
                    prop_assert_eq!(parked.attempts.last(), Some(&attempt));
                    prop_assert_eq!(&parked.id, &current.id);
                    prop_assert_eq!(&parked.planned_at, &current.planned_at);
                    now += i64::try_from(wait.as_secs()).unwrap();
                    current = *parked;
                }
                Disposition::StoreDeadLetter(dead_letter) => {
                    prop_assert!(failure.is_some() && !dead_letter.reason.is_empty());
                    let dead = dead_letter.delivery.unwrap();
                    prop_assert_eq!((dead.id, dead.attempts.last()), (current.id, Some(&attempt)));
                    return Ok(());
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
