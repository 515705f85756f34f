//! `tidings streams plan`: recommends storage and memory of the NATS servers for a load.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;
use tidings_core::bus::streams::{EVENTS_FOR, STREAM_LIMITS};
use tidings_core::model::stored_event::MAX_BODY_BYTES;
use tidings_core::model::stream_plan::{Load, StreamNeed, StreamPlan, plan};

use crate::command::Output;
use crate::command::tool::{duration, length, print_line};

/// The largest event that ingest accepts.
const LARGEST_EVENT: u64 = MAX_BODY_BYTES as u64;
/// The longest outage and retention.
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// Arguments of `tidings streams plan`.
#[derive(Args, Debug)]
pub struct PlanArguments {
    /// Number of clusters whose events arrive here
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    clusters: u64,
    /// Events of one cluster per second, on average
    #[arg(long, value_name = "NUMBER", default_value_t = 0.1)]
    events_per_second: f64,
    /// Size of an event as it is posted, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
        value_parser = clap::value_parser!(u64).range(1..=LARGEST_EVENT))]
    event_size: u64,
    /// Deliveries of one event, on average: the Alerts that match it
    #[arg(long, value_name = "NUMBER", default_value_t = 2.0)]
    deliveries_per_event: f64,
    /// How long deliveries to all services may have to wait
    #[arg(long, value_name = "DURATION", default_value = "4h")]
    outage: String,
    /// Part of the deliveries that are given up, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1)]
    dead_percent: f64,
    /// Commit statuses, comments and incidents with a record, for each cluster
    #[arg(long, value_name = "NUMBER", default_value_t = 200,
        value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    states: u64,
    /// How long events are to be kept, at most 72h
    #[arg(long, value_name = "DURATION", default_value = "72h")]
    retention: String,
    /// How long an equal event is rejected as a duplicate
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    dedupe_interval: String,
    /// Replicas of each stream, and NATS servers: 1, 3 or 5
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    replicas: u64,
    /// Output format; json prints one object
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl PlanArguments {
    fn load(&self) -> anyhow::Result<Load> {
        let number = |flag: &str, value: f64, most: f64| {
            ensure!(
                (0.0..=most).contains(&value),
                "{flag} {value}: expected a number from 0 to {most}"
            );
            Ok(value)
        };
        let length = |flag: &str, text: &str, most: Duration| {
            let length = duration(text).with_context(|| flag.to_owned())?;
            let length = Duration::try_from(length).ok().filter(|it| *it <= most);
            length.with_context(|| format!("{flag} {text}: expected at most {most:?}"))
        };
        ensure!(
            [1, 3, 5].contains(&self.replicas),
            "--replicas {}: expected 1, 3 or 5",
            self.replicas
        );
        Ok(Load {
            clusters: self.clusters,
            events_per_second: number("--events-per-second", self.events_per_second, 1e6)?,
            event_size: self.event_size,
            deliveries_per_event: number("--deliveries-per-event", self.deliveries_per_event, 1e4)?,
            outage: length("--outage", &self.outage, LONGEST)?,
            dead_share: number("--dead-percent", self.dead_percent, 100.0)? / 100.0,
            states: self.states,
            retention: length("--retention", &self.retention, EVENTS_FOR)?,
            dedupe_interval: length("--dedupe-interval", &self.dedupe_interval, LONGEST)?,
            replicas: self.replicas,
        })
    }
}

/// The plan as JSON. Sizes are in bytes, times in seconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    streams: Vec<Row>,
    server: Server,
    total: Total,
    settings: Settings,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: &'static str,
    messages_per_second: f64,
    message_bytes: u64,
    kept_seconds: u64,
    needed_bytes: u64,
    limit_bytes: Option<u64>,
    /// How long messages stay, if the limit is less than what is needed.
    holds_seconds: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    storage_bytes: u64,
    volume_bytes: u64,
    memory_bytes: u64,
    dedupe_memory_bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    servers: u64,
    storage_bytes: u64,
    volume_bytes: u64,
    memory_bytes: u64,
}

/// The settings of Tidings, as its settings file has them, and that of nats-server.
#[derive(Serialize)]
struct Settings {
    #[serde(rename = "nats.storage_limit")]
    storage_limit: String,
    #[serde(rename = "nats.replicas")]
    replicas: u64,
    #[serde(rename = "ingest.dedupe_interval")]
    dedupe_interval: String,
    #[serde(rename = "jetstream.max_file_store")]
    max_file_store: u64,
}

/// Prints the plan.
///
/// # Errors
/// A number is out of its range.
pub fn run(arguments: &PlanArguments) -> anyhow::Result<()> {
    let load = arguments.load()?;
    let plan = plan(&load, &STREAM_LIMITS);
    let lines = match arguments.output {
        Output::Json => vec![serde_json::to_string(&Report::new(
            arguments, &load, &plan,
        ))?],
        Output::Text => lines(arguments, &load, &plan),
    };
    for line in lines {
        if !print_line(&line)? {
            break;
        }
    }
    Ok(())
}

impl Report {
    fn new(arguments: &PlanArguments, load: &Load, plan: &StreamPlan) -> Self {
        let of_all = |bytes: u64| bytes.saturating_mul(load.replicas);
        Self {
            streams: plan.streams.iter().map(Row::new).collect(),
            server: Server {
                storage_bytes: plan.server_storage,
                volume_bytes: plan.volume,
                memory_bytes: plan.server_memory,
                dedupe_memory_bytes: plan.dedupe_memory,
            },
            total: Total {
                servers: load.replicas,
                storage_bytes: plan.storage_limit,
                volume_bytes: of_all(plan.volume),
                memory_bytes: of_all(plan.server_memory),
            },
            settings: Settings::new(arguments, load, plan),
        }
    }
}

impl Row {
    fn new(need: &StreamNeed) -> Self {
        Self {
            name: need.name,
            messages_per_second: need.per_second,
            message_bytes: need.message_bytes,
            kept_seconds: need.kept.as_secs(),
            needed_bytes: need.needed,
            limit_bytes: need.limit,
            holds_seconds: need.holds.map(|holds| holds.as_secs()),
        }
    }
}

impl Settings {
    fn new(arguments: &PlanArguments, load: &Load, plan: &StreamPlan) -> Self {
        Self {
            storage_limit: format!("{}GiB", plan.storage_limit >> 30),
            replicas: load.replicas,
            dedupe_interval: arguments.dedupe_interval.clone(),
            max_file_store: plan.server_storage,
        }
    }
}

fn lines(arguments: &PlanArguments, load: &Load, plan: &StreamPlan) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<11} {:>12} {:>10} {:>8} {:>11} {:>11}",
        "STREAM", "MESSAGES/s", "BYTES EACH", "KEPT", "NEEDED", "LIMIT"
    )];
    for need in &plan.streams {
        let kept = match need.kept.is_zero() {
            true => "-".to_owned(),
            false => length(need.kept),
        };
        let limit = need.limit.map_or_else(|| "-".to_owned(), size);
        let short = need.holds.map_or_else(String::new, |holds| {
            format!("  holds only {} of it", length(holds))
        });
        lines.push(format!(
            "{:<11} {:>12.3} {:>10} {:>8} {:>11} {:>11}{short}",
            need.name,
            need.per_second,
            need.message_bytes,
            kept,
            size(need.needed),
            limit
        ));
    }
    let settings = Settings::new(arguments, load, plan);
    lines.extend([
        String::new(),
        format!(
            "EACH OF {} SERVERS  storage {}, volume {}, memory {} (of it for duplicates {})",
            load.replicas,
            size(plan.server_storage),
            size(plan.volume),
            size(plan.server_memory),
            size(plan.dedupe_memory)
        ),
        format!(
            "TOTAL  storage {}, volumes {}, memory {}",
            size(plan.storage_limit),
            size(plan.volume.saturating_mul(load.replicas)),
            size(plan.server_memory.saturating_mul(load.replicas))
        ),
        "SETTINGS".to_owned(),
        format!("  nats.storage_limit: {}", settings.storage_limit),
        format!("  nats.replicas: {}", settings.replicas),
        format!("  ingest.dedupe_interval: {}", settings.dedupe_interval),
        format!(
            "  nats-server, jetstream.max_file_store: {}",
            settings.max_file_store
        ),
    ]);
    lines
}

/// A size in its largest unit.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64),
    }
}
