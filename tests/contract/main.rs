//! The contract of every provider type: each row of the table is tested against a service that
//! fails in every way.
//!
//! The services are behind a proxy with its own certificate authority (`service`), so that types
//! with a fixed address reach them too. A type under test is configured by its own example. Its row
//! in the table lists intended differences.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy.toml allows that only in functions marked as tests"
)]

mod broken;
mod clusters;
mod documents;
mod failures;
mod mentions;
mod redirects;
mod rendering;
mod repeats;
mod responses;
mod secrets;
mod service;
mod sizes;
mod stated_limits;
mod subject;
