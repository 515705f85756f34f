//! What the tools share: how they find the bus, and how they print.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use tidings_core::Timestamp as ProtoTimestamp;
use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect;

use crate::flags::{CommonFlags, flag, settings};
use crate::nats_server;

/// How a tool finds the bus.
#[derive(Args, Debug, Clone)]
pub struct BusArguments {
    #[command(flatten)]
    pub common: CommonFlags,
    /// The data folder of a running `tidings up`; not needed with --nats
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Connects: to --nats or the settings' URL, else to the nats-server of the `up` that uses the data
/// folder.
///
/// # Errors
/// There is neither, or it does not answer.
pub async fn bus(arguments: &BusArguments) -> anyhow::Result<Bus> {
    let mut found = settings(&arguments.common, Vec::new())?;
    if found.nats.url.is_none() {
        let contact = nats_server::contact(arguments.data.as_deref().unwrap_or(&found.data))?;
        let flags = vec![
            flag("nats.json", "nats.url", &contact.url),
            flag("nats.json", "nats.token", &contact.token),
        ];
        found = settings(&arguments.common, flags)?;
    }
    connect(&found.nats, "tidings tool")
        .await
        .context("cannot reach the bus")
}

/// Prints a line. A closed pipe is an end, not an error: `false`.
///
/// # Errors
/// Standard output fails otherwise.
pub fn print_line(line: &str) -> io::Result<bool> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// A time for people and machines: RFC 3339 with milliseconds; `-` for none.
pub fn time(time: Option<&ProtoTimestamp>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}

/// The time so long ago: `90s`, `1h`, `3d`.
///
/// # Errors
/// It is not a duration.
pub fn ago(text: &str) -> anyhow::Result<Timestamp> {
    let span: jiff::Span = text
        .parse()
        .with_context(|| format!("{text:?} is not a duration such as 90s, 30m, 12h or 3d"))?;
    let duration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .context("months and years have no fixed length")?;
    Ok(Timestamp::now().checked_sub(duration)?)
}
