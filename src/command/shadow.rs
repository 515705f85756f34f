//! `tidings shadow`: what routers in shadow mode would have delivered.

mod report;
mod text;

use clap::{Args, Subcommand};

use super::Output;
use super::tool::{BusArguments, bus, moment, print_line};
use report::Summary;

/// Arguments of `tidings shadow`.
#[derive(Args, Debug)]
pub struct ShadowArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Summarize what would have been delivered, what would fail and why, and the differences to
    /// notification-controller that concern it
    Report(ReportArguments),
}

#[derive(Args, Debug)]
struct ReportArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Begin at this time, such as 2026-01-02T15:04:05Z, or 90m for 90 minutes ago
    #[arg(long, value_name = "TIME", default_value = "24h")]
    since: String,
    /// Number of records to show as samples, 0 to 1000: the latest of each Alert and Provider first
    #[arg(long, value_name = "NUMBER", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(0..=1000))]
    samples: u16,
    /// Output format; json prints one object
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs `tidings shadow`.
///
/// # Errors
/// The bus cannot be reached, or a time is invalid.
pub async fn run(arguments: ShadowArguments) -> anyhow::Result<()> {
    let Action::Report(arguments) = arguments.action;
    let since = moment(&arguments.since)?;
    let bus = bus(&arguments.bus).await?;
    let mut summary = Summary::default();
    let exists = bus
        .shadow_records(since, |record| summary.add(record))
        .await?;
    anyhow::ensure!(
        exists,
        "stream SHADOW not found: no router has run with --shadow"
    );
    let report = summary.report(since, usize::from(arguments.samples));
    let lines = match arguments.output {
        Output::Json => vec![serde_json::to_string(&report)?],
        Output::Text => text::lines(&report),
    };
    for line in lines {
        if !print_line(&line)? {
            break;
        }
    }
    Ok(())
}
