//! The router: events in, planned deliveries out.
//!
//! ```text
//!  EVENTS ═► route ─► match ─► plan ─► Delivery ═► DELIVERIES
//!                       ▲
//!                     rules
//! ```
//!
//! Pure: [`matching`], [`metadata`], [`plan`]. The loop: [`route`].

pub mod matching;
pub mod metadata;
pub mod plan;
pub mod route;

pub use matching::Verdict;
pub use plan::{Explanation, Plan, Planning, explain, plan};
pub use route::Router;
