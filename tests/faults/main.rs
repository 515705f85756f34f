//! Processes that are killed while events come in, and a ledger of every event.

mod away;
mod cluster;
mod ending;
mod fail_points;
mod killing;
mod matrix;
mod retention;
mod soak;
mod storage;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
