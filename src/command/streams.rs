//! `tidings streams apply`: makes or changes the streams, on purpose.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tidings_core::bus::setup::Mismatch;
use tidings_core::stream::Sizing;

use super::tool::{BusArguments, bus, print_line};

/// What `tidings streams` takes.
#[derive(Args, Debug)]
pub struct StreamsArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Makes what is missing and changes what differs
    Apply(ApplyArguments),
}

#[derive(Args, Debug)]
struct ApplyArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// For how long the same event is a duplicate
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    dedupe_interval: String,
    /// What the server may store, in bytes, where it does not tell
    #[arg(long, value_name = "BYTES")]
    storage_limit: Option<u64>,
    /// Copies of each stream
    #[arg(long, default_value_t = 1)]
    replicas: usize,
}

/// Runs the command.
///
/// # Errors
/// The bus can't be reached, or refuses a change.
pub async fn run(arguments: StreamsArguments) -> anyhow::Result<()> {
    let Action::Apply(arguments) = arguments.action;
    let interval: jiff::SignedDuration =
        arguments.dedupe_interval.parse().context("--dedupe-interval is not a duration such as 5m")?;
    let sizing = Sizing {
        dedupe_interval: Duration::try_from(interval).context("--dedupe-interval is negative")?,
        storage_limit: arguments.storage_limit,
        replicas: arguments.replicas,
    };
    bus(&arguments.bus).await?.set_up(&sizing, Mismatch::Change).await?;
    print_line("the streams are as they must be")?;
    Ok(())
}
