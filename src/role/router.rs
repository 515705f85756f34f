//! `tidings router`: matches events against the rules, stores deliveries and writes status.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::postponed::PostponedEvents;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::bus::{Bus, connect};
use tidings_core::runtime::config::{NatsSettings, Role};
use tidings_router::{
    CatchUp, CostlyPatterns, Notices, Router, RouterOptions, StatusContext, StatusWriter,
};
use tidings_workers::http::HttpClients;
use tidings_workers::rule_checks::RuleChecks;

use tokio::time::sleep;
use tracing::Instrument as _;

use crate::flags::{
    AsFlags, CommonFlags, KubernetesFlags, RouterFlags, RulesFlags, ShadowFlags, flag, settings,
};
use crate::process::{Process, start_log};
use crate::role::rules::{ActiveRules, RulesCluster};
use crate::role::{Context, bus, clusters, console, rules, shadow, worker};

/// How often the credentials file is read until it is that of a router of a fleet.
const LOOK_FOR_CREDENTIALS_EVERY: Duration = Duration::from_secs(5);
const NO_CONSUMERS: &str = "cannot open the bucket consumers";

/// Arguments of `tidings router`.
#[derive(Args, Debug)]
pub struct RouterArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    router: RouterFlags,
    #[command(flatten)]
    shadow: ShadowFlags,
    /// Name of the cluster that this router runs in, for --local-cluster-only [default: default]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// Runs a router until it is stopped.
///
/// # Errors
/// The settings, a port, NATS or the rules cannot be used.
pub async fn run(arguments: RouterArguments) -> anyhow::Result<()> {
    let cluster = arguments.cluster.iter();
    let flags = [
        arguments.kubernetes.flags(),
        arguments.rules.flags(),
        arguments.router.flags(),
        arguments.shadow.flags(),
        cluster
            .map(|name| flag("--cluster", "cluster", name))
            .collect(),
    ]
    .concat();
    let settings = settings(&arguments.common, flags)?;
    rules::check_source(&settings)?;
    bus::check_url(&settings)?;
    start_log(&settings)?;
    let listener = console::bind(&settings).await?;
    Process::start(settings, Role::Router)
        .await?
        .run(async move |context: &Context| {
            let rules = rules::start(context, true).await?;
            let bus = bus::connect(context, StreamPolicy::Verify).await?;
            let rules = rules.loaded(&bus).await?;
            rules::answer_names(context, &bus, &rules).await?;
            let clusters = clusters::start(context, &bus);
            let http_clients = worker::http_clients(context)?;
            console::start(context, listener, &bus, &rules, &clusters, &http_clients).await?;
            start(context, &bus, &rules, clusters, &http_clients).await
        })
        .await
}

/// Starts to route events. Also starts to write status to each cluster that rules come from, except
/// in shadow mode, in which nothing in a cluster is changed.
///
/// # Errors
/// A bucket cannot be used, or shadow mode cannot start.
pub async fn start(
    context: &Context,
    bus: &Bus,
    rules: &ActiveRules,
    clusters: Arc<LiveClusters>,
    http_clients: &HttpClients,
) -> anyhow::Result<()> {
    let costly = Arc::new(CostlyPatterns::default());
    let shadow = shadow::of_router(context, bus, http_clients.clone(), clusters.clone()).await?;
    let writes_status = rules.clusters.iter().filter(|_| shadow.is_none());
    for cluster in writes_status {
        let mut writer = status_writer(context, bus, cluster, http_clients.clone());
        writer.context.costly = costly.clone();
        context.tasks.spawn(
            writer
                .run(context.stop.pulling.clone())
                .instrument(cluster.span.clone()),
        );
    }
    if context.settings.nats.credentials.is_some() {
        let (nats, stop) = (context.settings.nats.clone(), context.stop.holding.clone());
        tokio::spawn(async move { stop.run_until_cancelled(answer_guests(nats)).await });
    }
    start_notices(context, bus, rules).await?;
    let members = rules.members();
    let postponed = PostponedEvents::open(bus).await.context(NO_CONSUMERS)?;
    let router = Router::new(
        bus.clone(),
        rules.live.clone(),
        context.metrics.clone(),
        costly,
        clusters,
        RouterOptions {
            concurrency: context.settings.router.concurrency,
            own_cluster: context.settings.cluster.clone(),
            postponed: postponed.clone(),
            shadow,
        },
    );
    // Also without members: events may wait for one that is no source any more.
    let catch_up = CatchUp {
        router: router.clone(),
        postponed,
        members,
    };
    context
        .tasks
        .spawn(catch_up.run(context.stop.pulling.clone()));
    let memory = context.memory.routing;
    context
        .tasks
        .spawn(router.run(memory, &context.health, context.stop.clone()));
    Ok(())
}

/// Starts to report about Tidings itself, if the settings say to whom. Shadow mode sends nothing.
async fn start_notices(context: &Context, bus: &Bus, rules: &ActiveRules) -> anyhow::Result<()> {
    let settings = &context.settings;
    if settings.shadow {
        return Ok(());
    }
    let (metrics, live) = (context.metrics.clone(), rules.live.clone());
    let wanted = (settings.watchdog.clone(), settings.fallback.clone());
    let notices = Notices::open(bus, live, metrics, &settings.cluster, wanted);
    if let Some(notices) = notices.await.context(NO_CONSUMERS)? {
        context
            .tasks
            .spawn(notices.run(context.stop.pulling.clone()));
    }
    Ok(())
}

/// Creates the consumers of members and taps, as soon as the credentials are those of a router of a
/// fleet. `tidings fleet update` may write them while this process runs.
async fn answer_guests(settings: NatsSettings) {
    loop {
        if connect::may_answer_guests(&settings)
            && let Ok(bus) = connect::connect_for_guests(&settings).await
            && let Ok(requests) = bus.guest_requests().await
        {
            bus.answer_guests(requests).await;
        }
        sleep(LOOK_FOR_CREDENTIALS_EVERY).await;
    }
}

fn status_writer(
    context: &Context,
    bus: &Bus,
    cluster: &RulesCluster,
    http_clients: HttpClients,
) -> StatusWriter {
    let client = cluster.client.clone();
    let origin = cluster.source.origin.clone();
    // In a member, the context of its kubeconfig names the namespace of the Lease.
    let namespace = match origin.member() {
        Some(_) => None,
        None => context.settings.kubernetes.namespace.clone(),
    };
    StatusWriter {
        namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
        bus: bus.clone(),
        context: StatusContext {
            client,
            origin,
            rules: cluster.source.live.clone(),
            catalog: cluster.catalog.clone(),
            costly: Arc::default(),
            checks: Arc::new(RuleChecks::new(http_clients)),
            metrics: context.metrics.clone(),
        },
    }
}
