//! Processes that are killed while events arrive, with a ledger of every event.

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
