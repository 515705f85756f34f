//! Fuzzing: any input, however broken, leads to a result and never to a panic.
//!
//! ```text
//!  corpus/TARGET/* ─► as they are, then with random edits ─► the check of the target
//! ```
//!
//! Each target has a folder of kept inputs. A failing input is made as small as possible and stored
//! there, so that it runs first from then on. `FUZZ_SECONDS` is the time for each target
//! (default: 10).

mod addresses;
mod expressions;
mod formats;
mod ingest;
mod mutation;
mod patterns;
mod redaction;
mod rules;
mod runner;
mod templates;
