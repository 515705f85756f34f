//! When a failed delivery is tried again: a pure function of the failure, the attempt and the
//! delivery's age.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

use crate::model::outcome::{Failure, FailureKind, Reason};

/// How long 401 and 403 are tried again: a token may be in rotation.
pub const UNAUTHORIZED_FOR: Duration = Duration::from_secs(3600);

/// The bounds of a Provider's retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The upper bound of the first wait.
    pub min: Duration,
    /// The upper bound of every wait that the service did not ask for.
    pub max: Duration,
    /// The age, counted from planning, after which a delivery is given up.
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

/// What is known of a delivery when its fate is decided.
#[derive(Clone, Copy, Debug)]
pub struct AttemptContext {
    /// The number of the attempt that failed, from 1.
    pub attempt: u32,
    /// The time since planning.
    pub age: Duration,
    /// The time since the first 401 or 403, where there was one.
    pub unauthorized_for: Option<Duration>,
}

/// What becomes of a delivery whose attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is parked for this long.
    Park(Duration),
    /// It becomes a dead letter for this reason.
    Dead(Reason),
}

impl RetryPolicy {
    /// Decides about a failed attempt. `random` is in 0..1 and spreads the waits over their whole
    /// range (full jitter).
    pub fn decide(&self, failure: &Failure, standing: AttemptContext, random: f64) -> Decision {
        let FailureKind::Transient { retry_after } = failure.kind else {
            return Decision::Dead(failure.reason);
        };
        let given_up = failure.reason == Reason::Unauthorized
            && standing.unauthorized_for.unwrap_or_default() >= UNAUTHORIZED_FOR;
        if given_up {
            return Decision::Dead(Reason::Unauthorized);
        }
        let wait = retry_after.unwrap_or_else(|| self.backoff(standing.attempt, random));
        // What waits beyond its end is given up now, with its cause at hand, rather than then.
        if standing.age + wait > self.max_age {
            return Decision::Dead(Reason::Exhausted);
        }
        Decision::Park(wait)
    }

    /// Full jitter: anything up to the exponential bound of this attempt.
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

    fn standing(attempt: u32, age: u64) -> AttemptContext {
        AttemptContext {
            attempt,
            age: Duration::from_secs(age),
            unauthorized_for: None,
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
                policy.decide(&failure, standing(attempt, 0), 1.0),
                Decision::Park(seconds(bound)),
                "{attempt}"
            );
        }
        assert_eq!(
            policy.decide(&failure, standing(3, 0), 0.25),
            Decision::Park(seconds(2))
        );
    }

    #[test]
    fn what_the_service_asks_for_is_honoured_in_full() {
        let failure = Failure::transient(Reason::RateLimited, "").after(Some(seconds(7200)));
        assert_eq!(
            RetryPolicy::default().decide(&failure, standing(1, 0), 0.5),
            Decision::Park(seconds(7200))
        );
    }

    #[test]
    fn a_delivery_is_given_up_when_it_would_outlive_its_age() {
        let policy = RetryPolicy::default();
        let failure = Failure::transient(Reason::Timeout, "");
        assert_eq!(
            policy.decide(&failure, standing(1, 24 * 3600), 1.0),
            Decision::Dead(Reason::Exhausted)
        );
        let far = failure.after(Some(seconds(25 * 3600)));
        assert_eq!(
            policy.decide(&far, standing(1, 0), 1.0),
            Decision::Dead(Reason::Exhausted)
        );
    }

    #[test]
    fn a_permanent_failure_is_buried_at_once() {
        let failure = Failure::permanent(Reason::Rejected, "");
        assert_eq!(
            RetryPolicy::default().decide(&failure, standing(1, 0), 0.0),
            Decision::Dead(Reason::Rejected)
        );
    }

    #[test]
    fn credentials_have_an_hour_to_be_mended() {
        let failure = Failure::transient(Reason::Unauthorized, "");
        let after = |seconds| AttemptContext {
            unauthorized_for: Some(Duration::from_secs(seconds)),
            ..standing(5, 7200)
        };
        assert!(matches!(
            RetryPolicy::default().decide(&failure, after(3599), 0.5),
            Decision::Park(_)
        ));
        assert_eq!(
            RetryPolicy::default().decide(&failure, after(3600), 0.5),
            Decision::Dead(Reason::Unauthorized)
        );
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_max(attempt in 1u32..5000, random in 0.0f64..1.0) {
            let policy = RetryPolicy::default();
            let decision = policy.decide(&Failure::transient(Reason::ServerError, ""), standing(attempt, 0), random);
            let Decision::Park(wait) = decision else { return Err(TestCaseError::fail("buried")) };
            prop_assert!(wait <= policy.max);
        }
    }
}
