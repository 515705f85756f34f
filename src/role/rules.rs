//! Where a process has its rules from, and who is told how they are.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tidings_core::runtime::config::{RulesFrom, RulesSettings, Settings};
use tidings_core::runtime::health::{Check, Health};
use tidings_core::runtime::kubernetes;
use tidings_core::runtime::metrics::Metrics;
use tidings_rules::cluster::{self, Catalog, Cluster, WatchScope};
use tidings_rules::folder::{self, Folder};
use tidings_rules::{LiveRules, Options};
use tidings_workers::notifier::kinds;
use tokio_util::sync::CancellationToken;

/// The rules of a process.
pub struct Source {
    /// As they are now.
    pub live: Arc<LiveRules>,
    /// The cluster that they come from, where they do.
    pub cluster: Option<Origin>,
}

/// The cluster that rules come from.
pub struct Origin {
    /// The way to its API server.
    pub client: kube::Client,
    /// What the API server says of Alerts and Providers beside what users wrote.
    pub catalog: Arc<Catalog>,
}

/// Begins to read rules, and waits for the first complete ones.
///
/// # Errors
/// There is no such folder, or no way to the API server is known. That it does not answer is waited
/// for.
pub async fn start(
    settings: &Settings,
    is_router: bool,
    health: &Health,
    metrics: &Metrics,
    stop: CancellationToken,
) -> anyhow::Result<Source> {
    let options = options(&settings.rules);
    let live = Arc::new(LiveRules::default());
    let mut changes = live.changes();
    let from = settings.rules.from.as_ref();
    let cluster = match from.context(
        "no rules: name the folder of Alerts and Providers with --rules DIR, or --rules cluster",
    )? {
        RulesFrom::Dir(dir) => {
            check_folder(dir)?;
            tokio::spawn(folder::follow(
                live.clone(),
                Folder::new(dir, kinds(), options),
                stop,
            ));
            None
        }
        RulesFrom::Cluster => {
            let client = kubernetes::connect(settings.kubernetes.kubeconfig.as_deref()).await?;
            let catalog = Arc::new(Catalog::default());
            let scope = WatchScope {
                namespaces: settings.rules.namespaces.clone(),
                label_selector: settings.rules.label_selector.clone(),
            };
            let remove_finalizers = is_router && settings.router.release_finalizers;
            let cluster = Cluster {
                client: client.clone(),
                scope,
                kinds: kinds(),
                options,
                remove_finalizers,
                catalog: catalog.clone(),
            };
            tokio::spawn(cluster::follow(cluster, live.clone(), stop));
            Some(Origin { client, catalog })
        }
    };
    tokio::spawn(tell(
        live.clone(),
        health.side_check("rules"),
        metrics.clone(),
    ));
    changes.changed().await?;
    Ok(Source { live, cluster })
}

fn options(settings: &RulesSettings) -> Options {
    Options {
        no_cross_namespace_refs: settings.no_cross_namespace_refs,
        namespace_wildcard_for: settings.namespace_wildcard_for.clone(),
    }
}

fn check_folder(dir: &Path) -> anyhow::Result<()> {
    let read = std::fs::read_dir(dir);
    read.map(drop).with_context(|| {
        format!(
            "cannot read the folder of rules {}: name another with --rules",
            dir.display()
        )
    })
}

/// Keeps readiness and metrics as the rules are.
async fn tell(live: Arc<LiveRules>, check: Check, metrics: Metrics) {
    let (mut changes, mut problems) = (live.changes(), live.source_problems());
    let mut counted = 0;
    loop {
        let snapshots = *changes.borrow_and_update();
        metrics.rule_snapshots.inc_by(snapshots - counted);
        counted = snapshots;
        let problem = problems
            .borrow_and_update()
            .as_ref()
            .map(ToString::to_string);
        metrics
            .rules_source_connected
            .set(i64::from(live.loaded() && problem.is_none()));
        metrics
            .rule_problems
            .set(i64::try_from(live.problems().len()).unwrap_or(i64::MAX));
        if live.loaded() {
            check.succeed();
        }
        match problem {
            Some(problem) => check.fail(problem),
            None if live.loaded() => {}
            None => check.fail("they are being read"),
        }
        let told = tokio::select! {
            told = changes.changed() => told,
            told = problems.changed() => told,
        };
        if told.is_err() {
            return;
        }
    }
}
