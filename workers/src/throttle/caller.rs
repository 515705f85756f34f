//! One attempt's leave to call its service: asked for when it is known that there is something to
//! say.

use std::time::Duration;

use tidings_core::bus::BusError;
use tidings_core::model::circuit::CallResult;
use tidings_core::{Failure, FailureKind, ProtoTimestamp, Reason};

use super::{Call, Leave, Parking, Pass, Throttle};
use crate::worker::decide::later;

/// Asks for one attempt, and remembers what its calls have shown.
pub struct Caller<'a> {
    throttle: &'a Throttle,
    call: Call<'a>,
    pass: Option<Pass>,
    seen: Option<CallResult>,
    refusal: Option<Refusal>,
}

/// Why an attempt may not call.
pub enum Refusal {
    /// It is to be parked.
    Park(Parking),
    /// It would wait beyond its age.
    GiveUp(String),
    /// The bus can't be asked.
    NotKnown(BusError),
}

impl<'a> Caller<'a> {
    /// For an attempt that has not begun.
    pub fn new(throttle: &'a Throttle, call: Call<'a>) -> Self {
        Self {
            throttle,
            call,
            pass: None,
            seen: None,
            refusal: None,
        }
    }

    /// Whether the service may be called now; if not, the refusal says what to do instead. Each
    /// writing call asks anew.
    pub async fn may_call(&mut self) -> bool {
        self.end_call().await;
        match self.throttle.ask(&self.call).await {
            Ok(Leave::Go(pass)) => {
                self.pass = Some(pass);
                // The next call needs another slot.
                self.call.slot_ms = 0;
            }
            Ok(Leave::Park(parking)) => self.refusal = Some(Refusal::Park(parking)),
            Ok(Leave::GiveUp(why)) => self.refusal = Some(Refusal::GiveUp(why)),
            Err(error) => self.refusal = Some(Refusal::NotKnown(error)),
        }
        self.refusal.is_none()
    }

    /// The attempt is for a state that was planned then: its delivery is not given up before that
    /// one's age ends.
    pub fn is_for(&mut self, planned_at: Option<ProtoTimestamp>) {
        self.call.planned_at = later(self.call.planned_at, planned_at);
    }

    /// When the newest of what the attempt is for was planned.
    pub fn planned_at(&self) -> Option<ProtoTimestamp> {
        self.call.planned_at
    }

    /// Notes how a call went. The failure holds no secret.
    pub fn saw(&mut self, failure: Option<&Failure>) {
        self.seen = seen(failure).or(self.seen.take());
    }

    /// Tells the others what was seen; gives the refusal, where there was one.
    pub async fn end(mut self) -> Option<Refusal> {
        self.end_call().await;
        self.refusal
    }

    async fn end_call(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.throttle
                .ended(&self.call, pass, self.seen.take())
                .await;
        }
    }
}

/// How an attempt ends that was refused; what becomes of its delivery is in the refusal.
pub fn not_now() -> Failure {
    Failure::transient(Reason::RateLimited, "the service may not be called now")
}

/// What a call has shown of its destination: whoever answers works, whatever the answer is.
fn seen(failure: Option<&Failure>) -> Option<CallResult> {
    let Some(failure) = failure else {
        return Some(CallResult::Answered);
    };
    match (failure.kind, failure.reason) {
        (
            FailureKind::Transient {
                retry_after: Some(wait),
            },
            Reason::RateLimited,
        ) => Some(CallResult::AskedToWait(
            wait.max(Duration::from_millis(1)),
            failure.detail.clone(),
        )),
        (
            FailureKind::Transient { .. },
            Reason::RateLimited | Reason::Timeout | Reason::ServerError | Reason::Unreachable,
        ) => Some(CallResult::Failed(failure.detail.clone())),
        _ => failure.status.map(|_| CallResult::Answered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_shows_of_its_destination() {
        let failed = |reason| Some(Failure::transient(reason, "why"));
        let wait = Some(Duration::from_secs(9));
        for (failure, shown) in [
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
                failed(Reason::RateLimited).map(|failure| failure.after(wait)),
                Some(CallResult::AskedToWait(
                    Duration::from_secs(9),
                    "why".into(),
                )),
            ),
            (
                failed(Reason::ServerError).map(|failure| failure.after(wait)),
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
            assert_eq!(seen(failure.as_ref()), shown, "{failure:?}");
        }
    }
}
