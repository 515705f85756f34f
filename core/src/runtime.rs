//! The environment of every role: settings, logs, metrics, health, the admin endpoint, the HTTP
//! server, the answer for autoscalers, shares of memory, fail points, the Kubernetes client,
//! leader election and traces.

pub mod admin;
pub mod codes;
pub mod config;
pub mod edge_backlogs;
pub mod failpoint;
pub mod files;
pub mod health;
pub mod http_server;
pub mod kubernetes;
pub mod log_pace;
pub mod memory;
pub mod metrics;
pub mod reload;
pub mod scaling;
pub mod telemetry;
pub mod traces;
