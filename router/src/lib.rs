//! The router matches events with Alerts and stores the deliveries that they cause.
//!
//! ```text
//!  EVENTS ═► route ─► matching ─► plan ─► Delivery ═► DELIVERIES
//!                        ▲
//!                      rules
//!                        │
//!             OUTCOMES ═► status ─► API server
//! ```
//!
//! # Where to look
//! - [`route`] is the work on an event: plan, store deliveries, acknowledge. `route/pulling.rs` has
//!   the loops, `route/unrouted.rs` what becomes of events that are not routed.
//! - [`matching`] gives the verdict of an Alert on an event; [`metadata`] merges metadata.
//! - [`mod@plan`] builds deliveries and explains verdicts; `planner` decides where it runs.
//! - [`pattern_searches`] limits what patterns may cost for an event; [`costly_patterns`] is what
//!   became known of it.
//! - `ahead` routes events of other clusters ahead of the backlog of a few; `backlog` decides when.
//! - [`catch_up`] matches events again that were routed without the rules of their member.
//! - [`notice`] reports about Tidings itself: the watchdog and the fallback.
//! - [`shadow`] records deliveries instead of storing them, in shadow mode.
//! - [`status`] writes status to Alerts and Providers in a cluster.
//!
//! Pure: `backlog`, [`matching`], [`metadata`], [`pattern_searches`], [`mod@plan`].

mod ahead;
mod backlog;
pub mod catch_up;
mod cluster_match;
pub mod costly_patterns;
pub mod matching;
pub mod metadata;
pub mod notice;
pub mod pattern_searches;
pub mod plan;
mod planner;
pub mod route;
pub mod shadow;
pub mod status;

pub use catch_up::CatchUp;
pub use costly_patterns::CostlyPatterns;
pub use matching::Verdict;
pub use notice::Notices;
pub use plan::{AlertExplanation, DeliveryPlan, PlanContext, explain, plan};
pub use route::{Router, RouterOptions};
pub use shadow::Foresee;
pub use status::{StatusContext, StatusWriter};
