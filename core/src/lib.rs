//! The vocabulary and the bus of Tidings.
//!
//! ```text
//!  source ─► Event ═► EVENTS ═► match, plan ─► Delivery ═► DELIVERIES ═► attempt ─► Outcome, DeadLetter
//! ```
//!
//! Pure: [`token`], [`subject`], [`id`], [`outcome`], [`retry`], [`circuit`], [`destination`], [`flux`]. What talks to the bus: [`stream`], [`bus`].
//! What every role needs around it: [`config`], [`telemetry`], [`metrics`], [`health`], [`admin`], [`failpoint`].

pub mod admin;
pub mod bus;
pub mod circuit;
pub mod config;
pub mod destination;
pub mod failpoint;
pub mod flux;
pub mod health;
pub mod id;
pub mod kubernetes;
pub mod metrics;
pub mod outcome;
pub mod retry;
pub mod stream;
pub mod subject;
pub mod telemetry;
pub mod token;

pub use destination::Destination;
pub use outcome::{Failure, FailureKind, Outcome, Reason};
pub use tidings_proto::v1::{
    AlertReference, Attempt, DeadLetter, Delivery, Event, ObjectLabels, ObjectReference, ProviderReference, TemplateReference,
    object_labels,
};
pub use tidings_proto::{Message, Timestamp, v1 as wire};
