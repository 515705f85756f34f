//! The roles as real processes on a real nats-server, with providers that fail.

mod answers;
mod api_addresses;
mod backlog;
mod changed_streams;
mod circuits;
mod comments;
mod deliveries;
mod event_endpoint;
mod expressions;
mod extensions;
mod fleet_rules;
mod grants;
mod hostile_rules;
mod incidents;
mod isolation;
mod joining_workers;
mod limits;
mod memory;
mod mentions;
mod nats;
mod notices;
mod poison;
mod proxies;
mod racing_workers;
mod replicas;
mod retries;
mod routing_keys;
mod rule_changes;
mod secrets;
mod senders;
mod state_changes;
mod states;
mod templates;
mod traces;

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
