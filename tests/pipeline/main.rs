//! The roles as real processes on a real nats-server, with providers that fail.

mod circuits;
mod commenting;
mod delivering;
mod incidents;
mod ingesting;
mod isolation;
mod limits;
mod meddling;
mod nats;
mod poison;
mod racing;
mod reloading;
mod retrying;
mod secrets;
mod sharing;
mod states;
mod templates;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
