//! Labels of metrics. A label with a closed set of values is an enum of terms.

use prometheus_client::encoding::EncodeLabelSet;

use crate::model::outcome::{Outcome, Reason};
use crate::model::terms::{Term, terms};

/// A label of a metric, as the docs list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, where they are a closed set.
    pub values: Vec<Term>,
}

/// The exemplar of an observation: its trace.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TraceLabel {
    /// The id of the trace, as 32 hexadecimal digits.
    pub trace_id: String,
}

/// A set of labels that can describe itself.
pub trait Labels {
    /// The labels in the order of the metric.
    fn labels() -> Vec<Label>;
}

/// The value of one label that can describe itself.
pub trait LabelValue {
    /// The values, where they are a closed set.
    fn values() -> Vec<Term>;
}

impl LabelValue for String {
    fn values() -> Vec<Term> {
        Vec::new()
    }
}

impl<T: LabelValue> LabelValue for Option<T> {
    fn values() -> Vec<Term> {
        T::values()
    }
}

/// Lets a type with `as_str` be the value of a label, and a set with this one label.
macro_rules! label_value {
    ($name:ident, $label:literal, $terms:expr) => {
        impl prometheus_client::encoding::EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                prometheus_client::encoding::EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }

        impl prometheus_client::encoding::EncodeLabelSet for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                prometheus_client::encoding::EncodeLabel::encode(
                    &($label, self.as_str()),
                    encoder.encode_label(),
                )
            }
        }

        impl $crate::runtime::metrics::labels::LabelValue for $name {
            fn values() -> Vec<$crate::model::terms::Term> {
                $terms.to_vec()
            }
        }

        impl $crate::runtime::metrics::labels::Labels for $name {
            fn labels() -> Vec<$crate::runtime::metrics::labels::Label> {
                use $crate::runtime::metrics::labels::LabelValue as _;
                vec![$crate::runtime::metrics::labels::Label {
                    name: $label,
                    values: Self::values(),
                }]
            }
        }
    };
}

pub(crate) use label_value;

/// Defines a set of several labels.
macro_rules! label_set {
    ($(#[$attribute:meta])* pub struct $name:ident {
        $($(#[$note:meta])* $label:ident: $value:ty,)*
    }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            $($(#[$note])* pub $label: $value,)*
        }

        impl Labels for $name {
            fn labels() -> Vec<Label> {
                vec![$(Label {
                    name: stringify!($label).trim_start_matches("r#"),
                    values: <$value as LabelValue>::values(),
                }),*]
            }
        }
    };
}

terms! {
    /// How a request to the event endpoint ended. Every request ends in exactly one of these.
    pub enum RequestOutcome in label "outcome" {
        Accepted = "accepted", "The event is stored. The sender got 202.";
        Duplicate = "duplicate", "The same event was stored before. The sender got 429.";
        Invalid = "invalid",
            "The request is not an event, or has the wrong path or method. The sender got 400, \
             404, 405 or 408.";
        TooLarge = "too-large", "The event exceeds a size limit. The sender got 413.";
        NotStored = "not-stored",
            "The event cannot be stored now, or its sender cannot be checked. The sender got 503 \
             and should send it again.";
        Unauthorized = "unauthorized",
            "The sender has no valid token, or may not send events. The sender got 401 or 403.";
        Abandoned = "abandoned",
            "The sender closed the connection before the answer. The event may be stored.";
    }
}

terms! {
    /// Why a TLS handshake did not end in a connection.
    pub enum HandshakeFailure in label "reason" {
        Failed = "failed", "The sender ended it, or does not trust the certificate.";
        TimedOut = "timed-out", "It was not complete after ten seconds.";
        Displaced = "displaced", "Too many were open, and it was the oldest.";
        Plaintext = "plaintext", "The sender does not use TLS. It got 400.";
    }
}

terms! {
    /// How the console answered a request to its API.
    pub enum ConsoleOutcome in label "outcome" {
        Answered = "answered", "The request was answered.";
        Invalid = "invalid", "The path does not exist, or a parameter or the method is invalid.";
        WrongHost = "wrong-host",
            "The header `Host` is not a name in `console.hosts`, or the request comes from a page \
             of another site. It got 403.";
        Unauthenticated = "unauthenticated", "There is no valid bearer token. It got 401.";
        NotAllowed = "not-allowed",
            "An action needs a token of `console.tokens.operate`, or the user may not do it in the \
             namespace. It got 403.";
        Busy = "busy", "Too many requests or streams were open. It got 503.";
        Failed = "failed",
            "The bus or the Kubernetes API did not answer, or not in time. It got 503.";
    }
}

terms! {
    /// The result of checking a sender's token.
    pub enum AuthenticationOutcome in label "outcome" {
        Token = "token", "The token is one of `ingest.auth.tokens`.";
        Reviewed = "reviewed", "The Kubernetes API knows the token, and its user may send events.";
        Missing = "missing", "There is no bearer token. The sender got 401.";
        Unknown = "unknown", "The token is not valid. The sender got 401.";
        NotAllowed = "not-allowed",
            "The token is valid, but `ingest.auth.token_review.users` does not name its user. The \
             sender got 403.";
        Unavailable = "unavailable",
            "The Kubernetes API cannot be asked. The sender got 503 and should send it again.";
        Busy = "busy",
            "Too many other tokens were being reviewed. The sender got 503 and should send it \
             again.";
    }
}

terms! {
    /// The result of a Kubernetes Event that ingest read.
    pub enum KubernetesEventOutcome in label "outcome" {
        Accepted = "accepted", "The event is stored.";
        Duplicate = "duplicate", "The same event was stored before.";
        Repeated = "repeated",
            "The Event only increased its count within `ingest.kubernetes_events.repeat_interval`.";
        Filtered = "filtered", "The settings exclude the Event.";
        Invalid = "invalid", "The Event is not usable.";
        TooLarge = "too-large", "The event is larger than the NATS server accepts and is lost.";
    }
}

terms! {
    /// The result of reading the labels of an event's object.
    pub enum LabelLookup in label "outcome" {
        Found = "found", "The object exists; its labels are added to the event.";
        NotFound = "not-found", "The object does not exist.";
        Unknown = "unknown", "The API server did not answer in time, or denied access.";
    }
}

terms! {
    /// The result of routing an event.
    pub enum RoutingOutcome in label "outcome" {
        Planned = "planned", "At least one delivery is planned and stored.";
        Recorded = "recorded",
            "Shadow mode: what would have been delivered is recorded, and nothing is sent.";
        Unmatched = "unmatched", "No alert matches the event.";
        Undecodable = "undecodable", "The message is not an event and is dropped.";
        OtherCluster = "other-cluster",
            "The message names another cluster than its subject. It is refused: no alert sees it.";
    }
}

terms! {
    /// What a worker would do with a delivery that shadow mode records.
    pub enum ShadowOutcome in label "outcome" {
        WouldSend = "would-send", "It would send the recorded requests.";
        WouldSkip = "would-skip", "The provider type sends nothing for this event.";
        WouldWait = "would-wait",
            "It would park the delivery: the Provider is suspended, or something that it names \
             does not exist.";
        WouldFail = "would-fail",
            "It would store a dead letter, because the delivery cannot succeed.";
    }
}

terms! {
    /// What became of a copy of an event for `ingest.tee.url`.
    pub enum TeeOutcome in label "outcome" {
        Sent = "sent", "The URL answered 2xx, or 429 because it knows the event.";
        Failed = "failed",
            "The URL refused the copy, or did not accept it within a minute. It is not sent again.";
        Dropped = "dropped", "Too many copies waited, so this one was never sent.";
    }
}

terms! {
    /// What became of a span of a trace.
    pub enum SpanOutcome in label "outcome" {
        Exported = "exported", "The collector took it.";
        Failed = "failed", "The collector refused it, or did not take it at three attempts.";
        Dropped = "dropped", "Too many spans waited, so this one was never sent.";
    }
}

terms! {
    /// The result of an event in a bridge.
    pub enum BridgeOutcome in label "outcome" {
        Forwarded = "forwarded", "The URL answered 2xx, or the stream stored the event.";
        Duplicate = "duplicate", "The stream had stored the event before.";
        Rejected = "rejected",
            "The URL answered five times that it cannot take this event (400, 413, 422), or the \
             event is larger than the NATS server accepts. It is not sent again.";
        Undecodable = "undecodable", "The message is not an event and is dropped.";
    }
}

terms! {
    /// The result of an event that an edge sends to the hub.
    pub enum EdgeOutcome in label "outcome" {
        Forwarded = "forwarded", "The hub stored the event.";
        Found = "found",
            "The hub had stored the event before its confirmation was lost. The edge found it \
             there and did not send it again.";
        Duplicate = "duplicate",
            "The event was sent, and the hub's server recognized that it had stored it before.";
        Refused = "refused",
            "The message is no event of the edge's ingest. It is not forwarded.";
    }
}

terms! {
    /// The result of writing a status or a Kubernetes Event to the API server.
    pub enum StatusWriteOutcome in label "outcome" {
        Written = "written", "The API server accepted it.";
        NotFound = "not-found", "The object no longer exists.";
        Rejected = "rejected", "The API server rejected it as invalid (400, 422). It is dropped.";
        Failed = "failed", "Any other error. The write is retried.";
    }
}

terms! {
    /// Where a delivery was that is lost.
    pub enum LostFrom in label "from" {
        Ready = "ready", "It was ready for an attempt.";
        Parked = "parked", "It was parked.";
        Skipped = "skipped",
            "It is stored and ready, but its consumer has passed it. Delete the consumer: workers \
             recreate it, and it delivers everything that is stored.";
    }
}

terms! {
    /// Why a worker released a delivery without an attempt.
    pub enum NotAttempted in label "outcome" {
        AlreadyParked = "already-parked",
            "A redelivered delivery whose earlier copy is parked. It is acknowledged.";
        Requeued = "requeued", "The provider's type changed. The delivery moved to the new type.";
        Suspended = "suspended", "Parked: the provider is suspended.";
        StateLocked = "state-locked", "Parked: another delivery of the same state is being sent.";
        RateLimited = "rate-limited", "Parked until the send time that the rate limit allows.";
        NoPermit = "no-permit",
            "Parked: the destination has as many concurrent calls as `maxInFlight` allows, or as \
             one worker makes.";
        NoMemory = "no-memory",
            "Parked for a moment: the deliveries in flight hold as much memory as allowed.";
        CircuitOpen = "circuit-open", "Parked: the destination's circuit breaker is open.";
        Paused = "paused", "Parked: deliveries to the destination are paused.";
        Redelivered = "redelivered", "The bus did not answer. JetStream redelivers the delivery.";
        Undecodable = "undecodable", "The message is not a delivery and is dropped.";
    }
}

/// The result of a message in a worker: an attempt, or a release without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryOutcome {
    /// An attempt ended.
    Attempted(Outcome),
    /// No attempt was made.
    NotAttempted(NotAttempted),
}

impl DeliveryOutcome {
    /// The text for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempted(outcome) => outcome.as_str(),
            Self::NotAttempted(why) => why.as_str(),
        }
    }
}

impl From<Outcome> for DeliveryOutcome {
    fn from(outcome: Outcome) -> Self {
        Self::Attempted(outcome)
    }
}

impl From<NotAttempted> for DeliveryOutcome {
    fn from(why: NotAttempted) -> Self {
        Self::NotAttempted(why)
    }
}

label_value!(
    DeliveryOutcome,
    "outcome",
    [Outcome::TERMS, NotAttempted::TERMS].concat()
);

terms! {
    /// What ended a child process that evaluated an expression.
    pub enum KilledBy in label "cause" {
        CpuTime = "cpu-time", "The expression needs more CPU time than it may use.";
        Memory = "memory", "The expression needs more memory or stack than it may use.";
        Deadline = "deadline", "The child did not answer in time, and used little CPU time.";
        Unclear = "unclear", "Something else. The expression was evaluated once more.";
    }
}

label_set! {
    /// A cluster of the fleet.
    pub struct ClusterLabel {
        /// Its name; `*` or `(other)` for all clusters beyond the first 500.
        cluster: String,
    }
}

label_set! {
    /// A source of rules.
    pub struct SourceLabel {
        /// `cluster`, `folder`, or the name of a member of the fleet.
        source: String,
    }
}

label_set! {
    /// The provider type alone.
    pub struct TypeLabel {
        /// The provider type.
        r#type: String,
    }
}

label_set! {
    /// The labels of what waits for workers.
    pub struct QueueLabels {
        /// The pool.
        pool: String,
        /// The provider type; empty if the Provider did not exist.
        r#type: String,
    }
}

label_set! {
    /// The labels of a record of shadow mode.
    pub struct ShadowLabels {
        /// The provider type; empty if the Provider does not exist.
        r#type: String,
        /// What a worker would do.
        outcome: ShadowOutcome,
    }
}

label_set! {
    /// The labels of an attempt.
    pub struct AttemptLabels {
        /// The provider type.
        r#type: String,
        /// How it ended.
        outcome: Outcome,
        /// Why it did not deliver.
        reason: Option<Reason>,
        /// The Provider's namespace, or `(other)`.
        namespace: String,
        /// The Provider, or `(other)`.
        provider: String,
    }
}

label_set! {
    /// The version of the process.
    pub struct BuildLabels {
        /// The version.
        version: String,
        /// The commit that it was built from, or `unknown`.
        commit: String,
    }
}

label_set! {
    /// The labels of a message that a worker finished or released.
    pub struct DeliveryLabels {
        /// The provider type; empty where the message cannot be decoded.
        r#type: String,
        /// What the worker did with it.
        outcome: DeliveryOutcome,
        /// The Provider's namespace, or `(other)`.
        namespace: String,
        /// The Provider, or `(other)`.
        provider: String,
    }
}

label_set! {
    /// The labels of a circuit.
    pub struct CircuitLabels {
        /// The Provider's namespace.
        namespace: String,
        /// The Provider's name.
        provider: String,
        /// The channel; `*` for the whole Provider.
        channel: String,
    }
}

label_set! {
    /// The name of a stream or bucket on the server.
    pub struct StreamLabel {
        /// The name; buckets start with `KV_`.
        stream: String,
    }
}
