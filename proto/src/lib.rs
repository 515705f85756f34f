//! The durable contract of Tidings: the protobuf messages that travel on the bus.
//!
//! The sources are `proto/tidings/v1/*.proto`; consumers in other languages generate their types
//! from the same files. Changes are additive only: a message written by an older Tidings stays
//! readable.

/// Version 1 of the contract.
#[expect(missing_docs, reason = "generated code")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tidings.v1.rs"));
}

pub use prost::Message;
pub use prost_types::Timestamp;
