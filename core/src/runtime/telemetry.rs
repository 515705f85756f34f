//! Logging to standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::model::text::visible;
use crate::runtime::config::wants_no_color;

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
    let client = "async_nats=warn,async_nats::connector=off";
    let filter = EnvFilter::try_new(format!("{client},{filter}"))
        .map_err(|error| format!("log.filter {filter:?}: {error}"))?;
    let writer = VisibleLines(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(writer)
                    .with_target(false)
                    .with_ansi(io::stderr().is_terminal() && !wants_no_color()),
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

/// Keeps each log event on one line, and makes its texts safe for terminals. The colors of a
/// terminal stay.
#[derive(Clone, Copy)]
struct VisibleLines<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for VisibleLines<M> {
    type Writer = VisibleLines<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        VisibleLines(self.0.make_writer())
    }
}

impl<W: Write> Write for VisibleLines<W> {
    /// Writes a log event, which the subscriber passes as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = String::with_capacity(text.len() + 1);
        let mut parts = text.trim_end_matches('\n').split("\u{1b}[");
        line.push_str(&visible(parts.next().unwrap_or_default()));
        for part in parts {
            let is_digit = |character: char| character.is_ascii_digit() || character == ';';
            let is_color = part.trim_start_matches(is_digit).starts_with('m');
            line.push_str(if is_color { "\u{1b}[" } else { "\\u001b[" });
            line.push_str(&visible(part));
        }
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_event_is_one_line_that_keeps_its_colors_and_nothing_else() {
        let mut lines = VisibleLines(Vec::new());
        let event = "\u{1b}[2mnow\u{1b}[0m a\nb \u{1b}[2J\u{9b}m\u{202e}\u{1b}]0;t\u{7}\n";
        assert_eq!(lines.write(event.as_bytes()).unwrap(), event.len());
        assert_eq!(
            String::from_utf8(lines.0).unwrap(),
            "\u{1b}[2mnow\u{1b}[0m a\\nb \\u001b[2J\\u009bm\\u202e\\u001b]0;t\\u0007\n"
        );
    }
}
