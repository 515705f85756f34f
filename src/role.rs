//! The roles of a process.
//!
//! One file wires one role: its arguments and the tasks it starts. `bus` and `rules` are shared:
//! every role connects to the bus, and router and worker read rules.

pub mod bus;
pub mod ingest;
pub mod router;
pub mod rules;
pub mod up;
pub mod worker;

use tidings_core::bus::pull::Stop;
use tidings_core::runtime::config::{Role, Settings};
use tidings_core::runtime::health::Health;
use tidings_core::runtime::metrics::Metrics;
use tokio_util::task::TaskTracker;

/// What a role gets from its process.
pub struct Context {
    /// What the process runs as.
    pub role: Role,
    /// All settings of the process.
    pub settings: Settings,
    /// Where a role registers its readiness checks.
    pub health: Health,
    /// Where a role counts.
    pub metrics: Metrics,
    /// When a role stops.
    pub stop: Stop,
    /// The tasks of all roles. The process waits for them at shutdown.
    pub tasks: TaskTracker,
}
