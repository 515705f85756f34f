//! Status on Alerts and Providers, and Kubernetes Events on Alerts whose deliveries are given up.
//!
//! ```text
//!  rules ───► finding ─┐
//!  OUTCOMES ─► news ───┼─► board ─► pacer ─► apply ─► the API server
//!  circuits ───────────┘
//!  DEAD ────► series ───────────────┘
//! ```
//!
//! One replica writes: the holder of a Lease, which carries how far the streams are reflected.
//! Pure: [`finding`], [`news`], [`board`], [`series`], [`pacer`]. Nothing here reads back what it
//! writes, so no write causes another.

pub mod event_series;
pub mod outcomes;
pub mod ready_condition;
pub mod status_cache;
pub mod write_queue;

mod apply;
mod leader_term;
mod stream_reader;
mod writer;

pub use writer::StatusWriter;
