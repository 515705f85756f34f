//! `tidings streams`: creates and updates the streams.

use clap::{Args, Subcommand};
use tidings_core::bus::setup::StreamPolicy;

use super::tool::{BusArguments, bus, print_line};
use crate::flags::{flag, settings};

/// Arguments of `tidings streams`.
#[derive(Args, Debug)]
pub struct StreamsArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Create missing streams and update those whose configuration differs
    Apply(ApplyArguments),
}

#[derive(Args, Debug)]
struct ApplyArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// How long an equal event is rejected as a duplicate [default: 5m]
    #[arg(long, value_name = "DURATION")]
    dedupe_interval: Option<String>,
    /// Storage limit of all streams together, such as 40GiB [default: the limit of the NATS
    /// account]
    #[arg(long, value_name = "SIZE")]
    storage_limit: Option<String>,
    /// Replicas of each stream: 1; on a NATS cluster also 3 or 5 [default: 1]
    #[arg(long)]
    replicas: Option<String>,
}

/// Runs `tidings streams`.
///
/// # Errors
/// The bus cannot be reached or rejects a change.
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
    print_line("all streams are up to date")?;
    Ok(())
}
