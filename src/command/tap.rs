//! `tidings tap`: prints events as they are stored. It reads with its own consumer, so it does not
//! slow down other consumers.

mod read;
pub mod source;
mod span;

use std::ops::ControlFlow;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tidings_core::Event;
use tidings_core::model::text::visible;
use tidings_core::model::{cloud_event, stored_event, subject};
use tokio::signal::unix::{SignalKind, signal};

use super::tool::{self, BusArguments, bus, print_line};
use span::Span;

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
    /// Print events that were stored since this time, such as 2026-01-02T15:04:05Z, or 30m for 30
    /// minutes ago [default: new events; all events with --no-follow, or if --until is past]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print only events that were stored before this time, in the same formats, then end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// End after the last event that is stored now
    #[arg(long)]
    no_follow: bool,
    /// End after this number of events
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Output format; json, jsonl and cloudevents print one object per line
    #[arg(long, value_enum, default_value_t = TapOutput::Text)]
    output: TapOutput,
}

/// The output format. The values have no doc comments, to keep the help short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TapOutput {
    Text,
    Json,
    Jsonl,
    #[value(name = "cloudevents")]
    CloudEvents,
}

/// Selects events. What is `None` selects every event.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The cluster.
    pub cluster: Option<String>,
    /// The namespace of the object.
    pub namespace: Option<String>,
    /// The kind of the object.
    pub kind: Option<String>,
    /// The name of the object.
    pub name: Option<String>,
    /// The severity.
    pub severity: Option<String>,
}

impl Selection {
    /// The subjects of the events, and of some others: see [`Selection::includes`].
    pub fn filter(&self) -> String {
        let parts = [&self.cluster, &self.namespace, &self.kind, &self.severity];
        let [cluster, namespace, kind, severity] = parts.map(Option::as_deref);
        subject::event_filter(cluster, namespace, kind, severity)
    }

    /// Checks what the subject filter cannot: the name, and the exact severity. In the subject,
    /// several severities share one token.
    pub fn includes(&self, event: &Event) -> bool {
        let object = event.involved_object.as_ref();
        let has_name = |name: &String| object.is_some_and(|object| *name == object.name);
        let has_severity = |severity: &String| *severity == event.severity;
        self.name.as_ref().is_none_or(has_name) && self.severity.as_ref().is_none_or(has_severity)
    }
}

/// Prints events until Ctrl-C, until the reader closes the pipe, or until the arguments say so.
///
/// # Errors
/// The bus cannot be reached, the stream EVENTS does not exist, or a time is invalid.
pub async fn run(arguments: TapArguments) -> anyhow::Result<()> {
    // Created once, so that a signal that arrives while a line is printed is not missed.
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        printed = print(arguments) => printed,
        _ = interrupted.recv() => Ok(()),
    }
}

async fn print(arguments: TapArguments) -> anyhow::Result<()> {
    let span = arguments.span()?;
    if let Some(severity) = arguments.severity.as_deref()
        && subject::severity_token(severity) == "other"
    {
        eprintln!(
            "--severity {}: Flux sends trace, info and error",
            visible(severity)
        );
    }
    let bus = bus(&arguments.bus).await?;
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let selection = arguments.selection();
    read::read(&bus, selection.filter(), &span, |message| {
        let event = match stored_event::read(&message.subject, &message.payload) {
            Ok(event) => event,
            Err(refused) => {
                eprintln!("skipped: {}", visible(&refused.to_string()));
                return Ok(ControlFlow::Continue(()));
            }
        };
        let Some(line) = line(&event, arguments.output).filter(|_| selection.includes(&event))
        else {
            return Ok(ControlFlow::Continue(()));
        };
        left -= 1;
        let is_read = print_line(&line)?;
        Ok(if is_read && left > 0 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        })
    })
    .await
}

impl TapArguments {
    fn span(&self) -> anyhow::Result<Span> {
        let time = |flag, text: &Option<String>| {
            let time = text.as_deref().map(tool::moment).transpose();
            time.context(flag)
        };
        let span = Span {
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
            follows: !self.no_follow,
        };
        if let (Some(since), Some(until)) = (span.since, span.until) {
            let named = "--since must be before --until";
            anyhow::ensure!(
                since < until,
                "{named}: {since:.0} is not before {until:.0}"
            );
        }
        Ok(span)
    }

    fn selection(&self) -> Selection {
        Selection {
            cluster: self.cluster.clone(),
            namespace: self.namespace.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            severity: self.severity.clone(),
        }
    }
}

/// The line of an event. `None` for one without an id as a CloudEvent.
fn line(event: &Event, output: TapOutput) -> Option<String> {
    match output {
        TapOutput::Text => Some(text(event)),
        TapOutput::Json | TapOutput::Jsonl => Some(cloud_event::to_json(event).to_string()),
        TapOutput::CloudEvents => Some(cloud_event::cloud_event(event)?.to_string()),
    }
}

fn text(event: &Event) -> String {
    let object = event.involved_object.clone().unwrap_or_default();
    format!(
        "{} {} {} {} {} {}/{} {}: {}",
        tool::time(event.received_at),
        event.id,
        event.cluster,
        event.severity,
        object.kind,
        object.namespace,
        object.name,
        event.reason,
        event.message
    )
}
