//! Writes status to Alerts and Providers, and Kubernetes Events about dead letters.
//!
//! ```text
//!  rules ───► ready_condition ─┐
//!  OUTCOMES ─► outcomes ───────┼─► status_cache ─► write_queue ─► apply ─► API server
//!  circuits ───────────────────┘                                   ▲
//!  DEAD ─────► event_series ───────────────────────────────────────┘
//! ```
//!
//! One replica writes: the leader, which holds a Lease. The Lease's annotations say how far the
//! streams are processed. `writer` passes input to a `leader_term`, which decides what to write.
//! The written statuses are never input, so no write causes another. Where rules come from several
//! clusters, each API server has a leader of its own, which sees what is about its rules
//! (`ownership`).
//!
//! Pure: [`ready_condition`], [`outcomes`], [`status_cache`], [`event_series`], [`lost_events`],
//! [`write_queue`].

pub mod event_series;
pub mod lost_events;
pub mod outcomes;
mod ownership;
pub mod ready_condition;
pub mod status_cache;
pub mod write_queue;

mod apply;
mod leader_term;
mod stream_reader;
mod writer;

pub use leader_term::StatusContext;
pub use writer::StatusWriter;
