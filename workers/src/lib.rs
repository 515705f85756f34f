//! Workers: deliveries to every provider type.
//!
//! ```text
//!  DELIVERIES ═► worker ─► attempt ─► notifier ─► the service
//!       ▲           │         └─ keep (states: newest wins, in the bucket `latest`)
//!       └─ parked ◄─┴─ settle ─► DEAD, OUTCOMES
//! ```
//!
//! Pure: [`settle`], [`latest`], [`keeping`], [`classify`], [`text`], [`wording`]. One file for each provider type in
//! [`notifier`].

pub mod address;
mod aside;
pub mod attempt;
pub mod bounded;
pub mod classify;
pub mod examine;
pub mod http;
pub mod keep;
pub mod keeping;
pub mod latest;
mod links;
pub mod notification;
pub mod notifier;
pub mod providers;
pub mod redact;
pub mod report;
mod scope;
pub mod settle;
pub mod text;
pub mod throttle;
pub mod wording;
pub mod worker;
