//! `tidings dead`: what was given up, with its whole story; and another chance for it.

mod stored;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tidings_core::bus::Bus;
use tidings_core::bus::streams;
use tidings_core::model::flux;
use tidings_core::model::id;
use tidings_core::{Attempt, Delivery, Timestamp};

use super::Output;
use super::tool::{BusArguments, bus, print_line, time};
use stored::{Filter, Letter, find};

/// What `tidings dead` takes.
#[derive(Args, Debug)]
pub struct DeadArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// A line for each letter, oldest first
    List(ListArguments),
    /// The whole story of letters: event, alert, provider, every attempt
    Show(ListArguments),
    /// Plans letters anew; their age counts from now, and they leave the list
    Replay(ChangeArguments),
    /// Forgets letters
    Drop(ChangeArguments),
}

#[derive(Args, Debug)]
struct ListArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    filter: Filter,
    /// The form of the output; json is one object a line
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args, Debug)]
struct ChangeArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    filter: Filter,
    /// All letters, without a filter
    #[arg(long)]
    all: bool,
}

/// Runs the command.
///
/// # Errors
/// The bus can't be reached, the filter is wrong, or no letter is meant where one must be.
pub async fn run(arguments: DeadArguments) -> anyhow::Result<()> {
    match arguments.action {
        Action::List(arguments) => print(&arguments, summary).await,
        Action::Show(arguments) => print(&arguments, story).await,
        Action::Replay(arguments) => change(&arguments, "replayed", Change::Replay).await,
        Action::Drop(arguments) => change(&arguments, "dropped", Change::Drop).await,
    }
}

async fn print(arguments: &ListArguments, text: fn(&Letter) -> String) -> anyhow::Result<()> {
    let bus = bus(&arguments.bus).await?;
    for letter in &find(&bus, &arguments.filter).await? {
        let line = if arguments.output == Output::Json {
            as_json(letter).to_string()
        } else {
            text(letter)
        };
        if !print_line(&line)? {
            break;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Replay,
    Drop,
}

async fn change(arguments: &ChangeArguments, done: &str, change: Change) -> anyhow::Result<()> {
    if arguments.filter.is_empty() && !arguments.all {
        bail!("say which letters: ids, --provider, --reason, --older-than, --newer-than, or --all");
    }
    let bus = bus(&arguments.bus).await?;
    let letters = find(&bus, &arguments.filter).await?;
    for letter in &letters {
        if change == Change::Replay {
            replay(&bus, letter.delivery()).await?;
        }
        forget(&bus, letter.sequence).await?;
    }
    print_line(&format!("{} {done}", letters.len()))?;
    Ok(())
}

/// Stores the delivery again under the id of its next generation. A letter that is replayed twice,
/// because its first replay was broken off before it left the list, is one delivery.
async fn replay(bus: &Bus, mut delivery: Delivery) -> anyhow::Result<()> {
    let (alert, provider) = (
        delivery.alert.clone().unwrap_or_default(),
        delivery.provider.clone().unwrap_or_default(),
    );
    let now = jiff::Timestamp::now();
    delivery.generation += 1;
    delivery.id = id::delivery_id(
        &delivery.event_id,
        (&alert.namespace, &alert.name),
        (&provider.namespace, &provider.name),
        delivery.generation,
    );
    delivery.planned_at = Some(Timestamp {
        seconds: now.as_second(),
        nanos: now.subsec_nanosecond(),
    });
    delivery.attempt = 0;
    delivery.attempts.clear();
    delivery.unauthorized_since = None;
    bus.enqueue(&delivery)
        .await
        .context("a letter can't be replayed now; it stays in the list")?;
    Ok(())
}

async fn forget(bus: &Bus, sequence: u64) -> anyhow::Result<()> {
    let dead = bus
        .jetstream()
        .get_stream(streams::DEAD)
        .await
        .context("there is no stream DEAD")?;
    dead.delete_message(sequence)
        .await
        .context("a letter can't be taken from the list")?;
    Ok(())
}

fn summary(letter: &Letter) -> String {
    let delivery = letter.delivery();
    let (alert, provider) = (
        delivery.alert.unwrap_or_default(),
        delivery.provider.unwrap_or_default(),
    );
    format!(
        "{} {} {} {}/{} ({}) for {}/{} after {} attempts: {}",
        delivery.id,
        time(letter.letter.died_at.as_ref()),
        letter.letter.reason,
        provider.namespace,
        provider.name,
        provider.r#type,
        alert.namespace,
        alert.name,
        delivery.attempt,
        letter.letter.detail
    )
}

fn story(letter: &Letter) -> String {
    let delivery = letter.delivery();
    let event = delivery.event.clone().unwrap_or_default();
    let object = event.involved_object.clone().unwrap_or_default();
    let mut lines = vec![
        summary(letter),
        format!(
            "  event {} of {} from cluster {}",
            delivery.event_id,
            time(event.received_at.as_ref()),
            event.cluster
        ),
        format!(
            "    {} {} {}/{}: {}: {}",
            event.severity, object.kind, object.namespace, object.name, event.reason, event.message
        ),
    ];
    lines.extend(
        delivery
            .metadata
            .iter()
            .map(|(key, value)| format!("    {key}: {value}")),
    );
    lines.push(format!(
        "  planned {}, generation {}",
        time(delivery.planned_at.as_ref()),
        delivery.generation
    ));
    lines.extend(delivery.attempts.iter().map(attempt_line));
    lines.join("\n")
}

fn attempt_line(attempt: &Attempt) -> String {
    format!(
        "  attempt {} at {} took {} ms: {} {} {}",
        attempt.number,
        time(attempt.started_at.as_ref()),
        attempt.duration_ms,
        attempt.outcome,
        attempt.reason,
        attempt.detail
    )
}

fn as_json(letter: &Letter) -> serde_json::Value {
    let delivery = letter.delivery();
    let (alert, provider) = (
        delivery.alert.clone().unwrap_or_default(),
        delivery.provider.clone().unwrap_or_default(),
    );
    let attempts = delivery.attempts.iter().map(|attempt| {
        json!({
            "number": attempt.number, "startedAt": time(attempt.started_at.as_ref()), "durationMs": attempt.duration_ms,
            "outcome": attempt.outcome, "reason": attempt.reason, "status": attempt.status, "detail": attempt.detail,
            "templateError": attempt.template_error,
        })
    });
    json!({
        "id": delivery.id,
        "reason": letter.letter.reason,
        "detail": letter.letter.detail,
        "diedAt": time(letter.letter.died_at.as_ref()),
        "alert": format!("{}/{}", alert.namespace, alert.name),
        "provider": format!("{}/{}", provider.namespace, provider.name),
        "type": provider.r#type,
        "eventId": delivery.event_id,
        "event": delivery.event.as_ref().map(|event| flux::to_value(event, &delivery.metadata)),
        "cluster": delivery.event.as_ref().map(|event| event.cluster.clone()),
        "plannedAt": time(delivery.planned_at.as_ref()),
        "generation": delivery.generation,
        "attempt": delivery.attempt,
        "attempts": attempts.collect::<Vec<_>>(),
    })
}
