//! The vocabulary and the bus of Tidings.
//!
//! ```text
//!  source ─► Event ═► EVENTS ═► match, plan ─► Delivery ═► DELIVERIES ═► attempt ─► Outcome, DeadLetter
//! ```
//!
//! Pure: [`token`], [`subject`], [`id`], [`outcome`], [`retry`], [`circuit`], [`destination`],
//! [`flux`]. What talks to the bus: [`stream`], [`bus`]. What every role needs around it:
//! [`config`], [`telemetry`], [`metrics`], [`health`], [`admin`], [`failpoint`].

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
