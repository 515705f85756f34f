//! The decision about a processed message, as a pure function.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::bus::BusError;
use tidings_core::model::retry::{AttemptContext, RetryDecision, RetryPolicy};
use tidings_core::model::time::{between, from_proto, to_proto};
use tidings_core::runtime::metrics::labels::{DeliveryOutcome, NotAttempted};
use tidings_core::{Attempt, DeadLetter, Delivery, Failure, Outcome, ProtoTimestamp, Reason};

use crate::attempt::{AttemptResult, ParkRequest, Refusal};
use crate::throttle::limits::later;

/// A delivery carries this many of its last attempts.
const MOST_ATTEMPTS_KEPT: usize = 20;

/// A processed message: the result, and what else the decision depends on.
#[derive(Clone, Debug)]
pub struct Processed {
    /// When processing began.
    pub started: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// The result.
    pub result: AttemptResult,
    /// The Provider's policy; the default if the Provider could not be resolved.
    pub retry: RetryPolicy,
    /// The key under which the delivery is parked: its id, or the key of its state.
    pub park_key: String,
    /// When the delivery was planned, or the newest state that the attempt was for.
    pub planned_at: Option<ProtoTimestamp>,
    /// Why the template failed; empty if it did not fail.
    pub template_error: String,
    /// Why the state conflicts with one of another cluster; empty if it does not.
    pub conflict: String,
}

/// What to do with a message, and what to report.
#[derive(Debug)]
pub struct Decision {
    /// What to do with the message.
    pub disposition: Disposition,
    /// The outcome in metrics.
    pub outcome: DeliveryOutcome,
    /// What to report, if an attempt was made or the delivery is given up.
    pub report: Option<AttemptReport>,
}

/// An attempt as it is counted, logged and published.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptReport {
    /// The attempt's entry in the history.
    pub attempt: Attempt,
    /// Its outcome.
    pub outcome: Outcome,
    /// Why it failed, if it did.
    pub reason: Option<Reason>,
    /// The delivery whose newer state was written instead, if there is one.
    pub on_behalf_of: Option<String>,
}

/// What to store before the message is acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub enum Disposition {
    /// Nothing.
    Acknowledge,
    /// Park this copy for this long: its attempt failed.
    Retry(Box<Delivery>, Duration),
    /// Park this copy: it was not attempted.
    Park(Box<Delivery>, ParkRequest),
    /// Publish this copy under the subject of its Provider's current type.
    Requeue(Box<Delivery>),
    /// Store this dead letter.
    StoreDeadLetter(Box<DeadLetter>),
    /// Do not acknowledge the message, so that it is redelivered.
    Leave(BusError),
}

impl Processed {
    /// The result of a delivery, with the default retry policy and the delivery's id as park key.
    pub fn new(delivery: &Delivery, result: impl Into<AttemptResult>) -> Self {
        Self {
            started: Timestamp::now(),
            took: Duration::ZERO,
            result: result.into(),
            retry: RetryPolicy::default(),
            park_key: delivery.id.clone(),
            planned_at: delivery.planned_at,
            template_error: String::new(),
            conflict: String::new(),
        }
    }
}

impl AttemptReport {
    fn failed(attempt: Attempt, outcome: Outcome, reason: Reason) -> Self {
        Self {
            attempt,
            outcome,
            reason: Some(reason),
            on_behalf_of: None,
        }
    }
}

/// Decides about a processed message. `random` is in 0..1 and is the jitter of a retry.
pub fn decide(delivery: &Delivery, processed: &Processed, now: Timestamp, random: f64) -> Decision {
    match &processed.result {
        AttemptResult::Ended {
            ended,
            on_behalf_of,
        } => {
            let outcome = ended.outcome;
            let attempt = Attempt {
                outcome: outcome.as_str().to_owned(),
                detail: ended.detail.clone(),
                status: ended.status.map_or(0, u32::from),
                ..attempt(delivery, processed)
            };
            let on_behalf_of = on_behalf_of.clone();
            Decision {
                disposition: Disposition::Acknowledge,
                outcome: outcome.into(),
                report: Some(AttemptReport {
                    attempt,
                    outcome,
                    reason: None,
                    on_behalf_of,
                }),
            }
        }
        AttemptResult::Failed { failure, .. } => {
            decide_failed(delivery, processed, failure, now, random)
        }
        AttemptResult::Refused(why) => decide_not_attempted(delivery, processed, why, now),
    }
}

fn decide_failed(
    delivery: &Delivery,
    processed: &Processed,
    failure: &Failure,
    now: Timestamp,
    random: f64,
) -> Decision {
    let mut next = Delivery {
        attempt: delivery.attempt + 1,
        slot_ms: 0,
        // Parked deliveries of a key replace each other. The one that remains must not be given up
        // before its newest state is too old.
        planned_at: later(delivery.planned_at, processed.planned_at),
        unauthorized_since: None,
        ..delivery.clone()
    };
    if failure.reason == Reason::Unauthorized {
        let since = delivery
            .unauthorized_since
            .unwrap_or_else(|| to_proto(processed.started));
        next.unauthorized_since = Some(since);
    }
    let context = AttemptContext {
        attempt: next.attempt,
        age: since(next.planned_at, now).unwrap_or_default(),
        unauthorized_for: since(next.unauthorized_since, now),
        was_unknown: delivery
            .attempts
            .iter()
            .any(|attempt| attempt.reason == Reason::AnswerUnknown.as_str()),
    };
    let retry = processed.retry.decide(failure, context, random);
    let outcome = match retry {
        RetryDecision::Park(_) => Outcome::Retrying,
        RetryDecision::Dead(_) => Outcome::Dead,
    };
    let attempt = Attempt {
        outcome: outcome.as_str().to_owned(),
        reason: failure.reason.as_str().to_owned(),
        detail: failure.detail.clone(),
        status: failure.status.map_or(0, u32::from),
        ..attempt(delivery, processed)
    };
    push(&mut next, attempt.clone());
    let disposition = match retry {
        RetryDecision::Park(wait) => Disposition::Retry(Box::new(next), wait),
        RetryDecision::Dead(reason) => {
            let dead_letter = dead_letter(next, reason, &failure.detail, now);
            Disposition::StoreDeadLetter(Box::new(dead_letter))
        }
    };
    Decision {
        disposition,
        outcome: outcome.into(),
        report: Some(AttemptReport::failed(attempt, outcome, failure.reason)),
    }
}

fn decide_not_attempted(
    delivery: &Delivery,
    processed: &Processed,
    why: &Refusal,
    now: Timestamp,
) -> Decision {
    let mut next = delivery.clone();
    let (disposition, outcome) = match why {
        Refusal::AlreadyParked => (Disposition::Acknowledge, NotAttempted::AlreadyParked.into()),
        Refusal::TypeChanged(kind) => {
            next.provider.get_or_insert_default().r#type = (*kind).to_owned();
            (
                Disposition::Requeue(Box::new(next)),
                NotAttempted::Requeued.into(),
            )
        }
        Refusal::Park(request) => {
            (next.slot_ms, next.planned_at) = (request.slot_ms, processed.planned_at);
            (
                Disposition::Park(Box::new(next), *request),
                request.why.into(),
            )
        }
        Refusal::BusUnavailable(error) => (
            Disposition::Leave(error.clone()),
            NotAttempted::Redelivered.into(),
        ),
        Refusal::GiveUp(reason, detail) => {
            let dead_letter = dead_letter(next, *reason, detail, now);
            let outcome = Outcome::Dead;
            let attempt = Attempt {
                outcome: outcome.as_str().to_owned(),
                reason: reason.as_str().to_owned(),
                detail: detail.clone(),
                number: delivery.attempt + 1,
                ..Attempt::default()
            };
            return Decision {
                disposition: Disposition::StoreDeadLetter(Box::new(dead_letter)),
                outcome: outcome.into(),
                report: Some(AttemptReport::failed(attempt, outcome, *reason)),
            };
        }
    };
    Decision {
        disposition,
        outcome,
        report: None,
    }
}

fn dead_letter(delivery: Delivery, reason: Reason, detail: &str, now: Timestamp) -> DeadLetter {
    DeadLetter {
        delivery: Some(delivery),
        reason: reason.as_str().to_owned(),
        detail: detail.to_owned(),
        died_at: Some(to_proto(now)),
    }
}

/// The attempt's entry in the history, without its outcome.
fn attempt(delivery: &Delivery, processed: &Processed) -> Attempt {
    Attempt {
        number: delivery.attempt + 1,
        started_at: Some(to_proto(processed.started)),
        duration_ms: u32::try_from(processed.took.as_millis()).unwrap_or(u32::MAX),
        template_error: processed.template_error.clone(),
        conflict: processed.conflict.clone(),
        ..Attempt::default()
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
mod tests;
