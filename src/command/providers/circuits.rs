//! `tidings providers circuits|pause|resume`: lists circuits, and pauses and resumes deliveries.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_core::Destination;
use tidings_core::bus::Bus;
use tidings_core::bus::circuits::Circuits;
use tidings_core::model::circuit::{paused, resumed, state_name};
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;

use crate::command::Output;
use crate::command::tool::{BusArguments, bus, count, print_line, time};

/// Subcommands of `tidings providers` for circuits.
#[derive(Subcommand, Debug)]
pub enum CircuitsCommand {
    /// Pause deliveries to a Provider; they stay parked until `resume`
    Pause(PauseArguments),
    /// Resume deliveries to a Provider: end its pause and close its circuits
    Resume(ProviderArguments),
    /// List circuits, except closed circuits without failures
    Circuits(CircuitsArguments),
}

/// A Provider.
#[derive(Args, Debug)]
pub struct ProviderArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Provider; without NAMESPACE, in the namespace `default`
    #[arg(value_name = "[NAMESPACE/]NAME")]
    provider: String,
}

/// Arguments of `pause`.
#[derive(Args, Debug)]
pub struct PauseArguments {
    #[command(flatten)]
    provider: ProviderArguments,
    /// Reason to show in `circuits` and in the status of the Provider
    #[arg(long, value_name = "TEXT", default_value = "paused by hand")]
    reason: String,
}

/// Arguments of `circuits`.
#[derive(Args, Debug)]
pub struct CircuitsArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Output format; json prints one object per line
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the subcommand.
///
/// # Errors
/// The bus cannot be reached, or the Provider's name is invalid.
pub async fn run(command: CircuitsCommand) -> anyhow::Result<()> {
    match command {
        CircuitsCommand::Pause(arguments) => pause(&arguments).await,
        CircuitsCommand::Resume(arguments) => resume(&arguments).await,
        CircuitsCommand::Circuits(arguments) => list(&arguments).await,
    }
}

async fn pause(arguments: &PauseArguments) -> anyhow::Result<()> {
    let destination = destination(&arguments.provider.provider)?;
    let bus = bus(&arguments.provider.bus).await?;
    let circuits = open(&bus).await?;
    let now = bus.clock().now();
    update(&circuits, &destination, |circuit| {
        Some(paused(circuit, &arguments.reason, now))
    })
    .await?;
    let name = format!("{}/{}", destination.namespace, destination.provider);
    print_line(&format!(
        "provider {name} paused; `tidings providers resume {name}` resumes its deliveries"
    ))?;
    Ok(())
}

/// Closes the circuits before it wakes parked deliveries, so that the command can be repeated if
/// waking fails.
async fn resume(arguments: &ProviderArguments) -> anyhow::Result<()> {
    let destination = destination(&arguments.provider)?;
    let bus = bus(&arguments.bus).await?;
    let circuits = open(&bus).await?;
    let now = bus.clock().now();
    let name = format!("{}/{}", destination.namespace, destination.provider);
    for stored in circuits.all().await? {
        let of_provider = Destination::of(&stored.circuit);
        if (&of_provider.namespace, &of_provider.provider)
            != (&destination.namespace, &destination.provider)
        {
            continue;
        }
        update(&circuits, &of_provider, |circuit| {
            (circuit.state() != State::Closed).then(|| resumed(circuit, now))
        })
        .await?;
    }
    let woken = bus.wake(&destination, "", 0).await.with_context(|| {
        format!(
            "provider {name} resumed, but parked deliveries were not woken: run the command again, \
             or wait until their retry time"
        )
    })?;
    let woken = woken.count;
    print_line(&format!(
        "provider {name} resumed, {} woken",
        if woken == 1 {
            "1 parked delivery".to_owned()
        } else {
            format!("{woken} parked deliveries")
        }
    ))?;
    Ok(())
}

async fn list(arguments: &CircuitsArguments) -> anyhow::Result<()> {
    let bus = bus(&arguments.bus).await?;
    let stored = open(&bus).await?.all().await?;
    let mut circuits: Vec<Circuit> = stored.into_iter().map(|stored| stored.circuit).collect();
    circuits.retain(|circuit| circuit.state() != State::Closed || circuit.failures > 0);
    circuits.sort_by_key(Destination::of);
    for circuit in &circuits {
        let line = match arguments.output {
            Output::Json => as_json(circuit).to_string(),
            Output::Text => as_text(circuit),
        };
        if !print_line(&line)? {
            break;
        }
    }
    Ok(())
}

async fn open(bus: &Bus) -> anyhow::Result<Circuits> {
    Circuits::open(bus)
        .await
        .context("cannot open the bucket limits: start a worker on this NATS server first")
}

/// Stores a changed circuit, and retries if another client changed it meanwhile.
async fn update(
    circuits: &Circuits,
    destination: &Destination,
    change: impl Fn(&Circuit) -> Option<Circuit>,
) -> anyhow::Result<()> {
    loop {
        let stored = circuits.load(destination).await?;
        let Some(changed) = change(&stored.circuit) else {
            return Ok(());
        };
        let revision = circuits
            .store(destination, &changed, stored.revision)
            .await?;
        if revision.is_some() {
            return Ok(());
        }
    }
}

/// The destination of a Provider with all its channels.
fn destination(provider: &str) -> anyhow::Result<Destination> {
    let (namespace, name) = provider.split_once('/').unwrap_or(("default", provider));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        bail!("Provider {provider:?}: expected NAMESPACE/NAME");
    }
    Ok(Destination::whole(namespace, name))
}

fn as_text(circuit: &Circuit) -> String {
    let until = circuit
        .until
        .map_or_else(String::new, |until| format!(" until {}", time(Some(until))));
    format!(
        "{}/{} {} {} since {}{until}, {}: {}",
        circuit.namespace,
        circuit.provider,
        circuit
            .channel
            .as_deref()
            .map_or("*".to_owned(), |channel| format!("{channel:?}")),
        state_name(circuit.state()),
        time(circuit.since),
        count(circuit.failures as usize, "failure"),
        circuit.reason,
    )
}

fn as_json(circuit: &Circuit) -> serde_json::Value {
    json!({
        "namespace": circuit.namespace,
        "provider": circuit.provider,
        "channel": circuit.channel,
        "state": state_name(circuit.state()),
        "since": circuit.since.map(|since| time(Some(since))),
        "until": circuit.until.map(|until| time(Some(until))),
        "failures": circuit.failures,
        "reason": circuit.reason,
    })
}
