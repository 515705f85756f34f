//! The retry policy: when the next attempt of a delivery is due, or whether it becomes a dead
//! letter. A pure function of the failure, the number of the attempt and the age of the delivery.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

use crate::model::outcome::{Failure, FailureKind, Reason};

/// How long 401 and 403 are retried, because a token may be in rotation.
pub const UNAUTHORIZED_FOR: Duration = Duration::from_secs(3600);
/// The wait before the only repetition of a call whose answer is unknown. The service may have
/// accepted the call, so each repetition may be a duplicate.
pub const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// An absurd wait that a service requests ends this long before the delivery is given up, or a
/// tenth of `max_age` if that is shorter.
const LAST_ATTEMPT_BEFORE_END: Duration = Duration::from_secs(60);

/// The retry settings of a Provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The upper bound of the first wait.
    pub min: Duration,
    /// The upper bound of all waits, except longer ones that the service requests (`Retry-After`).
    pub max: Duration,
    /// The age since planning at which a delivery becomes a dead letter.
    pub max_age: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(2),
            max: Duration::from_secs(600),
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// The state of a delivery after a failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct AttemptContext {
    /// The number of the attempt that failed, from 1.
    pub attempt: u32,
    /// The time since planning.
    pub age: Duration,
    /// The time since the first 401 or 403. `None` if there was none.
    pub unauthorized_for: Option<Duration>,
    /// Whether the answer of an earlier attempt was unknown.
    pub was_unknown: bool,
}

/// The decision about a delivery after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Park it for this time.
    Park(Duration),
    /// Make it a dead letter with this reason.
    Dead(Reason),
}

impl RetryPolicy {
    /// Decides after a failed attempt. `random` is in 0..1.
    pub fn decide(&self, failure: &Failure, context: AttemptContext, random: f64) -> RetryDecision {
        let FailureKind::Transient { retry_after } = failure.kind else {
            return RetryDecision::Dead(failure.reason);
        };
        let is_over = failure.reason == Reason::Unauthorized
            && context.unauthorized_for.unwrap_or_default() >= UNAUTHORIZED_FOR;
        if is_over {
            return RetryDecision::Dead(Reason::Unauthorized);
        }
        if failure.reason == Reason::AnswerUnknown {
            return match context.was_unknown || context.age + REPEAT_AFTER > self.max_age {
                true => RetryDecision::Dead(Reason::AnswerUnknown),
                false => RetryDecision::Park(REPEAT_AFTER),
            };
        }
        let backoff = self.backoff(context.attempt, random);
        let requested = retry_after.unwrap_or_default();
        let is_in_time = |wait: &Duration| context.age.saturating_add(*wait) <= self.max_age;
        let waits = [
            requested.max(backoff),
            self.longest_wait(context.age).min(requested).max(backoff),
        ];
        // If no attempt would be in time, the delivery ends now instead of after the wait.
        match waits.into_iter().find(is_in_time) {
            Some(wait) => RetryDecision::Park(wait),
            None => RetryDecision::Dead(Reason::Exhausted),
        }
    }

    /// The longest wait that leaves time for one more attempt, of a delivery of this age. Near its
    /// end a delivery has no such time: then the result is what any wait has at least.
    pub fn longest_wait(&self, age: Duration) -> Duration {
        let margin = LAST_ATTEMPT_BEFORE_END.min(self.max_age / 10);
        self.max_age
            .saturating_sub(age)
            .saturating_sub(margin)
            .max(margin)
    }

    /// Exponential backoff with full jitter: a random part of the bound for this attempt.
    fn backoff(&self, attempt: u32, random: f64) -> Duration {
        let mut policy = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.min)
            .with_max_interval(self.max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        let mut bound = self.min;
        // Beyond 64 doublings every bound is at its maximum.
        for _ in 0..attempt.min(64) {
            bound = policy.next_backoff().unwrap_or(self.max);
        }
        bound.min(self.max).mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(attempt: u32, age: u64) -> AttemptContext {
        AttemptContext {
            attempt,
            age: Duration::from_secs(age),
            unauthorized_for: None,
            was_unknown: false,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_bound_doubles_from_min_to_max() {
        let policy = RetryPolicy::default();
        let failure = Failure::transient(Reason::ServerError, "");
        for (attempt, bound) in [(1, 2), (2, 4), (3, 8), (9, 512), (10, 600), (1000, 600)] {
            assert_eq!(
                policy.decide(&failure, context(attempt, 0), 1.0),
                RetryDecision::Park(seconds(bound)),
                "{attempt}"
            );
        }
        assert_eq!(
            policy.decide(&failure, context(3, 0), 0.25),
            RetryDecision::Park(seconds(2))
        );
    }

    #[test]
    fn a_wait_that_the_service_requests_is_kept_in_full() {
        let failure = Failure::transient(Reason::RateLimited, "").after(Some(seconds(7200)));
        assert_eq!(
            RetryPolicy::default().decide(&failure, context(1, 0), 0.5),
            RetryDecision::Park(seconds(7200))
        );
    }

    #[test]
    fn a_delivery_is_dead_when_its_next_attempt_would_be_too_late() {
        let policy = RetryPolicy::default();
        let failure = Failure::transient(Reason::Timeout, "");
        assert_eq!(
            policy.decide(&failure, context(1, 24 * 3600), 1.0),
            RetryDecision::Dead(Reason::Exhausted)
        );
    }

    #[test]
    fn a_wait_that_the_service_requests_never_shortens_the_backoff() {
        let policy = RetryPolicy::default();
        for wait in [0, 1, 63] {
            let failure = Failure::transient(Reason::RateLimited, "").after(Some(seconds(wait)));
            assert_eq!(
                policy.decide(&failure, context(6, 0), 1.0),
                RetryDecision::Park(seconds(64)),
                "{wait}"
            );
        }
    }

    #[test]
    fn an_absurd_wait_ends_before_the_delivery_does_and_only_once() {
        let policy = RetryPolicy::default();
        let day = 24 * 3600;
        for wait in [day + 1, 10 * 365 * day, u64::MAX] {
            let failure = Failure::transient(Reason::RateLimited, "").after(Some(seconds(wait)));
            for (age, decision) in [
                (0, RetryDecision::Park(seconds(day - 60))),
                (day / 2, RetryDecision::Park(seconds(day / 2 - 60))),
                (day - 90, RetryDecision::Park(seconds(60))),
                (day - 59, RetryDecision::Dead(Reason::Exhausted)),
                (day + 9, RetryDecision::Dead(Reason::Exhausted)),
            ] {
                assert_eq!(
                    policy.decide(&failure, context(1, age), 0.5),
                    decision,
                    "{age}"
                );
            }
        }
    }

    #[test]
    fn a_permanent_failure_is_dead_at_once() {
        let failure = Failure::permanent(Reason::Rejected, "");
        assert_eq!(
            RetryPolicy::default().decide(&failure, context(1, 0), 0.0),
            RetryDecision::Dead(Reason::Rejected)
        );
    }

    #[test]
    fn unauthorized_is_retried_for_an_hour() {
        let failure = Failure::transient(Reason::Unauthorized, "");
        let after = |seconds| AttemptContext {
            unauthorized_for: Some(Duration::from_secs(seconds)),
            ..context(5, 7200)
        };
        assert!(matches!(
            RetryPolicy::default().decide(&failure, after(3599), 0.5),
            RetryDecision::Park(_)
        ));
        assert_eq!(
            RetryPolicy::default().decide(&failure, after(3600), 0.5),
            RetryDecision::Dead(Reason::Unauthorized)
        );
    }

    #[test]
    fn a_call_whose_answer_is_unknown_is_repeated_once_after_a_minute() {
        let failure = Failure::transient(Reason::AnswerUnknown, "");
        let again = AttemptContext {
            was_unknown: true,
            ..context(9, 60)
        };
        for (context, decision) in [
            (context(1, 0), RetryDecision::Park(seconds(60))),
            (context(7, 3600), RetryDecision::Park(seconds(60))),
            (again, RetryDecision::Dead(Reason::AnswerUnknown)),
            (
                context(1, 24 * 3600),
                RetryDecision::Dead(Reason::AnswerUnknown),
            ),
        ] {
            let policy = RetryPolicy::default();
            assert_eq!(policy.decide(&failure, context, 0.5), decision);
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_max(attempt in 1u32..5000, random in 0.0f64..1.0) {
            let policy = RetryPolicy::default();
            let failure = Failure::transient(Reason::ServerError, "");
            let decision = policy.decide(&failure, context(attempt, 0), random);
            let RetryDecision::Park(wait) = decision else {
                return Err(TestCaseError::fail("dead"));
            };
            prop_assert!(wait <= policy.max);
        }
    }
}
