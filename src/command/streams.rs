//! `tidings streams apply`: makes or changes the streams, on purpose.

use clap::{Args, Subcommand};
use tidings_core::bus::setup::StreamPolicy;

use super::tool::{BusArguments, bus, print_line};
use crate::flags::{flag, settings};

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
    #[arg(long, value_name = "DURATION")]
    dedupe_interval: Option<String>,
    /// What the server may store, where it does not tell: 40GiB
    #[arg(long, value_name = "SIZE")]
    storage_limit: Option<String>,
    /// Copies of each stream
    #[arg(long)]
    replicas: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The bus can't be reached, or refuses a change.
pub async fn run(arguments: StreamsArguments) -> anyhow::Result<()> {
    let Action::Apply(arguments) = arguments.action;
    let given = [
        (
            "--dedupe-interval",
            "ingest.dedupe_interval",
            &arguments.dedupe_interval,
        ),
        (
            "--storage-limit",
            "nats.storage_limit",
            &arguments.storage_limit,
        ),
        ("--replicas", "nats.replicas", &arguments.replicas),
    ];
    let flags = given
        .into_iter()
        .filter_map(|(name, key, value)| Some(flag(name, key, value.as_ref()?)))
        .collect();
    let settings = settings(&arguments.bus.common, flags)?;
    bus(&arguments.bus)
        .await?
        .set_up(&settings.sizing(), StreamPolicy::Update)
        .await?;
    print_line("the streams are as they must be")?;
    Ok(())
}
