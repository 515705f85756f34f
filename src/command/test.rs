//! `tidings test`: decodes one event, applies all rules to it, and prepares each delivery. Sends
//! them only if asked to. It needs no NATS server.

pub mod deliver;
pub mod report;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use tidings_core::bus::clusters::Clusters;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::model::text::visible;
use tidings_core::runtime::config::{Flag, Settings};
use tidings_core::runtime::kubernetes;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::Cluster;
use tidings_core::{Event, ObjectLabels, object_labels};
use tidings_ingest::kubernetes::Objects;
use tidings_router::{PlanContext, Verdict, explain};
use tidings_workers::http::HttpClients;

use super::Output;
use super::rules::{self, LoadedRules};
use super::tool::print_line;
use crate::flags::{AsFlags, FileFlag, KubernetesFlags, RulesFlags, flag, settings};
use deliver::Tester;
use report::Report;

/// Exit status: no rule is rejected and no delivery failed.
const SUCCESS: u8 = 0;
/// Exit status: a rule is rejected, or a delivery failed or is invalid.
const FAILURE: u8 = 1;

/// Arguments of `tidings test`: those of `tidings up` that change which deliveries an event gets,
/// and how they look.
#[derive(Args, Debug)]
pub struct TestArguments {
    /// File with an event as JSON, as Flux controllers post it, or - for standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Send the messages; without this flag the requests are printed, and secrets are redacted
    #[arg(long)]
    send: bool,
    /// Print the requests instead of sending them; this is the default
    #[arg(long, conflicts_with = "send")]
    dry_run: bool,
    /// Labels of the involved object, as KEY=VALUE,KEY=VALUE, or `none` if the object does not
    /// exist [default: read with --rules cluster, else unknown]
    #[arg(long, value_name = "LABELS")]
    labels: Option<String>,
    /// Kind of objects whose labels are read for matchLabels, such as Deployment.apps; repeatable
    /// [default: Flux's kinds]
    #[arg(long, value_name = "KIND")]
    label_kinds: Vec<String>,
    /// Name of the cluster that the event comes from [default: default]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Label of that cluster, as KEY=VALUE, for clusterSelector; repeatable [default: none]
    #[arg(long, value_name = "KEY=VALUE")]
    cluster_label: Vec<String>,
    #[command(flatten)]
    rules: RulesFlags,
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
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    common: FileFlag,
    /// Output format
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl TestArguments {
    fn settings(&self) -> anyhow::Result<Settings> {
        let given = [
            ("--commit-link", "links.commit", &self.commit_link),
            ("--dashboard-link", "links.dashboard", &self.dashboard_link),
            (
                "--commit-status-link",
                "links.commit_status",
                &self.commit_status_link,
            ),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, key, value)| Some(flag(name, key, value.as_ref()?)));
        let links = self.links.then(|| flag("--links", "links.enabled", "true"));
        let kinds = self.label_kinds.iter();
        let kinds = kinds.map(|kind| flag("--label-kinds", "ingest.label_kinds", kind));
        let mut flags: Vec<Flag> = given.chain(links).chain(kinds).collect();
        flags.extend(self.rules.flags());
        flags.extend(self.kubernetes.flags());
        settings(&self.common, flags)
    }
}

/// Runs `tidings test` and returns its exit status.
///
/// # Errors
/// The settings, the event or the rules cannot be read. The exit status is then 2.
pub async fn run(arguments: TestArguments) -> anyhow::Result<u8> {
    let settings = arguments.settings()?;
    let cluster = arguments.cluster.as_ref().unwrap_or(&settings.cluster);
    anyhow::ensure!(!cluster.trim().is_empty(), "--cluster: must not be empty");
    let clusters = clusters(cluster, &arguments.cluster_label)?;
    let mut event = read_event(&arguments, cluster)?;
    let loaded = rules::load(&settings).await?;
    let selects = loaded
        .rules
        .alerts()
        .any(|alert| alert.cluster_selector.is_some());
    if selects && arguments.cluster_label.is_empty() {
        eprintln!("the cluster has no labels here: pass --cluster-label KEY=VALUE for each");
    }
    let problems = loaded.problems();
    let client = loaded.client(cluster);
    let LoadedRules { rules, .. } = loaded;
    if arguments.labels.is_none() {
        event.labels = read_labels(&settings, client, &event).await?;
    }
    for problem in &problems {
        eprintln!("{}", visible(&problem.to_string()));
    }
    let explanations = explain(&rules, &event, &clusters, PlanContext::default());
    // Flux also treats a rejected reference as an error.
    let is_reference_rejected = explanations
        .iter()
        .any(|explanation| explanation.verdict == Verdict::CrossNamespaceRefused);
    let http_clients = HttpClients::new(settings.worker.addresses.clone())
        .context("cannot read the system's CA certificates")?;
    let tester = Tester::new(http_clients, &settings, LiveClusters::fixed(clusters))?;
    let deliveries = tester.deliver_all(&explanations, &event, &rules, arguments.send);
    let deliveries = deliveries.await;
    let report = Report::new(&event, explanations, deliveries, &problems);
    match arguments.output {
        Output::Json => print_line(&serde_json::to_string(&report)?).map(drop)?,
        Output::Text => report.print(arguments.send)?,
    }
    Ok(if is_reference_rejected || report.has_failure() {
        FAILURE
    } else {
        SUCCESS
    })
}

fn read_event(arguments: &TestArguments, cluster: &str) -> anyhow::Result<Event> {
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
    tidings_ingest::parse_event(&bytes, cluster, jiff::Timestamp::now(), labels)
        .context("the event is invalid")
}

/// Reads the labels of the event's object as ingest does. With a folder of rules only if the
/// setting `ingest.labels` is true, so that the command needs no cluster.
async fn read_labels(
    settings: &Settings,
    client: Option<kube::Client>,
    event: &Event,
) -> anyhow::Result<Option<ObjectLabels>> {
    let Some(object) = &event.involved_object else {
        return Ok(None);
    };
    if !settings.ingest.labels.unwrap_or(client.is_some()) {
        return Ok(None);
    }
    let client = match client {
        Some(client) => client,
        None => kubernetes::connect(settings.kubernetes.kubeconfig.as_deref()).await?,
    };
    let kinds = settings.ingest.label_kinds.clone();
    let objects = Objects::new(client, kinds, Metrics::default());
    let lookup = objects.find(object).await;
    Ok(lookup.map(|lookup| lookup.labels()))
}

/// What the hub knows of the event's cluster, if labels are given.
fn clusters(name: &str, labels: &[String]) -> anyhow::Result<Clusters> {
    let pair = |pair: &String| {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("--cluster-label: {pair:?}: expected KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let labels: BTreeMap<_, _> = labels.iter().map(pair).collect::<anyhow::Result<_>>()?;
    let cluster = Cluster {
        name: name.to_owned(),
        labels,
        ..Cluster::default()
    };
    Ok(Clusters::from([(name.to_owned(), cluster)]))
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
