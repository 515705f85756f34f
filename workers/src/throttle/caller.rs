//! The calls of one attempt. Each call first asks the throttle; its result goes to the circuit.

use std::time::Duration;

use tidings_core::model::circuit::CallResult;
use tidings_core::{Failure, FailureKind, ProtoTimestamp, Reason};

use super::{Call, Permit, Throttle, limits};
use crate::attempt::Refusal;

/// Makes the calls of one attempt, one after the other.
pub struct Caller<'a> {
    throttle: &'a Throttle,
    call: Call<'a>,
    permit: Option<Permit>,
    result: Option<CallResult>,
}

impl<'a> Caller<'a> {
    /// For an attempt that has not made a call yet.
    pub fn new(throttle: &'a Throttle, call: Call<'a>) -> Self {
        Self {
            throttle,
            call,
            permit: None,
            result: None,
        }
    }

    /// Asks to call the service now. This ends the call before, if there was one.
    ///
    /// # Errors
    /// The service cannot be called now. The refusal says what to do with the delivery.
    pub async fn admit(&mut self) -> Result<(), Refusal> {
        self.end_call().await;
        self.permit = Some(self.throttle.admit(&self.call).await?);
        // The next call needs another slot.
        self.call.slot_ms = 0;
        Ok(())
    }

    /// Notes that the attempt is also for a state that was planned at `planned_at`. The delivery is
    /// not given up before that state is too old.
    pub fn extend_age(&mut self, planned_at: Option<ProtoTimestamp>) {
        self.call.planned_at = limits::later(self.call.planned_at, planned_at);
    }

    /// When the newest state that the attempt is for was planned.
    pub fn planned_at(&self) -> Option<ProtoTimestamp> {
        self.call.planned_at
    }

    /// Notes the result of a call. The failure holds no secrets.
    pub fn record(&mut self, failure: Option<&Failure>) {
        let age = self.throttle.age(&self.call);
        let longest_wait = self.call.provider.retry.longest_wait(age);
        self.result = call_result(failure, longest_wait).or(self.result.take());
    }

    /// Ends the last call and reports it to the other workers.
    pub async fn end(mut self) {
        self.end_call().await;
    }

    async fn end_call(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.throttle
                .end_call(&self.call, permit, self.result.take())
                .await;
        }
    }
}

/// What the result of a call says about its destination. A destination that answers works, even if
/// it rejects the request.
fn call_result(failure: Option<&Failure>, longest_wait: Duration) -> Option<CallResult> {
    let Some(failure) = failure else {
        return Some(CallResult::Answered);
    };
    match (failure.kind, failure.reason) {
        (
            FailureKind::Transient {
                retry_after: Some(wait),
            },
            Reason::RateLimited,
        ) => Some(CallResult::AskedToWait {
            wait: wait.min(longest_wait),
            is_cut: wait > longest_wait,
            reason: failure.detail.clone(),
        }),
        (
            FailureKind::Transient { .. },
            Reason::RateLimited
            | Reason::Timeout
            | Reason::ServerError
            | Reason::Unreachable
            | Reason::UntrustedCertificate
            | Reason::AnswerUnknown,
        ) => Some(CallResult::Failed(failure.detail.clone())),
        _ => failure.status.map(|_| CallResult::Answered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_answers_works_and_only_outages_count_as_failures() {
        let failed = |reason| Some(Failure::transient(reason, "why"));
        let longest = Duration::from_secs(20);
        let asked = |seconds| {
            let wait = Duration::from_secs(seconds);
            failed(Reason::RateLimited).map(|failure| failure.after(Some(wait)))
        };
        let wait = |seconds, is_cut| {
            Some(CallResult::AskedToWait {
                wait: Duration::from_secs(seconds),
                is_cut,
                reason: "why".into(),
            })
        };
        for (failure, expected) in [
            (None, Some(CallResult::Answered)),
            (
                failed(Reason::Timeout),
                Some(CallResult::Failed("why".into())),
            ),
            (
                failed(Reason::RateLimited),
                Some(CallResult::Failed("why".into())),
            ),
            (
                failed(Reason::UntrustedCertificate),
                Some(CallResult::Failed("why".into())),
            ),
            (
                failed(Reason::AnswerUnknown).map(|failure| failure.with_status(200)),
                Some(CallResult::Failed("why".into())),
            ),
            (asked(9), wait(9, false)),
            (asked(21), wait(20, true)),
            (
                failed(Reason::ServerError).map(|failure| failure.after(Some(longest))),
                Some(CallResult::Failed("why".into())),
            ),
            (
                failed(Reason::Unauthorized).map(|failure| failure.with_status(401)),
                Some(CallResult::Answered),
            ),
            (
                Some(Failure::permanent(Reason::Rejected, "why").with_status(400)),
                Some(CallResult::Answered),
            ),
            (Some(Failure::permanent(Reason::Misconfigured, "why")), None),
            (failed(Reason::Crashed), None),
        ] {
            assert_eq!(
                call_result(failure.as_ref(), longest),
                expected,
                "{failure:?}"
            );
        }
    }
}
