//! Ingest: events onto the bus, by HTTP and from the cluster.
//!
//! ```text
//!  POST / ─► decode ─► normalise ─► labels ─► EventStore ─► 202 | 429 | 503
//!            bytes  ┌► Event, ids              PubAck
//!  watch ─► report ─┘
//! ```
//!
//! Invariants: a sender gets its 202 only after the event is stored; an event's id is drawn here,
//! once; every request ends in one counted outcome ([`RequestOutcome`]). [`take`] is pure: it does no I/O
//! and reads no clock.

mod body;
pub mod bus_store;
pub mod decode;
pub mod http;
pub mod kubernetes;
pub mod normalise;
mod response;
pub mod serve;
pub mod store;
pub mod timestamp;

pub use bus_store::BusStore;
pub use http::{Ingest, router};
pub use normalise::{Refused, take};
pub use serve::serve;
pub use store::{EventStore, NotStored, NotStoredReason, Stored};
pub use tidings_core::runtime::metrics::labels::RequestOutcome;
