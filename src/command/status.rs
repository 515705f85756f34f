//! `tidings status`: what runs, what waits and what fails, on one screen. It asks the bus only.

mod problems;
pub mod reading;
pub mod report;
pub mod text;

use clap::Args;

use super::Output;
use super::tool::{BusArguments, bus, print_line};
use reading::Reading;
use report::Report;

/// Exit status: nothing needs attention.
const SUCCESS: u8 = 0;
/// Exit status: something needs attention.
const ATTENTION: u8 = 1;

/// Arguments of `tidings status`.
#[derive(Args, Debug)]
pub struct StatusArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    pub known: Known,
    /// Output format; json prints one object
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What needs no more attention.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct Known {
    /// Number of lost deliveries that are dealt with: only more of them need attention
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub known_losses: u64,
}

/// Prints the status once, and returns the exit status.
///
/// # Errors
/// The bus cannot be reached, or its streams do not exist. The exit status is then 2.
pub async fn run(arguments: StatusArguments) -> anyhow::Result<u8> {
    let bus = bus(&arguments.bus).await?;
    let report = Report::new(&Reading::of(&bus).await?, arguments.known);
    let lines = match arguments.output {
        Output::Json => vec![serde_json::to_string(&report)?],
        Output::Text => text::lines(&report),
    };
    for line in lines {
        if !print_line(&line)? {
            break;
        }
    }
    Ok(match report.problems.is_empty() {
        true => SUCCESS,
        false => ATTENTION,
    })
}
