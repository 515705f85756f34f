//! The router: events in, planned deliveries out.
//!
//! Pure: [`matching`], [`metadata`], [`plan`].

pub mod matching;
pub mod metadata;
pub mod plan;

pub use matching::Verdict;
pub use plan::{Explanation, Plan, Planning, explain, plan};
