//! `tidings test`: decodes one event, applies all rules to it, and attempts each delivery once. It
//! needs no NATS server.

mod deliver;
mod report;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tidings_core::runtime::config::LinksSettings;
use tidings_core::{Event, ObjectLabels, object_labels};
use tidings_router::{PlanContext, Verdict, explain};
use tidings_rules::{Options, folder};

use super::Output;
use report::Report;

/// Exit status: nothing failed.
const SUCCESS: u8 = 0;
/// Exit status: a delivery failed or is invalid, or a cross-namespace reference is rejected.
const FAILURE: u8 = 1;

/// Arguments of `tidings test`.
#[derive(Args, Debug)]
pub struct TestArguments {
    /// Folder of Alerts, Providers and Secrets
    #[arg(long, value_name = "DIR")]
    rules: PathBuf,
    /// File with an event as JSON, as Flux controllers post it, or - for standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Print the requests instead of sending them; secrets are redacted
    #[arg(long)]
    dry_run: bool,
    /// Labels of the involved object, as KEY=VALUE,KEY=VALUE, or `none` if the object does not
    /// exist [default: unknown labels]
    #[arg(long, value_name = "LABELS")]
    labels: Option<String>,
    /// Name of the cluster that the event comes from
    #[arg(long, default_value = "default")]
    cluster: String,
    /// Reject references from Alerts to other namespaces
    #[arg(long)]
    no_cross_namespace_refs: bool,
    /// Add links to messages, as the setting links.enabled does
    #[arg(long)]
    links: bool,
    /// URL template for a commit, as in the setting links.commit
    #[arg(long, value_name = "PATTERN")]
    commit_link: Option<String>,
    /// URL template for a dashboard, as in the setting links.dashboard
    #[arg(long, value_name = "PATTERN")]
    dashboard_link: Option<String>,
    /// URL template for commit statuses, as in the setting links.commit_status
    #[arg(long, value_name = "PATTERN")]
    commit_status_link: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl TestArguments {
    fn links(&self) -> LinksSettings {
        LinksSettings {
            enabled: self.links,
            commit: self.commit_link.clone(),
            dashboard: self.dashboard_link.clone(),
            commit_status: self.commit_status_link.clone(),
        }
    }
}

/// Runs `tidings test` and returns its exit status.
///
/// # Errors
/// The event or the rules cannot be read. The exit status is then 2.
pub async fn run(arguments: TestArguments) -> anyhow::Result<u8> {
    let event = read_event(&arguments)?;
    let options = Options {
        no_cross_namespace_refs: arguments.no_cross_namespace_refs,
        ..Options::default()
    };
    let kinds = tidings_workers::notifier::kinds();
    let rules = folder::load(&arguments.rules, kinds, &options)
        .map_err(|problem| anyhow::anyhow!("{problem}"))?;
    for problem in rules.problems() {
        eprintln!("{problem}");
    }
    let explanations = explain(&rules, &event, PlanContext::default());
    // Flux also treats a rejected reference as an error.
    let is_rejected = explanations
        .iter()
        .any(|explanation| explanation.verdict == Verdict::CrossNamespaceRefused);
    let deliveries = deliver::deliver_all(
        &explanations,
        &event,
        &rules,
        &arguments.links(),
        arguments.dry_run,
    )
    .await?;
    let report = Report::new(&event, explanations, deliveries);
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string(&report)?),
        Output::Text => report.print(),
    }
    Ok(if is_rejected || report.has_failed_delivery() {
        FAILURE
    } else {
        SUCCESS
    })
}

fn read_event(arguments: &TestArguments) -> anyhow::Result<Event> {
    let mut bytes = Vec::new();
    if arguments.event == Path::new("-") {
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("cannot read the event from standard input")?;
    } else {
        bytes = std::fs::read(&arguments.event)
            .with_context(|| format!("cannot read the event from {}", arguments.event.display()))?;
    }
    let labels = arguments.labels.as_deref().map(labels).transpose()?;
    tidings_ingest::parse_event(&bytes, &arguments.cluster, jiff::Timestamp::now(), labels)
        .context("the event is invalid")
}

fn labels(text: &str) -> anyhow::Result<ObjectLabels> {
    if text == "none" {
        return Ok(ObjectLabels {
            state: object_labels::State::Absent.into(),
            ..ObjectLabels::default()
        });
    }
    let pair = |pair: &str| {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("--labels: {pair:?}: expected key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let labels = text
        .split(',')
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect::<anyhow::Result<_>>()?;
    Ok(ObjectLabels {
        state: object_labels::State::Known.into(),
        labels,
    })
}
