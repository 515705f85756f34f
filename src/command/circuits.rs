//! `tidings providers circuits|pause|resume`: whether destinations are called, and pausing them by
//! hand.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_core::Destination;
use tidings_core::bus::Bus;
use tidings_core::bus::circuits::Circuits;
use tidings_core::model::circuit::{paused, resumed, state_word};
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;

use super::Output;
use super::tool::{BusArguments, bus, print_line, time};

/// What `tidings providers` does with destinations.
#[derive(Subcommand, Debug)]
pub enum CircuitsCommand {
    /// Stops calling a Provider: its deliveries are parked until it is resumed
    Pause(PauseArguments),
    /// Calls a Provider again, paused or not called because it failed; what waits for it goes on
    Resume(ChangeArguments),
    /// A line for each destination that is not called, or has failed last
    Circuits(CircuitsArguments),
}

/// Which Provider.
#[derive(Args, Debug)]
pub struct ChangeArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// The Provider, as NAMESPACE/NAME, or NAME in the namespace default
    #[arg(value_name = "[NAMESPACE/]NAME")]
    provider: String,
}

/// Which Provider, and why.
#[derive(Args, Debug)]
pub struct PauseArguments {
    #[command(flatten)]
    provider: ChangeArguments,
    /// Why, for those who look at it; no secrets
    #[arg(long, value_name = "TEXT", default_value = "paused by hand")]
    reason: String,
}

/// In which form.
#[derive(Args, Debug)]
pub struct CircuitsArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// The form of the output; json is one object a line
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command.
///
/// # Errors
/// The bus can't be reached, or the Provider's name can't be read.
pub async fn run(command: CircuitsCommand) -> anyhow::Result<()> {
    match command {
        CircuitsCommand::Pause(arguments) => pause(&arguments).await,
        CircuitsCommand::Resume(arguments) => resume(&arguments).await,
        CircuitsCommand::Circuits(arguments) => circuits(&arguments).await,
    }
}

async fn pause(arguments: &PauseArguments) -> anyhow::Result<()> {
    let destination = whole(&arguments.provider.provider)?;
    let bus = bus(&arguments.provider.bus).await?;
    let all = open(&bus).await?;
    let now = bus.clock().now();
    change(&all, &destination, |circuit| {
        Some(paused(circuit, &arguments.reason, now))
    })
    .await?;
    let name = format!("{}/{}", destination.namespace, destination.provider);
    print_line(&format!(
        "{name} is paused: its deliveries wait until `tidings providers resume {name}`"
    ))?;
    Ok(())
}

/// The pause ends first, then the circuits of the channels close; then what waits is woken, which
/// may be done again.
async fn resume(arguments: &ChangeArguments) -> anyhow::Result<()> {
    let destination = whole(&arguments.provider)?;
    let bus = bus(&arguments.bus).await?;
    let all = open(&bus).await?;
    let now = bus.clock().now();
    let is_of_it = |circuit: &Circuit| {
        circuit.namespace == destination.namespace && circuit.provider == destination.provider
    };
    for known in all
        .all()
        .await?
        .iter()
        .filter(|known| is_of_it(&known.circuit))
    {
        let close =
            |circuit: &Circuit| (circuit.state() != State::Closed).then(|| resumed(circuit, now));
        change(&all, &Destination::of(&known.circuit), close).await?;
    }
    let woken = bus
        .wake(&destination, "", 0)
        .await
        .context("it is resumed; what waits comes by itself, or with another resume")?;
    print_line(&format!(
        "{}/{} is resumed: {} waiting",
        destination.namespace, destination.provider, woken.count
    ))?;
    Ok(())
}

async fn circuits(arguments: &CircuitsArguments) -> anyhow::Result<()> {
    let bus = bus(&arguments.bus).await?;
    let mut all: Vec<Circuit> = open(&bus)
        .await?
        .all()
        .await?
        .into_iter()
        .map(|known| known.circuit)
        .collect();
    all.retain(|circuit| circuit.state() != State::Closed || circuit.failures > 0);
    all.sort_by_key(Destination::of);
    for circuit in &all {
        let line = if arguments.output == Output::Json {
            as_json(circuit).to_string()
        } else {
            as_text(circuit)
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
        .context("cannot open the bucket limits, which routers and workers make")
}

/// Changes a circuit until nobody else was quicker; nothing where there is nothing to change.
async fn change(
    all: &Circuits,
    destination: &Destination,
    change: impl Fn(&Circuit) -> Option<Circuit>,
) -> anyhow::Result<()> {
    loop {
        let known = all.load(destination).await?;
        let Some(changed) = change(&known.circuit) else {
            return Ok(());
        };
        if all
            .store(destination, &changed, known.revision)
            .await?
            .is_some()
        {
            return Ok(());
        }
    }
}

fn whole(provider: &str) -> anyhow::Result<Destination> {
    let (namespace, name) = provider.split_once('/').unwrap_or(("default", provider));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        bail!("{provider:?} is not a Provider; write it as NAMESPACE/NAME");
    }
    Ok(Destination::whole(namespace, name))
}

fn as_text(circuit: &Circuit) -> String {
    let until = circuit.until.map_or_else(String::new, |until| {
        format!(" until {}", time(Some(&until)))
    });
    format!(
        "{}/{} {} {} since {}{until}, {} failures: {}",
        circuit.namespace,
        circuit.provider,
        circuit
            .channel
            .as_deref()
            .map_or("*".to_owned(), |channel| format!("{channel:?}")),
        state_word(circuit.state()),
        time(circuit.since.as_ref()),
        circuit.failures,
        circuit.reason,
    )
}

fn as_json(circuit: &Circuit) -> serde_json::Value {
    json!({
        "namespace": circuit.namespace,
        "provider": circuit.provider,
        "channel": circuit.channel,
        "state": state_word(circuit.state()),
        "since": circuit.since.map(|since| time(Some(&since))),
        "until": circuit.until.map(|until| time(Some(&until))),
        "failures": circuit.failures,
        "reason": circuit.reason,
    })
}
