//! How an attempt ends, in closed sets of words that metrics, dead letters and logs share.

use std::fmt;
use std::time::Duration;

/// Why an attempt did not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The credentials were not accepted (401, 403).
    Unauthorized,
    /// The service doesn't know the address (404, 410).
    NotFound,
    /// The service understood the request and refused it.
    Rejected,
    /// The service asks to slow down.
    RateLimited,
    /// No connection: refused, reset, DNS, TLS.
    Unreachable,
    /// No answer within the provider's timeout.
    Timeout,
    /// The service failed (5xx).
    ServerError,
    /// The Provider or its Secret can't be used as it is.
    Misconfigured,
    /// There is no such Provider or Secret (yet).
    Missing,
    /// The Provider is suspended.
    Suspended,
    /// The process that attempted it ended, again and again.
    Crashed,
    /// The retries have used up their time; what was last wrong is in the detail.
    Exhausted,
    /// The event of the delivery is no longer stored.
    EventGone,
}

impl Reason {
    /// Every reason, for help texts and filters.
    pub const ALL: [Self; 13] = [
        Self::Unauthorized,
        Self::NotFound,
        Self::Rejected,
        Self::RateLimited,
        Self::Unreachable,
        Self::Timeout,
        Self::ServerError,
        Self::Misconfigured,
        Self::Missing,
        Self::Suspended,
        Self::Crashed,
        Self::Exhausted,
        Self::EventGone,
    ];

    /// The word for metrics, headers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not-found",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate-limited",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::ServerError => "server-error",
            Self::Misconfigured => "misconfigured",
            Self::Missing => "missing",
            Self::Suspended => "suspended",
            Self::Crashed => "crashed",
            Self::Exhausted => "exhausted",
            Self::EventGone => "event-gone",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An attempt that did not deliver: whether trying again can help is in the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether another attempt can succeed.
    pub kind: FailureKind,
    /// Why, as a word.
    pub reason: Reason,
    /// Why, as a sentence without secrets.
    pub detail: String,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
}

/// Whether another attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It can't: only a person can mend it.
    Permanent,
    /// It may, not before the time that the service asked for.
    Transient {
        /// What the service asked for (Retry-After and its like).
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// A failure that another attempt can't mend.
    pub fn permanent(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Permanent,
            reason,
            detail: detail.into(),
            status: None,
        }
    }

    /// A failure that may pass.
    pub fn transient(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Transient { retry_after: None },
            reason,
            detail: detail.into(),
            status: None,
        }
    }

    /// Adds how long the service asked to wait.
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

/// The words for how an attempt ended; `retrying` alone is not the end of its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The service accepted it.
    Delivered,
    /// The service has this state already; no call was made.
    Duplicate,
    /// A newer state of the same key exists; no call was made.
    Superseded,
    /// There is nothing to send for this event by the type's own rules.
    Skipped,
    /// It is parked until its next attempt.
    Retrying,
    /// It was given up and is kept as a dead letter.
    Dead,
}

impl Outcome {
    /// The word for subjects, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::Skipped => "skipped",
            Self::Retrying => "retrying",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
