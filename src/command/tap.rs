//! `tidings tap`: prints events as they are stored. It reads with its own consumer, so it does not
//! slow down other consumers.

use anyhow::Context as _;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use clap::Args;
use futures::StreamExt;
use tidings_core::Event;
use tidings_core::bus::streams;
use tidings_core::model::text::visible;
use tidings_core::model::{flux, stored_event, subject};
use tokio::signal::unix::{SignalKind, signal};

use super::Output;
use super::tool::{self, BusArguments, ago, bus, print_line};

/// Arguments of `tidings tap`.
#[derive(Args, Debug)]
pub struct TapArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Print only events of this cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Print only events about objects in this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Print only events about objects of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Print only events about objects with this name
    #[arg(long)]
    name: Option<String>,
    /// Print only events of this severity, such as info or error
    #[arg(long)]
    severity: Option<String>,
    /// Start this long ago, such as 90s, 30m or 12h [default: print only new events]
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Output format; json prints one object per line
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Prints events until Ctrl-C, or until the reader closes the pipe.
///
/// # Errors
/// The bus cannot be reached, or the stream EVENTS does not exist.
pub async fn run(arguments: TapArguments) -> anyhow::Result<()> {
    // Created once, so that a signal that arrives while a line is printed is not missed.
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        followed = follow(arguments) => followed,
        _ = interrupted.recv() => Ok(()),
    }
}

async fn follow(arguments: TapArguments) -> anyhow::Result<()> {
    let bus = bus(&arguments.bus).await?;
    let deliver_policy = match &arguments.since {
        None => DeliverPolicy::New,
        Some(since) => DeliverPolicy::ByStartTime {
            start_time: start_time(since)?,
        },
    };
    let [cluster, namespace, kind, severity] = [
        &arguments.cluster,
        &arguments.namespace,
        &arguments.kind,
        &arguments.severity,
    ]
    .map(Option::as_deref);
    let filter_subject = subject::event_filter(cluster, namespace, kind, severity);
    let events = bus
        .jetstream()
        .get_stream(streams::EVENTS)
        .await
        .context("stream EVENTS not found: is Tidings running?")?;
    let config = OrderedConfig {
        deliver_policy,
        filter_subject,
        ..OrderedConfig::default()
    };
    let consumer = events
        .create_consumer(config)
        .await
        .context("cannot read the stream EVENTS")?;
    let mut messages = consumer
        .messages()
        .await
        .context("cannot read the stream EVENTS")?;
    while let Some(message) = messages.next().await {
        let message = message.context("cannot read the stream EVENTS")?;
        let event = match stored_event::read(&message.subject, &message.payload) {
            Ok(event) => event,
            Err(refused) => {
                eprintln!("skipped: {}", visible(&refused.to_string()));
                continue;
            }
        };
        if is_selected(&event, &arguments) && !print_line(&line(&event, arguments.output))? {
            break;
        }
    }
    Ok(())
}

/// Checks what the subject filter cannot: the name, and the exact severity. In the subject, several
/// severities share one token.
fn is_selected(event: &Event, arguments: &TapArguments) -> bool {
    let object = event.involved_object.clone().unwrap_or_default();
    arguments
        .name
        .as_ref()
        .is_none_or(|name| *name == object.name)
        && arguments
            .severity
            .as_ref()
            .is_none_or(|severity| *severity == event.severity)
}

fn line(event: &Event, output: Output) -> String {
    if output == Output::Json {
        let mut value = flux::to_value(event, &event.metadata.clone().into_iter().collect());
        value["id"] = event.id.clone().into();
        value["cluster"] = event.cluster.clone().into();
        value["receivedAt"] = tool::time(event.received_at).into();
        return value.to_string();
    }
    let object = event.involved_object.clone().unwrap_or_default();
    format!(
        "{} {} {} {} {}/{} {}: {}",
        tool::time(event.received_at),
        event.cluster,
        event.severity,
        object.kind,
        object.namespace,
        object.name,
        event.reason,
        event.message
    )
}

fn start_time(since: &str) -> anyhow::Result<time::OffsetDateTime> {
    let start = ago(since).context("--since")?;
    time::OffsetDateTime::from_unix_timestamp_nanos(start.as_nanosecond())
        .context("--since: too long ago")
}
