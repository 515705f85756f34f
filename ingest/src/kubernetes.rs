//! Reads from the cluster: Kubernetes Events, and the labels of involved objects.
//!
//! ```text
//!  API server ─ watch, list ─► reader ─► filter, repeat_filter ─► convert ─► EventStore
//!      ▲                                                                        │ in order
//!      └────────────────── cursor, in the Lease of the watching replica ◄───────┘
//! ```
//!
//! One replica watches Events: the leader. [`watch`] is its loop. [`recovery`] finds the events
//! that a killed leader stored after it last saved its cursor. [`objects`] looks up labels in every
//! replica.
//!
//! Pure: [`filter`], [`repeat_filter`], [`convert`], [`cursor`].

pub mod convert;
pub mod cursor;
pub mod filter;
pub mod objects;
pub mod reader;
pub mod recovery;
pub mod repeat_filter;
pub mod watch;

pub use objects::Objects;
pub use watch::EventWatch;
