//! Workers: deliveries to every provider type.
//!
//! ```text
//!  DELIVERIES ═► worker ─► attempt ─► notifier ─► the service
//!       ▲           │         └─ keep (states: newest wins, in the bucket `latest`)
//!       └─ parked ◄─┴─ settle ─► DEAD, OUTCOMES
//! ```
//!
//! Pure: [`settle`], [`latest`], [`keeping`], [`classify`], [`text`], [`rendered`]. One file for
//! each provider type in [`notifier`].

pub mod attempt;
mod bounded_map;
pub mod http;
pub mod message;
pub mod newest_wins;
pub mod notifier;
pub mod throttle;
pub mod worker;
