//! Ingest stores events on the bus. It receives them over HTTP and can watch Kubernetes Events.
//!
//! ```text
//!  POST / ─► body ─► decode ─► normalize ─► labels ─► EventStore ─► 202 | 429 | 503
//!                              ▲ Event, ids
//!  Kubernetes Events ─► convert┘
//! ```
//!
//! # Invariants
//! - A sender gets 202 only after the server confirmed that the event is stored.
//! - The id of an event is computed here, once.
//! - Every request is counted under exactly one [`RequestOutcome`].
//! - [`parse_event`] is pure: it does no I/O and reads no clock.
//!
//! # Where to look
//! - [`http`] receives requests, `body` reads them, [`BodyBudget`] limits their memory, `response`
//!   maps results to HTTP. Connections are those of [`tidings_core::runtime::http_server`].
//! - [`authentication`] checks tokens, before a body is read, if the settings require them.
//! - [`decode`] reads JSON, [`normalize`] builds the event, [`bus_store`] stores it;
//!   [`late_store`] refuses it until there is a bus, and [`state_change`] decides about duplicates.
//! - [`tee`] posts copies of stored events to another receiver.
//! - [`kubernetes`] watches Kubernetes Events and looks up labels of objects.

pub mod authentication;
mod body;
mod body_budget;
pub mod bus_store;
pub mod decode;
pub mod http;
pub mod kubernetes;
pub mod late_store;
pub mod normalize;
pub mod quota;
mod response;
pub mod state_change;
pub mod store;
pub mod tee;
pub mod timestamp;

pub use authentication::{Authentication, KubernetesReviewer};
pub use body_budget::BodyBudget;
pub use bus_store::BusStore;
pub use http::{Ingest, router};
pub use late_store::LateStore;
pub use normalize::{InvalidEvent, parse_event};
pub use quota::Quota;
pub use store::{EventStore, StoreAck, StoreError, StoreErrorReason};
pub use tee::Tee;
pub use tidings_core::runtime::metrics::labels::RequestOutcome;
