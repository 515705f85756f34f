//! The console: its API, who may use it, and what a request may take.

mod access;
mod actions;
mod client;
mod data;
mod live;
mod tester;
