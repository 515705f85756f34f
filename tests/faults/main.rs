//! Processes that are killed or hang while events arrive. A ledger accounts for every event.

mod cluster;
mod consumer_state;
mod dead_holders;
mod fail_points;
mod full_disk;
mod killing;
mod lost_deliveries;
mod matrix;
mod nats_outage;
mod nats_upgrade;
mod retention;
mod soak;
mod storage;
mod termination;
mod upgrade;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
