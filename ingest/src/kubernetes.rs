//! What ingest has of the cluster that it belongs to: its Events, and the labels of the objects
//! that events are about.
//!
//! ```text
//!  API server ─ watch, lists ─► source ─► filter, repeats ─► report ─► normalise ─► EventStore
//!       ▲                                                                              │ in order
//!       └───────────────────── cursor, in the Lease of the watching replica ◄──────────┘
//! ```
//!
//! Pure: [`filter`], [`convert`], [`repeat_filter`], [`cursor`].

pub mod cursor;
pub mod filter;
pub mod objects;
pub mod recovery;
pub mod repeat_filter;
pub mod convert;
pub mod reader;
pub mod watch;

pub use objects::Objects;
pub use watch::EventWatch;
