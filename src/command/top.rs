//! `tidings top`: the status, live.

mod terminal;

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidings_core::bus::Bus;
use tokio::signal::unix::{SignalKind, signal};

use super::status::Known;
use super::status::reading::Reading;
use super::status::report::Report;
use super::status::text;
use super::tool::{BusArguments, bus, duration, print_line};
use terminal::Terminal;

/// The shortest and the longest time between two screens.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_secs(3600);

/// Arguments of `tidings top`.
#[derive(Args, Debug)]
pub struct TopArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    known: Known,
    /// Time between two screens, 200ms to 1h
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    interval: String,
}

/// Shows the status until q, Ctrl-C or SIGTERM. If standard output is not a terminal, prints one
/// screen after the other.
///
/// # Errors
/// The interval is invalid, the bus cannot be reached at the start, or the terminal cannot be used.
pub async fn run(arguments: TopArguments) -> anyhow::Result<()> {
    let interval = interval(&arguments.interval)?;
    // Created once, so that a signal that arrives while a screen is drawn is not missed.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let bus = bus(&arguments.bus).await?;
    let (terminal, mut keys) = Terminal::open()?;
    let draw_forever = async {
        while draw(&bus, arguments.known, terminal.as_ref()).await? {
            tokio::time::sleep(interval).await;
        }
        Ok(())
    };
    tokio::select! {
        ended = draw_forever => ended,
        () = keys.quit() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
}

/// Draws one screen. Returns `false` if the reader closed the pipe. An error of the bus is shown,
/// and the next screen tries again.
async fn draw(bus: &Bus, known: Known, terminal: Option<&Terminal>) -> anyhow::Result<bool> {
    let lines = match Reading::of(bus).await {
        Ok(reading) => text::lines(&Report::new(&reading, known)),
        Err(error) => vec![format!("cannot read the status, retrying: {error:#}")],
    };
    match terminal {
        Some(terminal) => terminal.draw(&lines).map(|()| true),
        None => {
            for line in lines {
                if !print_line(&line)? {
                    return Ok(false);
                }
            }
            Ok(print_line("")?)
        }
    }
}

fn interval(text: &str) -> anyhow::Result<Duration> {
    let interval = duration(text).context("--interval")?;
    let interval = Duration::try_from(interval).ok();
    interval
        .filter(|interval| INTERVALS.contains(interval))
        .with_context(|| format!("--interval {text:?}: expected a duration from 200ms to 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_bounded() {
        for (text, expected) in [
            ("2s", Some(2)),
            ("1h", Some(3600)),
            ("2h", None),
            ("0s", None),
        ] {
            let found = interval(text).ok();
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        }
        assert!(interval("-2s").is_err() && interval("often").is_err());
    }
}
