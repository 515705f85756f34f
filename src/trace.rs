//! The trace of an event: when it arrived, what each Alert decided, and how each delivery went.
//!
//! | module | does |
//! |---|---|
//! | [`query`] | says which events are wanted |
//! | [`gather`] | reads the streams and buckets, within bounds |
//! | [`assemble`] | makes the trace of what was read; pure |
//! | [`report`] | the trace, as JSON |
//! | [`render`] | the trace as text |

pub mod absence;
pub mod assemble;
pub mod bounds;
pub mod deliveries;
pub mod events;
mod find_deliveries;
pub mod gather;
pub mod query;
pub mod render;
pub mod report;
