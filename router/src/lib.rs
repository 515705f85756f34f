//! The router: events in, planned deliveries out.
//!
//! ```text
//!  EVENTS ═► route ─► match ─► plan ─► Delivery ═► DELIVERIES
//!                       ▲
//!                     rules
//!                       │
//!            OUTCOMES ═► status ─► the API server
//! ```
//!
//! Pure: [`matching`], [`metadata`], [`plan`]. The loops: [`route`] and, where the rules are in a
//! cluster, [`status`].

pub mod matching;
pub mod metadata;
pub mod plan;
pub mod route;
pub mod status;

pub use matching::Verdict;
pub use plan::{Explanation, Plan, Planning, explain, plan};
pub use route::Router;
pub use status::StatusWriter;
