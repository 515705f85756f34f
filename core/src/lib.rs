//! The vocabulary and the bus of Tidings.
//!
//! ```text
//!  source ─► Event ═► EVENTS ═► match, plan ─► Delivery ═► DELIVERIES ═► attempt ─► Outcome, DeadLetter
//! ```
//!
//! Pure: [`token`], [`subject`], [`id`], [`outcome`], [`retry`], [`flux`]. What talks to the bus: [`stream`], [`bus`].
//! What every role needs around it: [`config`], [`telemetry`], [`admin`].

pub mod config;
pub mod flux;
pub mod id;
pub mod outcome;
pub mod retry;
pub mod subject;
pub mod token;

pub use outcome::{Failure, FailureKind, Outcome, Reason};
pub use tidings_proto::v1::{
    AlertReference, Attempt, DeadLetter, Delivery, Event, ObjectLabels, ObjectReference, ProviderReference, object_labels,
};
pub use tidings_proto::{Message, Timestamp, v1 as wire};
