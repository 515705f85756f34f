//! Processes that are killed while events come in, and a ledger of every event.

mod fail_points;
mod killing;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
