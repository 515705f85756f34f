//! What becomes of a message once its attempt has ended: the decision, without doing it.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::retry::{AttemptContext, Decision, RetryPolicy};
use tidings_core::model::time::{between, from_proto, to_proto};
use tidings_core::{Attempt, DeadLetter, Delivery, Failure, Outcome, ProtoTimestamp, Reason};

use crate::attempt::Ended;

/// So many attempts are kept in a delivery; of more, the first ones go.
const MOST_ATTEMPTS_KEPT: usize = 20;

/// What to do with the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// Acknowledge it.
    Done,
    /// Park this copy for so long, then acknowledge it.
    Park(Box<Delivery>, Duration),
    /// Keep this letter, then acknowledge it.
    Bury(Box<DeadLetter>),
}

/// An attempt that has ended.
pub struct Tried {
    /// When it began.
    pub started: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub result: Result<Ended, Failure>,
    /// When the newest state was planned that the attempt was for, where that is another
    /// delivery's.
    pub newest: Option<ProtoTimestamp>,
    /// What is wrong with the template; empty where nothing is.
    pub template_error: String,
}

/// Decides, and tells the attempt as it goes into the history. `random` is in 0..1.
pub fn settle(
    delivery: &Delivery,
    tried: &Tried,
    policy: &RetryPolicy,
    now: Timestamp,
    random: f64,
) -> (Settlement, Attempt) {
    let number = delivery.attempt + 1;
    let failure = match &tried.result {
        Ok(ended) => {
            return (
                Settlement::Done,
                record(
                    number,
                    tried,
                    ended.outcome,
                    "",
                    &ended.detail,
                    ended.status,
                ),
            );
        }
        Err(failure) => failure,
    };
    let mut delivery = Delivery {
        attempt: number,
        slot_ms: 0,
        ..delivery.clone()
    };
    if failure.reason == Reason::Unauthorized {
        delivery.unauthorized_since = delivery
            .unauthorized_since
            .or_else(|| Some(to_proto(tried.started)));
    } else {
        delivery.unauthorized_since = None;
    }
    // Deliveries of a key coalesce into one, which must not give up while a newer state still has
    // time.
    delivery.planned_at = later(delivery.planned_at, tried.newest);
    let standing = AttemptContext {
        attempt: number,
        age: since(delivery.planned_at, now).unwrap_or_default(),
        unauthorized_for: since(delivery.unauthorized_since, now),
    };
    let decision = policy.decide(failure, standing, random);
    let outcome = if matches!(decision, Decision::Park(_)) {
        Outcome::Retrying
    } else {
        Outcome::Dead
    };
    let attempt = record(
        number,
        tried,
        outcome,
        failure.reason.as_str(),
        &failure.detail,
        failure.status,
    );
    push(&mut delivery, attempt.clone());
    let settlement = match decision {
        Decision::Park(wait) => Settlement::Park(Box::new(delivery), wait),
        Decision::Dead(reason) => {
            Settlement::Bury(Box::new(letter(delivery, reason, &failure.detail, now)))
        }
    };
    (settlement, attempt)
}

/// A dead letter.
pub fn letter(delivery: Delivery, reason: Reason, detail: &str, now: Timestamp) -> DeadLetter {
    DeadLetter {
        delivery: Some(delivery),
        reason: reason.as_str().to_owned(),
        detail: detail.to_owned(),
        died_at: Some(to_proto(now)),
    }
}

/// The later of two times, where there are any.
pub fn later(one: Option<ProtoTimestamp>, other: Option<ProtoTimestamp>) -> Option<ProtoTimestamp> {
    one.into_iter()
        .chain(other)
        .max_by_key(|time| (time.seconds, time.nanos))
}

fn record(
    number: u32,
    tried: &Tried,
    outcome: Outcome,
    reason: &str,
    detail: &str,
    status: Option<u16>,
) -> Attempt {
    Attempt {
        number,
        started_at: Some(to_proto(tried.started)),
        duration_ms: u32::try_from(tried.took.as_millis()).unwrap_or(u32::MAX),
        outcome: outcome.as_str().to_owned(),
        reason: reason.to_owned(),
        detail: detail.to_owned(),
        status: status.map_or(0, u32::from),
        template_error: tried.template_error.clone(),
    }
}

fn push(delivery: &mut Delivery, attempt: Attempt) {
    if delivery.attempts.len() >= MOST_ATTEMPTS_KEPT {
        delivery.attempts.remove(0);
    }
    delivery.attempts.push(attempt);
}

fn since(time: Option<ProtoTimestamp>, now: Timestamp) -> Option<Duration> {
    from_proto(time).map(|time| between(time, now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_core::FailureKind;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn tried(result: Result<Ended, Failure>) -> Tried {
        let (started, took) = (at(1000), Duration::from_millis(7));
        Tried {
            started,
            took,
            result,
            newest: None,
            template_error: "line 1: no".into(),
        }
    }

    fn delivery() -> Delivery {
        Delivery {
            id: "d".into(),
            planned_at: Some(to_proto(at(1000))),
            ..Delivery::default()
        }
    }

    #[test]
    fn what_ended_well_is_done() {
        let tried = tried(Ok(Ended {
            outcome: Outcome::Delivered,
            status: Some(200),
            detail: String::new(),
        }));
        let (settlement, attempt) =
            settle(&delivery(), &tried, &RetryPolicy::default(), at(1001), 0.5);
        assert_eq!(settlement, Settlement::Done);
        assert_eq!(
            (
                attempt.number,
                attempt.outcome.as_str(),
                attempt.status,
                attempt.duration_ms
            ),
            (1, "delivered", 200, 7)
        );
        assert_eq!(attempt.template_error, "line 1: no");
    }

    #[test]
    fn what_may_pass_is_parked_with_its_history() {
        let tried = tried(Err(Failure::transient(
            Reason::ServerError,
            "h answered 503",
        )
        .with_status(503)));
        let (settlement, _) = settle(&delivery(), &tried, &RetryPolicy::default(), at(1001), 0.5);
        let Settlement::Park(parked, wait) = settlement else {
            panic!("{settlement:?}")
        };
        assert_eq!(
            (parked.attempt, parked.attempts.len(), wait),
            (1, 1, Duration::from_secs(1))
        );
        assert_eq!(parked.attempts[0].reason, "server-error");
    }

    #[test]
    fn what_is_given_up_is_buried_with_reason_last_answer_and_attempts() {
        let tried = tried(Err(Failure::permanent(
            Reason::Rejected,
            "h answered 400: no",
        )
        .with_status(400)));
        let (settlement, attempt) =
            settle(&delivery(), &tried, &RetryPolicy::default(), at(1001), 0.5);
        let Settlement::Bury(letter) = settlement else {
            panic!("{settlement:?}")
        };
        assert_eq!(
            (
                letter.reason.as_str(),
                letter.detail.as_str(),
                attempt.outcome.as_str()
            ),
            ("rejected", "h answered 400: no", "dead")
        );
        assert_eq!(letter.delivery.unwrap().attempts[0].status, 400);
    }

    #[test]
    fn the_hour_for_credentials_counts_from_the_first_refusal_and_starts_anew() {
        let refused = tried(Err(Failure::transient(Reason::Unauthorized, "401")));
        let settled = |delivery: &Delivery, tried: &Tried, now| {
            settle(delivery, tried, &RetryPolicy::default(), at(now), 0.0).0
        };
        let Settlement::Park(first, _) = settled(&delivery(), &refused, 1001) else {
            panic!()
        };
        let Settlement::Park(second, _) = settled(&first, &refused, 4500) else {
            panic!()
        };
        assert!(matches!(
            settled(&second, &refused, 4600),
            Settlement::Bury(_)
        ));
        let other = tried(Err(Failure::transient(Reason::Timeout, "")));
        let Settlement::Park(between, _) = settled(&first, &other, 1500) else {
            panic!()
        };
        assert_eq!(between.unauthorized_since, None);
    }

    #[test]
    fn a_delivery_that_stands_for_a_newer_one_has_its_age() {
        let failed = Err(Failure::transient(Reason::ServerError, ""));
        let day = 24 * 3600;
        let later = Tried {
            newest: Some(to_proto(at(1000 + day - 60))),
            ..tried(failed.clone())
        };
        let decided = |tried: &Tried| {
            settle(
                &delivery(),
                tried,
                &RetryPolicy::default(),
                at(1000 + day + 60),
                0.0,
            )
            .0
        };
        let Settlement::Park(parked, _) = decided(&later) else {
            panic!("the newer one has a day left")
        };
        assert_eq!(parked.planned_at, later.newest);
        assert!(matches!(decided(&tried(failed)), Settlement::Bury(_)));
    }

    #[test]
    fn the_history_is_bounded() {
        let failed = tried(Err(Failure::transient(Reason::Timeout, "")));
        let mut kept = delivery();
        for _ in 0..30 {
            let (Settlement::Park(parked, _), _) =
                settle(&kept, &failed, &RetryPolicy::default(), at(1001), 0.0)
            else {
                panic!()
            };
            kept = *parked;
        }
        assert_eq!(
            (kept.attempts.len(), kept.attempts[0].number, kept.attempt),
            (20, 11, 30)
        );
    }

    fn result() -> impl Strategy<Value = Result<Ended, Failure>> {
        let reason = prop::sample::select(Reason::ALL.to_vec());
        let retry_after = prop::option::of((0u64..100_000).prop_map(Duration::from_secs));
        prop_oneof![
            Just(Ok(Ended::new(Outcome::Delivered, ""))),
            reason
                .clone()
                .prop_map(|reason| Err(Failure::permanent(reason, "no"))),
            (reason, retry_after)
                .prop_map(|(reason, after)| Err(Failure::transient(reason, "later").after(after))),
        ]
    }

    proptest! {
        /// A delivery's whole life, whatever its attempts end with: nothing is lost on the way, and it does end.
        #[test]
        fn every_delivery_ends_in_time_and_with_its_history(
            results in prop::collection::vec((result(), 0.0f64..1.0, 0i64..600), 1..60),
        ) {
            let policy = RetryPolicy::default();
            let (mut kept, mut now) = (delivery(), 1000);
            for (result, random, took) in results {
                now += took;
                let tried = Tried { started: at(now - took), took: Duration::ZERO, ..tried(result) };
                let (settlement, attempt) = settle(&kept, &tried, &policy, at(now), random);
                prop_assert_eq!(attempt.number, kept.attempt + 1);
                match settlement {
                    Settlement::Done => {
                        prop_assert!(tried.result.is_ok());
                        return Ok(());
                    }
                    Settlement::Park(parked, wait) => {
                        let transient =
                            tried.result.as_ref().is_err_and(|failure| matches!(failure.kind, FailureKind::Transient { .. }));
                        prop_assert!(transient);
                        prop_assert!(Duration::from_secs((now - 1000).unsigned_abs()) + wait <= policy.max_age);
                        prop_assert!(parked.attempts.len() <= MOST_ATTEMPTS_KEPT);
                        prop_assert_eq!(parked.attempts.last(), Some(&attempt));
                        prop_assert_eq!((&parked.id, &parked.planned_at), (&kept.id, &kept.planned_at));
                        now += i64::try_from(wait.as_secs()).unwrap();
                        kept = *parked;
                    }
                    Settlement::Bury(letter) => {
                        prop_assert!(tried.result.is_err() && !letter.reason.is_empty());
                        let buried = letter.delivery.unwrap();
                        prop_assert_eq!((buried.id, buried.attempts.last()), (kept.id, Some(&attempt)));
                        return Ok(());
                    }
                }
            }
        }
    }
}
