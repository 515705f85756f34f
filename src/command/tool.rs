//! Shared by the tools: the connection to the bus, and printing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect;
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::text::visible;
use tidings_core::model::time::from_proto;
use tidings_core::runtime::config::Settings;
use tidings_core::{Delivery, ProtoTimestamp};

use crate::flags::{BaseFlags, BusFlags, settings};
use crate::nats_server;

/// Arguments of a tool that uses the bus.
#[derive(Args, Debug, Clone)]
pub struct BusArguments {
    #[command(flatten)]
    pub common: BusFlags,
    /// Data folder of a running `tidings up`; its nats-server is used unless --nats is given
    /// [default: .tidings]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The settings, with the NATS servers to connect to: those of the settings; without any, the
/// nats-server of the `tidings up` that uses the data folder.
///
/// # Errors
/// A setting is invalid, or no server is configured and no `tidings up` runs.
pub fn bus_settings(common: &impl BaseFlags, data: Option<&Path>) -> anyhow::Result<Settings> {
    let merged = settings(common, Vec::new())?;
    if merged.nats.url.is_some() {
        return Ok(merged);
    }
    let contact = nats_server::contact(data.unwrap_or(&merged.data))?;
    settings(common, contact.flags("nats.json").into())
}

/// Connects to the NATS servers of [`bus_settings`].
///
/// # Errors
/// No server is configured and no `tidings up` runs, or the server cannot be reached.
pub async fn bus(arguments: &BusArguments) -> anyhow::Result<Bus> {
    let merged = bus_settings(&arguments.common, arguments.data.as_deref())?;
    connect(&merged.nats, "tidings tool")
        .await
        .with_context(|| {
            let servers = merged.nats.url.as_ref().map(ToString::to_string);
            format!("NATS server {}", servers.unwrap_or_default())
        })
}

/// Prints one line, also if it contains texts of others with line breaks or controls. Returns
/// `false` if the reader closed the pipe, which is not an error.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_line(line: &str) -> io::Result<bool> {
    match writeln!(io::stdout(), "{}", visible(line)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// Writes bytes to standard output as they are. A reader that closed the pipe is no error.
///
/// # Errors
/// Standard output cannot be written.
pub fn write_all(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A time as RFC 3339 with milliseconds; `-` for none.
pub fn time(time: Option<ProtoTimestamp>) -> String {
    from_proto(time).map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}

/// A number with its noun: `1 attempt`, `2 attempts`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Who planned a delivery, for whom, and how often it was tried.
pub fn parties(delivery: &Delivery) -> String {
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    format!(
        "provider {}/{} ({}), alert {}/{}, {}{}",
        provider.namespace,
        provider.name,
        provider.r#type,
        alert.namespace,
        alert.name,
        count(delivery.attempt as usize, "attempt"),
        object(delivery),
    )
}

/// The object of the event, and its cluster.
fn object(delivery: &Delivery) -> String {
    let event = carried_event(delivery);
    let object = event.and_then(|event| event.involved_object.as_ref());
    let (Some(event), Some(object)) = (event, object) else {
        return String::new();
    };
    format!(
        ", {} {}/{} of cluster {}",
        object.kind, object.namespace, object.name, event.cluster
    )
}

/// The time that was this duration ago: `90s`, `1h`, `3d`.
///
/// # Errors
/// The text is not a duration.
pub fn ago(text: &str) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::now().checked_sub(duration(text)?)?)
}

/// A duration, such as `90s`, `1h` or `3d`.
///
/// # Errors
/// The text is not a duration.
pub fn duration(text: &str) -> anyhow::Result<SignedDuration> {
    // The parser's own error explains its grammar, which nobody asked for.
    let span: Option<jiff::Span> = text.parse().ok();
    let span =
        span.with_context(|| format!("{text:?}: expected a duration such as 90s, 30m, 12h or 3d"))?;
    span.to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .with_context(|| format!("{text:?}: months and years have no fixed length"))
}

/// A length of time for people, in its largest unit: `7 s`, `5 min`, `2 h`, `3 d`.
pub fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time: RFC 3339, or a duration before now as [`ago`] takes it.
///
/// # Errors
/// The text is neither.
pub fn moment(text: &str) -> anyhow::Result<Timestamp> {
    let time = text.parse().ok().or_else(|| ago(text).ok());
    time.with_context(|| {
        format!("{text:?}: expected a time such as 2026-01-02T15:04:05Z, or 90m for 90 minutes ago")
    })
}
