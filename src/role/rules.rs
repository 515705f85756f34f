//! Reads the rules for router and worker, and reports whether they can be read.

mod sources;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidings_core::bus::Bus;
use tidings_core::bus::names::{NameAnswer, RuleName};
use tidings_core::runtime::config::{RulesFrom, Settings};
use tidings_core::runtime::health::Check;
use tidings_core::runtime::metrics::Metrics;
use tidings_rules::cluster::{self, Catalog, Cluster, WatchScope};
use tidings_rules::folder::{self, Folder};
use tidings_rules::options::MOST_PATTERN_BYTES;
use tidings_rules::{LiveRules, Options, Rules, RulesSource};
use tidings_workers::notifier::kinds;
use tidings_workers::rule_checks::RuleChecks;
use tokio::sync::watch;
use tracing::{Instrument as _, Span};

use crate::role::{Context, worker};
pub use sources::{NamedSource, connect, named};

/// The rules of a process.
pub struct ActiveRules {
    /// The current snapshot of all sources, replaced when the rules change.
    pub live: Arc<LiveRules>,
    /// The clusters among the sources.
    pub clusters: Vec<RulesCluster>,
}

impl ActiveRules {
    /// The members of the fleet among the sources.
    pub fn members(&self) -> Vec<Arc<str>> {
        let clusters = self.clusters.iter();
        let members = clusters.filter_map(|cluster| cluster.source.origin.member());
        members.cloned().collect()
    }
}

/// A cluster that rules come from.
pub struct RulesCluster {
    /// Its rules, with its own namespaces.
    pub source: RulesSource,
    /// A client of its API server.
    pub client: kube::Client,
    /// The observed state of Alerts and Providers, besides their spec.
    pub catalog: Arc<Catalog>,
    /// Names the source in the log, if there are several.
    pub span: Span,
}

/// Rules that are being read.
pub struct StartedRules {
    rules: ActiveRules,
    changes: watch::Receiver<u64>,
    bus: watch::Sender<Option<Bus>>,
}

impl StartedRules {
    /// Waits for the first complete snapshot. A router also reads the bucket of extensions.
    ///
    /// # Errors
    /// The reader has stopped.
    pub async fn loaded(mut self, bus: &Bus) -> anyhow::Result<ActiveRules> {
        self.bus.send_replace(Some(bus.clone()));
        // The first snapshot may be there already.
        self.changes.wait_for(|snapshots| *snapshots > 0).await?;
        Ok(self.rules)
    }
}

/// Starts to read rules. Retries if an API server does not answer.
///
/// # Errors
/// A folder or a kubeconfig cannot be read, or no cluster is configured.
pub async fn start(context: &Context, is_router: bool) -> anyhow::Result<StartedRules> {
    check_source(&context.settings)?;
    let (bus, connected) = watch::channel(None);
    let (mut started, mut clusters) = (Vec::new(), Vec::new());
    for named in sources::named(sources(&context.settings)?) {
        let source = RulesSource {
            origin: named.origin.clone(),
            live: Arc::default(),
        };
        match named.from {
            RulesFrom::Dir(dir) => follow_folder(context, &named, dir, source.live.clone())?,
            RulesFrom::Cluster | RulesFrom::Member(_) => {
                let extensions = is_router.then(|| connected.clone());
                clusters.push(follow_cluster(context, &named, &source, extensions).await?);
            }
        }
        let report = sources::report(source.live.clone(), named.label, context.metrics.clone());
        tokio::spawn(report);
        started.push(source);
    }
    let reading = started.iter().map(|source| source.live.clone()).collect();
    let live = sources::merged(started, &context.stop.holding);
    let changes = live.changes();
    let check = context.health.optional_check("rules");
    tokio::spawn(report(
        live.clone(),
        reading,
        check,
        context.metrics.clone(),
    ));
    if is_router {
        let check = context.health.optional_check("extensions");
        tokio::spawn(report_lost(live.clone(), check, context.metrics.clone()));
    }
    Ok(StartedRules {
        rules: ActiveRules { live, clusters },
        changes,
        bus,
    })
}

/// Where the settings read rules from.
///
/// # Errors
/// No source is set.
pub fn sources(settings: &Settings) -> anyhow::Result<&[RulesFrom]> {
    let sources = &settings.rules.sources[..];
    ensure!(
        !sources.is_empty(),
        "no rules: pass --rules DIR for a folder of Alerts and Providers, or --rules cluster"
    );
    Ok(sources)
}

/// Checks that a source of rules is set, and that folders can be read. Roles call this before they
/// start anything.
///
/// # Errors
/// No source is set, or a folder cannot be read.
pub fn check_source(settings: &Settings) -> anyhow::Result<()> {
    for source in sources(settings)? {
        let RulesFrom::Dir(dir) = source else {
            continue;
        };
        std::fs::read_dir(dir).map(drop).with_context(|| {
            format!(
                "cannot read the rules folder {}: pass another with --rules",
                dir.display()
            )
        })?;
    }
    Ok(())
}

fn follow_folder(
    context: &Context,
    named: &NamedSource<'_>,
    dir: &Path,
    live: Arc<LiveRules>,
) -> anyhow::Result<()> {
    let checks = Arc::new(RuleChecks::new(worker::http_clients(context)?));
    let folder = Folder::new(dir, kinds(), options_of(context)).with_checks(checks);
    let follow = folder::follow(live, folder, context.stop.holding.clone());
    tokio::spawn(follow.instrument(named.span.clone()));
    Ok(())
}

async fn follow_cluster(
    context: &Context,
    named: &NamedSource<'_>,
    source: &RulesSource,
    extensions: Option<watch::Receiver<Option<Bus>>>,
) -> anyhow::Result<RulesCluster> {
    let settings = &context.settings;
    let client = sources::connect(settings, named.from).await?;
    let catalog = Arc::new(Catalog::default());
    let cluster = Cluster {
        remove_finalizers: extensions.is_some()
            && settings.router.release_finalizers
            && !settings.shadow,
        extensions,
        options: options_of(context),
        member: source.origin.member().cloned(),
        ..cluster(settings, client.clone(), catalog.clone())
    };
    let follow = cluster::follow(cluster, source.live.clone(), context.stop.holding.clone());
    tokio::spawn(follow.instrument(named.span.clone()));
    Ok(RulesCluster {
        source: source.clone(),
        client,
        catalog,
        span: named.span.clone(),
    })
}

/// The rules of a cluster as the settings select them. Nothing in the cluster is changed.
pub fn cluster(settings: &Settings, client: kube::Client, catalog: Arc<Catalog>) -> Cluster {
    Cluster {
        client,
        scope: WatchScope {
            namespaces: settings.rules.namespaces.clone(),
            label_selector: settings.rules.label_selector.clone(),
        },
        kinds: kinds(),
        options: options(settings),
        remove_finalizers: false,
        extensions: None,
        catalog,
        member: None,
    }
}

/// The options for the rules of each source of this process. The sources share the memory for
/// patterns equally.
fn options_of(context: &Context) -> Options {
    let sources = context.settings.rules.sources.len().max(1);
    let share = usize::try_from(context.memory.patterns).unwrap_or(usize::MAX) / sources;
    Options {
        pattern_bytes: share.min(MOST_PATTERN_BYTES / sources),
        ..options(&context.settings)
    }
}

/// The options for all rules, without a memory limit of this process.
pub fn options(settings: &Settings) -> Options {
    let rules = &settings.rules;
    Options {
        no_cross_namespace_refs: rules.no_cross_namespace_refs,
        namespace_wildcard_for: rules.namespace_wildcard_for.clone(),
        local_cluster: rules.local_cluster_only.then(|| settings.cluster.clone()),
        ..Options::default()
    }
}

/// Answers the questions of tools about names of Alerts and Providers. Without the permission to
/// subscribe, tools only know names that the streams hold.
///
/// # Errors
/// There is no connection.
pub async fn answer_names(context: &Context, bus: &Bus, rules: &ActiveRules) -> anyhow::Result<()> {
    if !bus.may_publish("_INBOX_tools.answer") {
        return Ok(());
    }
    let (bus, live) = (bus.clone(), rules.live.clone());
    let questions = bus.name_questions().await?;
    let stop = context.stop.holding.clone();
    tokio::spawn(async move {
        let answer = |name: &RuleName| answer(&live.current(), name);
        stop.run_until_cancelled(bus.answer_names(questions, answer))
            .await;
    });
    Ok(())
}

fn answer(rules: &Rules, asked: &RuleName) -> NameAnswer {
    let entries = rules.entries().iter().map(|entry| &entry.identity);
    let of_kind = entries.filter(|identity| identity.kind == asked.kind.as_str());
    asked.answer(of_kind.map(|identity| (identity.namespace.as_str(), identity.name.as_str())))
}

/// A reload that takes longer is reported.
const LONG_RELOAD: Duration = Duration::from_secs(10);
/// How often it is checked how long a reload takes.
const RELOAD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why rules are not up to date.
fn trouble(live: &LiveRules, sources: &[Arc<LiveRules>], problem: Option<&str>) -> Option<String> {
    let reloads = sources.iter().filter_map(|source| source.reloads_for());
    let long = reloads.max().filter(|time| *time > LONG_RELOAD);
    let reload = long.map(|time| {
        format!(
            "reading and compiling the rules has taken {} s so far, and the last rules stay in \
             effect; if it goes on, reduce the number and size of rules and their patterns",
            time.as_secs()
        )
    });
    let not_loaded = || (!live.loaded()).then(|| "rules not loaded yet".to_owned());
    reload.or(problem.map(str::to_owned)).or_else(not_loaded)
}

/// Updates readiness and metrics whenever the rules or the state of their source change.
async fn report(
    live: Arc<LiveRules>,
    sources: Vec<Arc<LiveRules>>,
    check: Check,
    metrics: Metrics,
) {
    let (mut changes, mut problems) = (live.changes(), live.source_problems());
    let mut counted = 0;
    loop {
        let snapshots = *changes.borrow_and_update();
        metrics.rules_snapshots_total.inc_by(snapshots - counted);
        counted = snapshots;
        let problem = problems
            .borrow_and_update()
            .as_ref()
            .map(ToString::to_string);
        metrics
            .rules_source_connected
            .set(i64::from(live.loaded() && problem.is_none()));
        metrics
            .rules_problems
            .set(i64::try_from(live.problems().len()).unwrap_or(i64::MAX));
        let changed = loop {
            if live.loaded() {
                check.succeed();
            }
            if let Some(trouble) = trouble(&live, &sources, problem.as_deref()) {
                check.fail(trouble);
            }
            tokio::select! {
                changed = changes.changed() => break changed,
                changed = problems.changed() => break changed,
                () = tokio::time::sleep(RELOAD_CHECK_INTERVAL) => {}
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Reports in readiness and metrics which objects lost extensions.
async fn report_lost(live: Arc<LiveRules>, check: Check, metrics: Metrics) {
    let mut changes = live.changes();
    check.succeed();
    loop {
        let rules = live.current();
        let lost = rules.lost();
        let kept = lost.iter().filter(|lost| !lost.restrictions().is_empty());
        let kept = kept.count();
        metrics
            .rules_extensions_lost
            .set(i64::try_from(lost.len()).unwrap_or(i64::MAX));
        metrics
            .rules_restrictions_kept
            .set(i64::try_from(kept).unwrap_or(i64::MAX));
        match lost.first() {
            None => check.succeed(),
            Some(first) => check.fail(format!(
                "{} of Alerts and Providers lost extension fields, because the installed CRDs lack \
                 them; {kept} keep their last known clusters. First: {}, spec.{}. Use annotations",
                lost.len(),
                first.identity,
                first.fields.join(", spec."),
            )),
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
