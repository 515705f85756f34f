//! Writes status to Alerts and Providers, and Kubernetes Events about dead letters.
//!
//! ```text
//!  rules ───► ready_condition ─┐
//!  OUTCOMES ─► outcomes ───────┼─► status_cache ─► write_queue ─► apply ─► API server
//!  circuits ───────────────────┘                                   ▲
//!  DEAD ─────► event_series ───────────────────────────────────────┘
//! ```
//!
//! One replica writes: the holder of a Lease, whose annotations say how far the streams are
//! processed. `writer` feeds a `leader_term`, which decides what to write. Nothing here reads back
//! what it wrote, so no write causes another.
//!
//! Pure: [`ready_condition`], [`outcomes`], [`status_cache`], [`event_series`], [`write_queue`].

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
