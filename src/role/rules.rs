//! Reads the rules for router and worker, and reports whether they can be read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tidings_core::bus::Bus;
use tidings_core::bus::names::{NameAnswer, RuleName};
use tidings_core::runtime::config::{RulesFrom, Settings};
use tidings_core::runtime::health::Check;
use tidings_core::runtime::kubernetes;
use tidings_core::runtime::metrics::Metrics;
use tidings_rules::cluster::{self, Catalog, Cluster, WatchScope};
use tidings_rules::folder::{self, Folder};
use tidings_rules::options::MOST_PATTERN_BYTES;
use tidings_rules::{LiveRules, Options, Rules};
use tidings_workers::notifier::kinds;
use tidings_workers::rule_checks::RuleChecks;
use tokio::sync::watch;

use crate::role::{Context, worker};

/// The rules of a process.
pub struct ActiveRules {
    /// The current snapshot, replaced when the rules change.
    pub live: Arc<LiveRules>,
    /// The cluster that the rules come from; `None` for a folder.
    pub cluster: Option<RulesCluster>,
}

/// The cluster that rules come from.
pub struct RulesCluster {
    /// A client of its API server.
    pub client: kube::Client,
    /// The observed state of Alerts and Providers, besides their spec.
    pub catalog: Arc<Catalog>,
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
        self.changes.changed().await?;
        Ok(self.rules)
    }
}

/// Starts to read rules. Retries if the API server does not answer.
///
/// # Errors
/// The folder cannot be read, or no cluster is configured.
pub async fn start(context: &Context, is_router: bool) -> anyhow::Result<StartedRules> {
    let live = Arc::new(LiveRules::default());
    let changes = live.changes();
    let (bus, connected) = watch::channel(None);
    let cluster = match source(&context.settings)? {
        RulesFrom::Dir(dir) => {
            follow_folder(context, dir, live.clone())?;
            None
        }
        RulesFrom::Cluster => {
            Some(follow_cluster(context, is_router, live.clone(), &connected).await?)
        }
    };
    let check = context.health.optional_check("rules");
    tokio::spawn(report(live.clone(), check, context.metrics.clone()));
    if is_router {
        let check = context.health.optional_check("extensions");
        tokio::spawn(report_lost(live.clone(), check, context.metrics.clone()));
    }
    Ok(StartedRules {
        rules: ActiveRules { live, cluster },
        changes,
        bus,
    })
}

/// Where the settings read rules from.
///
/// # Errors
/// No source is set.
pub fn source(settings: &Settings) -> anyhow::Result<&RulesFrom> {
    settings.rules.from.as_ref().context(
        "no rules: pass --rules DIR for a folder of Alerts and Providers, or --rules cluster",
    )
}

/// Checks that a source of rules is set, and that a folder can be read. Roles call this before they
/// start anything.
///
/// # Errors
/// No source is set, or the folder cannot be read.
pub fn check_source(settings: &Settings) -> anyhow::Result<()> {
    let RulesFrom::Dir(dir) = source(settings)? else {
        return Ok(());
    };
    std::fs::read_dir(dir).map(drop).with_context(|| {
        format!(
            "cannot read the rules folder {}: pass another with --rules",
            dir.display()
        )
    })
}

fn follow_folder(context: &Context, dir: &Path, live: Arc<LiveRules>) -> anyhow::Result<()> {
    check_source(&context.settings)?;
    let checks = Arc::new(RuleChecks::new(worker::http_clients(context)?));
    let folder = Folder::new(dir, kinds(), options_of(context)).with_checks(checks);
    tokio::spawn(folder::follow(live, folder, context.stop.holding.clone()));
    Ok(())
}

async fn follow_cluster(
    context: &Context,
    is_router: bool,
    live: Arc<LiveRules>,
    bus: &watch::Receiver<Option<Bus>>,
) -> anyhow::Result<RulesCluster> {
    let settings = &context.settings;
    let client = kubernetes::connect(settings.kubernetes.kubeconfig.as_deref()).await?;
    let catalog = Arc::new(Catalog::default());
    let cluster = Cluster {
        remove_finalizers: is_router && settings.router.release_finalizers,
        extensions: is_router.then(|| bus.clone()),
        options: options_of(context),
        ..cluster(settings, client.clone(), catalog.clone())
    };
    tokio::spawn(cluster::follow(cluster, live, context.stop.holding.clone()));
    Ok(RulesCluster { client, catalog })
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
    }
}

/// The options for all rules of this process.
fn options_of(context: &Context) -> Options {
    let share = usize::try_from(context.memory.patterns).unwrap_or(usize::MAX);
    Options {
        pattern_bytes: share.min(MOST_PATTERN_BYTES),
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
fn trouble(live: &LiveRules, problem: Option<&str>) -> Option<String> {
    let long = live.reloads_for().filter(|time| *time > LONG_RELOAD);
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
async fn report(live: Arc<LiveRules>, check: Check, metrics: Metrics) {
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
            if let Some(trouble) = trouble(&live, problem.as_deref()) {
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
