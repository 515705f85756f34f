//! The tools for people, and what people get wrong: real processes on a real nats-server.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends with what it can't go on without; clippy.toml excuses only what is marked as one"
)]

mod command;
mod configuring;
mod connecting;
mod counting;
mod embedding;
mod python;
mod readiness;
mod reference;
mod refusing;
mod replaying;
mod streams;
mod tapping;
mod templating;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
