//! `tidings streams`: recommends sizes, creates and updates the streams, and recreates the routers'
//! consumer.

mod plan;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use tidings_core::bus::consumers::chosen::BeginAt;
use tidings_core::bus::setup::{StreamChange, StreamPolicy};

use super::tool::{BusArguments, bus, count, moment, print_line};
use crate::audit::{ManualAction, record_of_tool};
use crate::flags::{flag, settings};

/// Arguments of `tidings streams`.
#[derive(Args, Debug)]
pub struct StreamsArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Recommend storage and memory of the NATS servers for a load; needs no server
    Plan(plan::PlanArguments),
    /// Create missing streams and update those whose configuration differs; print each change
    /// first
    Apply(ApplyArguments),
    /// Say that the streams were restored from a backup, before workers start: what the backup held
    /// then does not override newer states
    Restored(RestoredArguments),
    /// Recreate the consumer of the routers at a position of your choice, after its state and
    /// its recorded position were lost
    RecreateConsumer(RecreateArguments),
}

#[derive(Args, Debug)]
struct RestoredArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// When the backup was taken, such as 2026-01-02T15:04:05Z, or 90m for 90 minutes ago; after
    /// its last message, and before the server started again
    #[arg(long, value_name = "TIME")]
    taken_at: String,
}

#[derive(Args, Debug)]
struct RecreateArguments {
    #[command(flatten)]
    bus: BusArguments,
    #[command(flatten)]
    begin: Begin,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Begin {
    /// Route the events from this sequence of the stream EVENTS on
    #[arg(long, value_name = "NUMBER")]
    from_sequence: Option<u64>,
    /// Route the events that were stored since this time, such as 2026-01-02T15:04:05Z, or 90m for
    /// 90 minutes ago
    #[arg(long, value_name = "TIME")]
    from_time: Option<String>,
}

impl Begin {
    fn position(&self) -> anyhow::Result<BeginAt> {
        if let Some(sequence) = self.from_sequence {
            return Ok(BeginAt::Sequence(sequence));
        }
        let time = moment(self.from_time.as_deref().unwrap_or_default());
        Ok(BeginAt::Time(time.context("--from-time")?))
    }
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
    /// Print the changes and make none
    #[arg(long)]
    dry_run: bool,
}

/// Runs `tidings streams`.
///
/// # Errors
/// The bus cannot be reached or rejects a change.
pub async fn run(arguments: StreamsArguments) -> anyhow::Result<()> {
    match arguments.action {
        Action::Plan(arguments) => plan::run(&arguments),
        Action::Apply(arguments) => apply(arguments).await,
        Action::Restored(arguments) => restored(&arguments).await,
        Action::RecreateConsumer(arguments) => recreate_consumer(arguments).await,
    }
}

async fn restored(arguments: &RestoredArguments) -> anyhow::Result<()> {
    let taken_at = moment(&arguments.taken_at).context("--taken-at")?;
    let bus = bus(&arguments.bus).await?;
    bus.sample_clock()
        .await
        .context("cannot read the stream EVENTS")?;
    ensure!(
        taken_at < bus.clock().now(),
        "--taken-at {taken_at}: expected a time in the past"
    );
    let action = ManualAction::on("streams-restored", format!("{taken_at:.3}"));
    record_of_tool(&bus, action).await;
    let backup = bus.note_restored(taken_at).await?;
    print_line(&format!(
        "the backup holds EVENTS up to sequence {} and latest up to {}; start the workers",
        backup.events, backup.states
    ))?;
    Ok(())
}

async fn recreate_consumer(arguments: RecreateArguments) -> anyhow::Result<()> {
    let begin = arguments.begin.position()?;
    let bus = bus(&arguments.bus).await?;
    let action = ManualAction::on("recreate-consumer", "router");
    let detail = format!("{:?}", arguments.begin);
    record_of_tool(&bus, ManualAction { detail, ..action }).await;
    let recreated = bus.recreate_router_consumer(begin).await?;
    print_line(&format!(
        "consumer router begins with sequence {}: {} will be routed",
        recreated.sequence,
        count(usize::try_from(recreated.events)?, "event")
    ))?;
    Ok(())
}

async fn apply(arguments: ApplyArguments) -> anyhow::Result<()> {
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
    let (bus, sizing) = (bus(&arguments.bus).await?, settings.sizing());
    let changes = bus.stream_changes(&sizing).await?;
    let changes: Vec<String> = changes.iter().filter_map(described).collect();
    for change in &changes {
        print_line(change)?;
    }
    if arguments.dry_run && !changes.is_empty() {
        let changes = count(changes.len(), "stream");
        print_line(&format!("{changes} would change; nothing was changed"))?;
        return Ok(());
    }
    if !arguments.dry_run {
        bus.set_up(&sizing, StreamPolicy::Update).await?;
        if !changes.is_empty() {
            let action = ManualAction::on("streams-apply", changes.join("; "));
            record_of_tool(&bus, action).await;
        }
    }
    print_line("all streams are up to date")?;
    Ok(())
}

/// A change of a stream in one line.
fn described(change: &StreamChange) -> Option<String> {
    let stream = &change.stream;
    if change.is_missing {
        return Some(format!("{stream}: create"));
    }
    let differences = change.differences.join("; ");
    (!differences.is_empty()).then(|| format!("{stream}: update: {differences}"))
}
