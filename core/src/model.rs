//! The types and terms that all roles share. Pure: no I/O, no clock.

pub mod access;
pub mod circuit;
pub mod cloud_event;
pub mod destination;
pub mod excerpt;
pub mod flux;
pub mod glob;
pub mod id;
pub mod jitter;
pub mod metadata;
pub mod nearest;
pub mod object_name;
pub mod object_state;
pub mod origin;
pub mod outcome;
pub mod process_lease;
pub mod retry;
pub mod stored_event;
pub mod stream_plan;
pub mod subject;
pub mod tap_access;
pub mod terms;
pub mod text;
pub mod time;
pub mod token;
pub mod verdict;
