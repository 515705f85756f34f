//! The tools for people, and what people get wrong: real processes on a real nats-server.

mod command;
mod configuring;
mod connecting;
mod counting;
mod embedding;
mod python;
mod readiness;
mod refusing;
mod replaying;
mod streams;
mod tapping;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
