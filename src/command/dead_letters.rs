//! `tidings dead`: lists, shows, replays and drops dead letters.

pub mod find;
pub mod report;
pub mod stored_event;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tidings_core::Delivery;
use tidings_core::bus::Bus;
use tidings_core::bus::streams;
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::id;
use tidings_core::model::text::visible;
use tidings_core::model::time::to_proto;

use super::ListOutput;
use super::list::{self, Row};
use super::tool::{BusArguments, bus, count, print_line};
use crate::audit::{ManualAction, record_of_tool};
use find::{Filter, StoredDeadLetter, find};
use stored_event::StoredEvent;

/// Arguments of `tidings dead`.
#[derive(Args, Debug)]
pub struct DeadArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List dead letters, oldest first
    List(ListArguments),
    /// Show dead letters with their event, alert, provider and every attempt
    Show(ListArguments),
    /// Replay dead letters as new deliveries, and remove them from the list
    Replay(ChangeArguments),
    /// Delete dead letters without delivering them; asks for --yes
    Drop(DropArguments),
}

#[derive(Args, Debug)]
struct ListArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    filter: Filter,
    /// Output format; json prints one array, jsonl one object per line
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

#[derive(Args, Debug)]
struct ChangeArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    filter: Filter,
    /// Select all dead letters; required if neither an ID nor another filter is given
    #[arg(long)]
    all: bool,
    /// List the selected dead letters and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct DropArguments {
    #[command(flatten)]
    selected: ChangeArguments,
    /// Confirm that the selected dead letters are deleted for good
    #[arg(long)]
    yes: bool,
}

/// Runs `tidings dead`.
///
/// # Errors
/// The bus cannot be reached, the filter is invalid, no dead letter has a given id, or an Alert or
/// Provider does not exist.
pub async fn run(arguments: DeadArguments) -> anyhow::Result<()> {
    match arguments.action {
        Action::List(arguments) => print(&arguments, false).await,
        Action::Show(arguments) => print(&arguments, true).await,
        Action::Replay(arguments) => replay_all(&arguments).await,
        Action::Drop(arguments) => drop_all(&arguments).await,
    }
}

async fn print(arguments: &ListArguments, with_details: bool) -> anyhow::Result<()> {
    let bus = bus(&arguments.bus).await?;
    let found = find(&bus, &arguments.filter).await?;
    if let Err(error) = &found.existence {
        eprintln!("{}", visible(&error.to_string()));
    } else if found.dead_letters.is_empty() && arguments.output == ListOutput::Text {
        eprintln!("no dead letters");
    }
    let is_text = arguments.output == ListOutput::Text;
    let mut rows = Vec::new();
    for stored in &found.dead_letters {
        let event = || StoredEvent::find(&bus, stored.delivery());
        if is_text && with_details {
            for line in report::details(stored, &event().await) {
                if !print_line(&line)? {
                    return Ok(());
                }
            }
        } else if is_text {
            rows.push(report::row(stored));
        } else {
            rows.push(Row::of(report::json(stored, &event().await)));
        }
    }
    if !(is_text && with_details) {
        list::print(arguments.output, report::HEADERS, &rows)?;
    }
    Ok(())
}

async fn replay_all(arguments: &ChangeArguments) -> anyhow::Result<()> {
    let (bus, selected) = select(arguments).await?;
    if arguments.dry_run {
        return preview(&selected, "replayed");
    }
    record_of_tool(&bus, arguments.action("dead-replay", &selected)).await;
    for stored in &selected {
        replay(&bus, stored.delivery()).await?;
        delete(&bus, stored.sequence).await?;
    }
    print_line(&format!(
        "{} replayed",
        count(selected.len(), "dead letter")
    ))?;
    Ok(())
}

async fn drop_all(arguments: &DropArguments) -> anyhow::Result<()> {
    let (bus, selected) = select(&arguments.selected).await?;
    let number = count(selected.len(), "dead letter");
    if arguments.selected.dry_run {
        return preview(&selected, "dropped");
    }
    if !arguments.yes {
        bail!(
            "{number} selected, none dropped: pass --yes to delete for good, or --dry-run to list"
        );
    }
    let action = arguments.selected.action("dead-drop", &selected);
    record_of_tool(&bus, action).await;
    for stored in &selected {
        delete(&bus, stored.sequence).await?;
    }
    print_line(&format!("{number} dropped"))?;
    Ok(())
}

fn preview(selected: &[StoredDeadLetter], change: &str) -> anyhow::Result<()> {
    for stored in selected {
        if !print_line(&report::summary(stored))? {
            return Ok(());
        }
    }
    let number = count(selected.len(), "dead letter");
    print_line(&format!("{number} would be {change}"))?;
    Ok(())
}

async fn select(arguments: &ChangeArguments) -> anyhow::Result<(Bus, Vec<StoredDeadLetter>)> {
    if arguments.filter.is_empty() && !arguments.all {
        bail!(
            "no dead letter is selected: pass ids, --alert, --provider, --cluster, --reason, \
             --older-than, --newer-than, or --all"
        );
    }
    let bus = bus(&arguments.bus).await?;
    let found = find(&bus, &arguments.filter).await?;
    found.existence?;
    Ok((bus, found.dead_letters))
}

impl ChangeArguments {
    fn action(&self, name: &'static str, selected: &[StoredDeadLetter]) -> ManualAction {
        action_on(name, self.filter.text(), selected)
    }
}

/// An action on these dead letters, with the namespaces of their Alerts, Providers and objects. It
/// names none if an object is unknown.
pub fn action_on(
    name: &'static str,
    target: impl Into<String>,
    selected: &[StoredDeadLetter],
) -> ManualAction {
    let mut action = ManualAction::on(name, target);
    action.count = selected.len();
    for stored in selected {
        let delivery = stored.delivery();
        let Some(event) = carried_event(&delivery) else {
            action.namespaces.clear();
            action.objects.clear();
            return action;
        };
        let object = event.involved_object.clone().unwrap_or_default();
        let of_object = (event.cluster.clone(), object.namespace);
        action.objects.insert(of_object);
        let alert = delivery.alert.clone().unwrap_or_default();
        let provider = delivery.provider.clone().unwrap_or_default();
        action
            .namespaces
            .extend([alert.namespace, provider.namespace]);
    }
    action
}

/// Stores the delivery again, as its next generation. If a replay is interrupted and repeated, the
/// derived id is the same, so JetStream detects the duplicate.
///
/// # Errors
/// It might not be stored.
pub async fn replay(bus: &Bus, mut delivery: Delivery) -> anyhow::Result<()> {
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    let dead_id = std::mem::take(&mut delivery.id);
    delivery.generation += 1;
    let cluster = carried_event(&delivery).map_or("", |event| event.cluster.as_str());
    delivery.id = id::delivery_id(
        &id::event_key(&delivery.event_id, cluster),
        (&alert.namespace, &alert.name),
        (&provider.namespace, &provider.name),
        delivery.generation,
    );
    delivery.planned_at = Some(to_proto(jiff::Timestamp::now()));
    delivery.attempt = 0;
    delivery.attempts.clear();
    delivery.unauthorized_since = None;
    bus.enqueue(&delivery).await.with_context(|| {
        format!("cannot replay dead letter {dead_id}: it stays in the list; try again")
    })?;
    Ok(())
}

/// Deletes a dead letter.
///
/// # Errors
/// It might not be deleted.
pub async fn delete(bus: &Bus, sequence: u64) -> anyhow::Result<()> {
    let dead = bus
        .jetstream()
        .get_stream(streams::DEAD)
        .await
        .context("cannot open the stream DEAD")?;
    dead.delete_message(sequence)
        .await
        .with_context(|| format!("cannot delete message {sequence} from the stream DEAD"))?;
    Ok(())
}
