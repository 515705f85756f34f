//! The environment of every role: settings, logs, metrics, health, the admin endpoint, fail points,
//! the Kubernetes client and leader election.

pub mod admin;
pub mod codes;
pub mod config;
pub mod failpoint;
pub mod health;
pub mod kubernetes;
pub mod log_pace;
pub mod metrics;
pub mod telemetry;
