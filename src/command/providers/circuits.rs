//! `tidings providers circuits|pause|resume`: lists circuits, and pauses and resumes deliveries.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;
use tidings_core::Destination;
use tidings_core::bus::Bus;
use tidings_core::bus::circuits::{Circuits, StoredCircuit};
use tidings_core::bus::names::{RuleKind, RuleName};
use tidings_core::bus::wake::{WakeScope, Woken};
use tidings_core::model::circuit::{paused, resumed, state_name};
use tidings_core::model::time::from_proto;
use tidings_core::wire::Circuit;
use tidings_core::wire::circuit::State;

use crate::audit::{ManualAction, record_of_tool};
use crate::command::list::{self, Row};
use crate::command::tool::{BusArguments, bus, count, print_line, time};
use crate::command::{ListOutput, names};

/// Subcommands of `tidings providers` for circuits.
#[derive(Subcommand, Debug)]
pub enum CircuitsCommand {
    /// Pause deliveries to a Provider; they stay parked until `resume`
    Pause(PauseArguments),
    /// Resume deliveries to a Provider: end its pause, close its circuits, and retry at once
    Resume(ResumeArguments),
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
    /// Pause the Provider even if no router or worker knows it
    #[arg(long)]
    force: bool,
}

/// Arguments of `resume`.
#[derive(Args, Debug)]
pub struct ResumeArguments {
    #[command(flatten)]
    provider: ProviderArguments,
    /// Also send deliveries now that wait for their reserved send time (rate limit)
    #[arg(long)]
    force: bool,
}

/// Arguments of `circuits`.
#[derive(Args, Debug)]
pub struct CircuitsArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Output format; json prints one array, jsonl one object per line
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

/// Runs the subcommand.
///
/// # Errors
/// The bus cannot be reached, or the Provider's name is invalid.
pub async fn run(command: CircuitsCommand) -> anyhow::Result<()> {
    match command {
        CircuitsCommand::Pause(arguments) => pause(&arguments).await,
        CircuitsCommand::Resume(arguments) => resume(&arguments).await,
        CircuitsCommand::Circuits(arguments) => list_all(&arguments).await,
    }
}

async fn pause(arguments: &PauseArguments) -> anyhow::Result<()> {
    let destination = destination(&arguments.provider.provider)?;
    let bus = bus(&arguments.provider.bus).await?;
    let circuits = open(&bus).await?;
    if !arguments.force {
        require(&bus, &circuits.all().await?, &destination)
            .await
            .context("not paused; --force pauses it anyway")?;
    }
    let name = format!("{}/{}", destination.namespace, destination.provider);
    let detail = arguments.reason.clone();
    let action = ManualAction::on_provider("provider-pause", &destination);
    record_of_tool(&bus, ManualAction { detail, ..action }).await;
    pause_now(&bus, &circuits, &destination, &arguments.reason).await?;
    print_line(&format!(
        "provider {name} paused; `tidings providers resume {name}` resumes its deliveries"
    ))?;
    Ok(())
}

/// Pauses a Provider.
///
/// # Errors
/// The bus is unavailable.
pub async fn pause_now(
    bus: &Bus,
    circuits: &Circuits,
    destination: &Destination,
    reason: &str,
) -> anyhow::Result<()> {
    let now = bus.clock().now();
    let pause = |circuit: &Circuit| Some(paused(circuit, reason, now));
    update(circuits, destination, pause).await.map(drop)
}

async fn resume(arguments: &ResumeArguments) -> anyhow::Result<()> {
    let destination = destination(&arguments.provider.provider)?;
    let bus = bus(&arguments.provider.bus).await?;
    let circuits = open(&bus).await?;
    let stored = circuits.all().await?;
    require(&bus, &stored, &destination).await?;
    let name = format!("{}/{}", destination.namespace, destination.provider);
    record_of_tool(
        &bus,
        ManualAction::on_provider("provider-resume", &destination),
    )
    .await;
    let woken = resume_now(&bus, &circuits, &stored, &destination, arguments.force).await?;
    print_line(&format!(
        "provider {name} resumed, {} woken",
        parked(woken.count)
    ))?;
    if woken.left > 0 {
        print_line(&format!(
            "{} for their reserved send time, the last until {:.3}; pass --force to send now",
            match woken.left {
                1 => "1 parked delivery waits".to_owned(),
                left => format!("{left} parked deliveries wait"),
            },
            Timestamp::from_millisecond(woken.left_until_ms).unwrap_or(Timestamp::MAX)
        ))?;
    }
    Ok(())
}

/// Closes the circuits before it wakes parked deliveries, so that it can be repeated if waking
/// fails. `stored` are all circuits.
///
/// # Errors
/// The bus is unavailable.
pub async fn resume_now(
    bus: &Bus,
    circuits: &Circuits,
    stored: &[StoredCircuit],
    destination: &Destination,
    is_forced: bool,
) -> anyhow::Result<Woken> {
    let now = bus.clock().now();
    let name = format!("{}/{}", destination.namespace, destination.provider);
    let mut wakes_provider = true;
    for of_provider in stored.iter().map(|stored| Destination::of(&stored.circuit)) {
        if (&of_provider.namespace, &of_provider.provider)
            != (&destination.namespace, &destination.provider)
        {
            continue;
        }
        let is_resumed = update(circuits, &of_provider, |circuit| {
            (circuit.state() != State::Closed).then(|| resumed(circuit, wakes_provider, now))
        });
        wakes_provider &= !is_resumed.await?;
    }
    let scope = if is_forced {
        WakeScope::Everything
    } else {
        WakeScope::Retries
    };
    bus.wake(destination, true, 0, scope).await.with_context(|| {
        format!(
            "provider {name} resumed, but parked deliveries were not woken: resume it again, or \
             wait until their retry time"
        )
    })
}

fn parked(count: usize) -> String {
    match count {
        1 => "1 parked delivery".to_owned(),
        count => format!("{count} parked deliveries"),
    }
}

/// Checks that a Provider exists. `stored` are all circuits.
///
/// # Errors
/// It does not exist, or the bus is unavailable.
pub async fn require(
    bus: &Bus,
    stored: &[StoredCircuit],
    destination: &Destination,
) -> anyhow::Result<()> {
    let name = RuleName {
        kind: RuleKind::Provider,
        namespace: destination.namespace.clone(),
        name: destination.provider.clone(),
    };
    let circuits = stored.iter().map(|stored| &stored.circuit);
    let stored = circuits.map(|circuit| (circuit.namespace.as_str(), circuit.provider.as_str()));
    names::require(bus, &name, stored).await
}

async fn list_all(arguments: &CircuitsArguments) -> anyhow::Result<()> {
    let bus = bus(&arguments.bus).await?;
    let stored = open(&bus).await?.all().await?;
    let mut circuits: Vec<Circuit> = stored.into_iter().map(|stored| stored.circuit).collect();
    circuits.retain(|circuit| circuit.state() != State::Closed || circuit.failures > 0);
    circuits.sort_by_key(Destination::of);
    if circuits.is_empty() && arguments.output == ListOutput::Text {
        eprintln!("all circuits are closed and without failures");
    }
    let now = bus.clock().now();
    let rows: Vec<_> = circuits.iter().map(|circuit| row(circuit, now)).collect();
    list::print(arguments.output, HEADERS, &rows)?;
    Ok(())
}

/// Opens the bucket of the circuits.
///
/// # Errors
/// It does not exist yet, or the bus is unavailable.
pub async fn open(bus: &Bus) -> anyhow::Result<Circuits> {
    Circuits::open(bus)
        .await
        .context("cannot open the bucket limits: start a worker on this NATS server first")
}

/// Stores a changed circuit, and retries if another client changed it meanwhile.
async fn update(
    circuits: &Circuits,
    destination: &Destination,
    change: impl Fn(&Circuit) -> Option<Circuit>,
) -> anyhow::Result<bool> {
    loop {
        let stored = circuits.load(destination).await?;
        let Some(changed) = change(&stored.circuit) else {
            return Ok(false);
        };
        let revision = circuits
            .store(destination, &changed, stored.revision)
            .await?;
        if revision.is_some() {
            return Ok(true);
        }
    }
}

/// The destination of a Provider with all its channels.
///
/// # Errors
/// The name is invalid.
pub fn destination(provider: &str) -> anyhow::Result<Destination> {
    let (namespace, name) = provider.split_once('/').unwrap_or(("default", provider));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        bail!("Provider {provider:?}: expected NAMESPACE/NAME");
    }
    Ok(Destination::whole(namespace, name))
}

/// The headers of the list on a terminal.
const HEADERS: &[&str] = &[
    "PROVIDER",
    "CHANNEL",
    "STATE",
    "SINCE",
    "NEXT ATTEMPT",
    "FAILURES",
    "REASON",
];

fn row(circuit: &Circuit, now: Timestamp) -> Row {
    let channel = circuit.channel.clone();
    Row {
        line: as_text(circuit, now),
        cells: vec![
            format!("{}/{}", circuit.namespace, circuit.provider),
            channel.unwrap_or_else(|| "*".to_owned()),
            state_name(circuit.state()).to_owned(),
            time(circuit.since),
            next_attempt(circuit, now).unwrap_or_else(|| time(None)),
            circuit.failures.to_string(),
            circuit.reason.clone(),
        ],
        json: as_json(circuit),
    }
}

/// A circuit on one line.
pub fn as_text(circuit: &Circuit, now: Timestamp) -> String {
    let next = next_attempt(circuit, now);
    let next = next.map_or_else(String::new, |next| format!(", next attempt {next}"));
    format!(
        "{}/{} {} {} since {}{next}, {}: {}",
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

/// When the next attempt is due. After that time, the circuit stays open until one succeeds.
pub fn next_attempt(circuit: &Circuit, now: Timestamp) -> Option<String> {
    let until = from_proto(circuit.until)?;
    Some(match until <= now {
        true => "due".to_owned(),
        false => time(circuit.until),
    })
}

/// The object for `--output json`.
pub fn as_json(circuit: &Circuit) -> serde_json::Value {
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
