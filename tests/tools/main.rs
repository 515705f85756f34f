//! The tools, settings, readiness and metrics: real processes on a real nats-server.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test too, but clippy.toml allows it in test functions only"
)]

mod backup;
mod bridge;
mod check_rules;
mod command;
mod command_line;
mod command_line_reference;
mod configuration;
mod console;
mod consumers;
mod dead_letters;
mod deliveries;
mod embedded_nats_server;
mod examples;
mod fleet;
mod foreign_text;
mod forged_events;
mod guides;
mod ingest_start;
mod json_schema;
mod metrics;
mod monitoring;
mod nats_authentication;
mod pod;
mod postponed;
mod python;
mod readiness;
mod replay;
mod restored;
mod scaling;
mod shadow;
mod start_errors;
mod status;
mod streams;
mod streams_plan;
mod tap;
mod tee;
mod templates;
mod test_rules;
mod top;
mod trace;
mod upgrade;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
