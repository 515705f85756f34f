//! Workers: they deliver to the services of all provider types.
//!
//! ```text
//!  DELIVERIES ─► worker ─► throttle ─► attempt ─► notifier ─► http ─► the service
//!       ▲           │                     └─ newest_wins (states, in the bucket `latest`)
//!       └─ parked ◄─┴─ DEAD, OUTCOMES
//! ```
//!
//! Each module imports only those to its right, and `message`, `text` and `bounded_map`. Each
//! provider type is one file in [`notifier`].

pub mod attempt;
mod bounded_map;
pub mod http;
pub mod message;
pub mod newest_wins;
pub mod notifier;
pub mod text;
pub mod throttle;
pub mod worker;
