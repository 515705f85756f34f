//! `tidings tap`: follows the stream of events, as any consumer can; it never slows a producer.

use anyhow::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use clap::Args;
use futures::StreamExt;
use tidings_core::bus::streams;
use tidings_core::model::flux;
use tidings_core::model::subject;
use tidings_core::{Event, Message as _};
use tokio::signal::unix::{SignalKind, signal};

use super::Output;
use super::tool::{self, BusArguments, ago, bus, print_line};

/// What `tidings tap` takes.
#[derive(Args, Debug)]
pub struct TapArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Events of this cluster only
    #[arg(long)]
    cluster: Option<String>,
    /// Events about objects in this namespace only
    #[arg(long)]
    namespace: Option<String>,
    /// Events about objects of this kind only
    #[arg(long)]
    kind: Option<String>,
    /// Events about the object of this name only
    #[arg(long)]
    name: Option<String>,
    /// Events of this severity only
    #[arg(long)]
    severity: Option<String>,
    /// Begin so long ago instead of now: 90s, 30m, 12h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// The form of the output; json is one object a line
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Follows until Ctrl-C or until nobody reads any more.
///
/// # Errors
/// The bus can't be reached, or the stream is not there.
pub async fn run(arguments: TapArguments) -> anyhow::Result<()> {
    // Listened for from the beginning to the end: a signal that comes while a line is printed must
    // not be missed.
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
        .context("there is no stream EVENTS: is Tidings running?")?;
    let config = OrderedConfig {
        deliver_policy,
        filter_subject,
        ..OrderedConfig::default()
    };
    let consumer = events
        .create_consumer(config)
        .await
        .context("cannot follow the stream")?;
    let mut messages = consumer
        .messages()
        .await
        .context("cannot follow the stream")?;
    while let Some(message) = messages.next().await {
        let message = message.context("following the stream failed")?;
        let Ok(event) = Event::decode(message.payload.clone()) else {
            continue;
        };
        if is_meant(&event, &arguments) && !print_line(&line(&event, arguments.output))? {
            break;
        }
    }
    Ok(())
}

/// What the subject can't tell: a name, and severities that share a word.
fn is_meant(event: &Event, arguments: &TapArguments) -> bool {
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
        value["receivedAt"] = tool::time(event.received_at.as_ref()).into();
        return value.to_string();
    }
    let object = event.involved_object.clone().unwrap_or_default();
    format!(
        "{} {} {} {} {}/{} {}: {}",
        tool::time(event.received_at.as_ref()),
        event.cluster,
        event.severity,
        object.kind,
        object.namespace,
        object.name,
        event.reason,
        event.message.replace('\n', " ")
    )
}

fn start_time(since: &str) -> anyhow::Result<time::OffsetDateTime> {
    let start = ago(since).context("--since")?;
    time::OffsetDateTime::from_unix_timestamp_nanos(start.as_nanosecond())
        .context("--since is too long ago")
}
