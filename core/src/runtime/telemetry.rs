//! Logging to standard error.

use std::io::IsTerminal;

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text for people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Starts logging. `filter` is a level, or levels by module (`info,tidings_workers=debug`).
///
/// # Errors
/// The filter is invalid.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    // The client logs each of its events. `bus::connect` logs those that matter, with a code.
    let filter = EnvFilter::try_new(format!("async_nats=warn,{filter}"))
        .map_err(|error| format!("log.filter {filter:?}: {error}"))?;
    let writer = BoxMakeWriter::new(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(writer)
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(writer);
            registry.with(layer).try_init()
        }
    };
    started.map_err(|error| error.to_string())
}
