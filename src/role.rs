//! The roles of a process.
//!
//! Each file wires one role: its arguments, and the tasks that it starts. `edge` is an ingest with
//! a nats-server of its own. `bus`, `heartbeat` and `rules` are shared: every role connects to the
//! bus and reports that it runs, and router and worker read rules.

pub mod bridge;
pub mod bus;
pub mod clusters;
pub mod console;
pub mod edge;
mod heartbeat;
pub mod ingest;
pub mod router;
pub mod rules;
mod secured;
mod shadow;
pub mod up;
pub mod worker;

use std::net::SocketAddr;

use tidings_core::bus::pull::Stop;
use tidings_core::runtime::config::{Role, Settings};
use tidings_core::runtime::health::Health;
use tidings_core::runtime::memory::MemoryPlan;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::scaling::Scaling;
use tokio_util::task::TaskTracker;

/// What a process passes to its roles. Clones share their state.
#[derive(Clone)]
pub struct Context {
    /// The role of the process, which is `up` for all roles in one.
    pub role: Role,
    /// All settings of the process.
    pub settings: Settings,
    /// The shares of the process's memory.
    pub memory: MemoryPlan,
    /// Roles register their readiness checks here.
    pub health: Health,
    /// Roles update these metrics.
    pub metrics: Metrics,
    /// Routers answer autoscalers with it.
    pub scaling: Scaling,
    /// The demo receiver of this process, which Providers may always call.
    pub own_receiver: Option<SocketAddr>,
    /// Ends the tasks of all roles.
    pub stop: Stop,
    /// The tasks of all roles. The process waits for them at shutdown.
    pub tasks: TaskTracker,
}
