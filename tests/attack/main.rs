//! Attacks on real processes under a memory limit, while a neighbor's deliveries must arrive.

mod at_once;
mod hostile_rules;
mod hostile_senders;

/// The executable under test.
const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
