//! What every provider type must do, checked for each row of the table against a service that fails
//! in every way.
//!
//! The services stand behind a proxy with a certificate authority of its own (`service`), so that
//! types whose address is fixed reach them too. What differs for a type on purpose is said in the
//! test's own table, with its source.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends with what it can't go on without; clippy.toml excuses only what is marked as one"
)]

mod answering;
mod documents;
mod failing;
mod repeating;
mod secrets;
mod service;
mod sizes;
mod subject;
