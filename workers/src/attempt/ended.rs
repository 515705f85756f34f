//! How an attempt ends, from a notifier's answer to the decision about the delivery.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::metrics::labels::NotAttempted;
use tidings_core::{Failure, Outcome, Reason};

use crate::notifier::contract::Sent;

/// The detail of a duplicate.
pub const SAME_STATE: &str = "the service has this state already";

/// The end of an attempt that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Delivered, duplicate, superseded or skipped.
    pub outcome: Outcome,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// Details for people; empty if the outcome says enough.
    pub detail: String,
}

/// The result of processing a delivery.
#[derive(Clone, Debug)]
pub enum AttemptResult {
    /// The attempt did not fail.
    Ended {
        /// How it ended.
        ended: Ended,
        /// The delivery whose newer state was written instead, if there is one.
        on_behalf_of: Option<String>,
    },
    /// The attempt failed.
    Failed {
        /// Why, without secrets.
        failure: Failure,
        /// Whether the state is in the key's record. Then any delivery of the key can retry it;
        /// otherwise only this delivery has it.
        is_recorded: bool,
    },
    /// No attempt was made, or it has to wait for another delivery of the same state. This is not a
    /// failure: it counts neither as an attempt of the delivery nor against its destination.
    Refused(Refusal),
}

/// Why no attempt was made, and what to do with the delivery instead.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A worker parked the delivery and died before it acknowledged the message: acknowledge it.
    AlreadyParked,
    /// The Provider has this type now: publish the delivery for the workers of that type.
    TypeChanged(&'static str),
    /// Park the delivery.
    Park(ParkRequest),
    /// Store a dead letter with this reason and detail.
    GiveUp(Reason, String),
    /// The bus did not answer: do not acknowledge the message, so that it is redelivered.
    BusUnavailable(BusError),
}

/// How to park a delivery that was not attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkRequest {
    /// The end of the wait, by the server's clock.
    pub until: Timestamp,
    /// Whether the delivery is woken earlier if its circuit closes.
    pub may_be_woken: bool,
    /// The delivery's reserved slot, in milliseconds since 1970; 0 if it has none.
    pub slot_ms: i64,
    /// Why the delivery was not attempted.
    pub why: NotAttempted,
}

// === impl Ended ===

impl Ended {
    /// An end without a response of the service.
    pub fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            status: None,
            detail: detail.into(),
        }
    }

    /// Skipped: the provider type sends nothing for the event.
    pub fn nothing_to_send() -> Self {
        Self::new(
            Outcome::Skipped,
            "the provider type sends nothing for this event",
        )
    }
}

impl From<Sent> for Ended {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Accepted { status, .. } => Self {
                status,
                ..Self::new(Outcome::Delivered, String::new())
            },
            Sent::Skipped(why) => Self::new(Outcome::Skipped, why),
        }
    }
}

// === impl AttemptResult ===

impl AttemptResult {
    /// A failure whose state, if it has one, is in no record.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed {
            failure,
            is_recorded: false,
        }
    }
}

impl From<Ended> for AttemptResult {
    fn from(ended: Ended) -> Self {
        Self::Ended {
            ended,
            on_behalf_of: None,
        }
    }
}

impl From<Result<Ended, Failure>> for AttemptResult {
    fn from(result: Result<Ended, Failure>) -> Self {
        result.map_or_else(Self::failed, Self::from)
    }
}

impl From<Refusal> for AttemptResult {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

impl From<BusError> for AttemptResult {
    fn from(error: BusError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<BusError> for Refusal {
    fn from(error: BusError) -> Self {
        Self::BusUnavailable(error)
    }
}

// === impl Refusal ===

impl Refusal {
    /// The refusal of a delivery that keeps this reserved slot while it is parked.
    pub fn with_slot(self, slot_ms: i64) -> Self {
        match self {
            Self::Park(request) => Self::Park(ParkRequest { slot_ms, ..request }),
            other => other,
        }
    }
}

// === impl ParkRequest ===

impl ParkRequest {
    /// Parks for `wait` and up to a quarter more at random, so that deliveries that are parked
    /// together do not return together.
    pub fn after(bus: &Bus, wait: Duration, why: NotAttempted) -> Self {
        let wait = wait + jitter(wait / 4) + Duration::from_millis(50);
        let until = bus.clock().after(wait);
        Self {
            until,
            may_be_woken: false,
            slot_ms: 0,
            why,
        }
    }
}
