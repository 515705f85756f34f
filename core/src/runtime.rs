//! What every process needs around its role: settings, logs, metrics, health, the admin endpoint,
//! the Kubernetes client.

pub mod admin;
pub mod codes;
pub mod config;
pub mod failpoint;
pub mod health;
pub mod kubernetes;
pub mod metrics;
pub mod telemetry;
