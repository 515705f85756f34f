//! Workers: they deliver to the services of all provider types.
//!
//! ```text
//!  DELIVERIES ─► worker ─► newest_wins ─► throttle ─► attempt ─► notifier ─► http ─► the service
//!       ▲           │      (only states: bucket `latest`)
//!       └─ parked ◄─┴─► DEAD, OUTCOMES
//! ```
//!
//! A module imports only modules to its right, and `message`, `text`, `tls`, `bounded_map`,
//! `expression` and `accountability`. Each provider type is one file in [`notifier`].

pub mod accountability;
pub mod attempt;
mod bounded_map;
pub mod differences;
pub mod expression;
pub mod http;
pub mod memory;
pub mod message;
pub mod newest_wins;
pub mod notifier;
pub mod rule_checks;
pub mod shadow;
pub mod text;
pub mod throttle;
mod tls;
pub mod worker;
