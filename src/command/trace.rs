//! `tidings trace`: what became of an event, from stored data.

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use jiff::Timestamp;

use super::Output;
use super::rules;
use super::tool::{BusArguments, bus, moment, print_line};
use crate::flags::{AsFlags, KubernetesFlags, RulesFlags, settings};
use crate::trace::assemble::assemble;
use crate::trace::bounds::Bounds;
use crate::trace::gather::{Request, gather};
use crate::trace::query::Query;
use crate::trace::render;

/// Exit status: an event was found.
const FOUND: u8 = 0;
/// Exit status: no event was found.
const NOT_FOUND: u8 = 1;
/// Events of an object are searched for this long.
const SINCE: &str = "1h";

/// Arguments of `tidings trace`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("wanted").required(true)))]
pub struct TraceArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Trace the event with this id, or the event of the delivery with this id; the first 7
    /// characters of an id are enough
    #[arg(long, value_name = "ID", group = "wanted")]
    event: Option<String>,
    /// Trace the events of this object
    #[arg(long, value_name = "KIND/NAMESPACE/NAME", group = "wanted")]
    object: Option<String>,
    /// Trace the events whose metadata names this commit, or one that begins with it
    #[arg(long, value_name = "SHA", group = "wanted")]
    commit: Option<String>,
    /// Trace only events of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Trace events that were stored since this time, such as 2026-01-02T15:04:05Z, or 30m for 30
    /// minutes ago [default: 1h with --object, else all that are stored]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Most events to trace: the latest, 1 to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    /// Output format; json prints one object
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Prints the trace, and returns the exit status.
///
/// # Errors
/// The arguments are invalid, or the bus or the rules cannot be read. The exit status is then 2.
pub async fn run(arguments: TraceArguments) -> anyhow::Result<u8> {
    let request = arguments.request()?;
    let flags = [arguments.rules.flags(), arguments.kubernetes.flags()].concat();
    let settings = settings(&arguments.bus.common, flags)?;
    let loaded = match settings.rules.sources.is_empty() {
        true => None,
        false => Some(rules::load(&settings).await?),
    };
    let bus = bus(&arguments.bus).await?;
    let facts = gather(&bus, &request).await?;
    let rules = loaded.as_ref().map(|loaded| &*loaded.rules);
    let trace = assemble(&request, &facts, rules, &|_| true);
    let lines = match arguments.output {
        Output::Json => vec![serde_json::to_string(&trace)?],
        Output::Text => render::lines(&trace),
    };
    for line in lines {
        if !print_line(&line)? {
            break;
        }
    }
    Ok(match trace.events.is_empty() {
        true => NOT_FOUND,
        false => FOUND,
    })
}

impl TraceArguments {
    fn request(&self) -> anyhow::Result<Request> {
        let event = self.event.as_deref().map(Query::event);
        let object = self.object.as_deref().map(Query::object);
        let commit = self.commit.as_deref().map(Query::commit);
        let query = event
            .map(|query| query.context("--event"))
            .or_else(|| object.map(|query| query.context("--object")))
            .or_else(|| commit.map(|query| query.context("--commit")))
            .context("one of --event, --object and --commit is required")??;
        let default = matches!(query, Query::Object { .. }).then_some(SINCE);
        let since = self.since.as_deref().or(default).map(moment).transpose();
        Ok(Request {
            query,
            since: since.context("--since")?.unwrap_or(Timestamp::UNIX_EPOCH),
            cluster: self.cluster.clone(),
            limit: usize::try_from(self.limit)?,
            bounds: Bounds::TOOL,
        })
    }
}
