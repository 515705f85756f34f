//! How an attempt ends, and why it did not deliver.

use std::fmt;
use std::time::Duration;

use crate::model::terms::terms;

terms! {
    /// How an attempt ended. Every outcome except `retrying` also ends the delivery.
    pub enum Outcome in label "outcome" {
        Delivered = "delivered", "The service accepted the message.";
        Duplicate = "duplicate", "The service has this state already. No call was made.";
        Superseded = "superseded", "A newer event of the same state exists. No call was made.";
        Skipped = "skipped", "The provider type sends nothing for this event.";
        Retrying = "retrying", "The attempt failed. The delivery is parked until the next one.";
        Dead = "dead", "The delivery was given up and is stored as a dead letter.";
    }
}

terms! {
    /// Why an attempt did not deliver.
    pub enum Reason in label "reason" {
        Unauthorized = "unauthorized", "The service did not accept the credentials (401, 403).";
        NotFound = "not-found", "The service does not know the address (404, 410).";
        Rejected = "rejected", "The service understood the request and rejected it.";
        RateLimited = "rate-limited", "The service asks to slow down (429).";
        Unreachable = "unreachable",
            "No connection: refused or reset, or DNS or TLS failed.";
        AnswerUnknown = "answer-unknown",
            "The service answered with a success whose body broke off. It may have accepted the \
             message.";
        UntrustedCertificate = "untrusted-certificate",
            "The certificate of the service is not trusted, expired, or for another name.";
        Timeout = "timeout", "The service did not answer within the provider's timeout.";
        ServerError = "server-error", "The service failed (5xx).";
        Misconfigured = "misconfigured", "The Provider or its Secret is invalid.";
        Missing = "missing", "The Provider or its Secret does not exist.";
        Suspended = "suspended", "The Provider is suspended.";
        Crashed = "crashed",
            "The worker process ended repeatedly during the attempt, or the attempt panicked.";
        Exhausted = "exhausted",
            "The retries reached the provider's maximum age. The detail has the last failure.";
        EventGone = "event-gone", "The event of the delivery is no longer stored.";
        Restored = "restored",
            "The hub was restored from a backup that held the event. The service may have a newer \
             state.";
        Discarded = "discarded",
            "An operator removed the delivery's cluster with `tidings fleet remove --discard`.";
    }
}

/// Why an attempt did not deliver, and whether another attempt can succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether another attempt can succeed.
    pub kind: FailureKind,
    /// The reason, for metrics and filters.
    pub reason: Reason,
    /// The details in a sentence without secrets.
    pub detail: String,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
}

/// Whether another attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No: a person must fix the cause.
    Permanent,
    /// Yes, but not before the time that the service asked for.
    Transient {
        /// The wait that the service asked for, such as `Retry-After`.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// A failure that another attempt cannot fix.
    pub fn permanent(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Permanent,
            reason,
            detail: detail.into(),
            status: None,
        }
    }

    /// A failure after which another attempt can succeed.
    pub fn transient(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Transient { retry_after: None },
            reason,
            detail: detail.into(),
            status: None,
        }
    }

    /// Adds the wait that the service asked for.
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        if wait.is_some() {
            self.kind = FailureKind::Transient { retry_after: wait };
        }
        self
    }

    /// Adds the HTTP status of the answer.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.detail)
    }
}
