//! The core of Tidings: the model, the bus and the runtime that all roles share.
//!
//! ```text
//!  ingest            router                         workers
//!    │ Event           ▲ │ Delivery                   ▲ │ Outcome, DeadLetter
//!    ▼                 │ ▼                            │ ▼
//!  EVENTS ─────────────┘ DELIVERIES ──────────────────┘ OUTCOMES, DEAD
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`model`] | ids, subjects, outcomes, the retry policy, circuits: pure functions and values |
//! | [`bus`] | everything that talks to NATS JetStream |
//! | [`runtime`] | settings, logs, metrics, health, the admin endpoint, leader election |
//! | [`wire`] | the protobuf messages, generated from `proto/tidings/v1` |
//!
//! # Invariants
//!
//! - A message is acknowledged only after its results are stored.
//! - The id of an event is created once, by ingest. All other ids are derived from it.
//! - [`model`] does no I/O and reads no clock: time and randomness are arguments. The one exception
//!   is [`model::jitter::jitter`].
//! - Messages are published only in [`bus`], and settings are read only in [`runtime::config`].

pub mod bus;
pub mod model;
pub mod runtime;

pub use model::destination::Destination;
pub use model::outcome::{Failure, FailureKind, Outcome, Reason};
pub use tidings_proto::v1::{
    AlertReference, Attempt, DeadLetter, Delivery, Event, ObjectLabels, ObjectReference,
    ProviderReference, TemplateReference, object_labels,
};
pub use tidings_proto::{Message, Timestamp as ProtoTimestamp, v1 as wire};
