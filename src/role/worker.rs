//! `tidings worker`: makes deliveries.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tidings_core::bus::Bus;
use tidings_core::bus::crash_marks::CrashMarks;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::process_leases::ProcessLeases;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::runtime::config::Role;
use tidings_workers::http::HttpClients;
use tidings_workers::http::address_rules::AddressRules;
use tidings_workers::message::render::Renderer;
use tidings_workers::newest_wins::NewestWins;
use tidings_workers::throttle::Throttle;
use tidings_workers::worker::Worker;
use tidings_workers::worker::crash_guard::CrashGuard;

use crate::flags::{
    AsFlags, CommonFlags, KubernetesFlags, RulesFlags, ShadowFlags, WorkerFlags, settings,
};
use crate::process::{Process, start_log};
use crate::role::rules::ActiveRules;
use crate::role::{Context, bus, clusters, rules, shadow};

/// How long a worker waits for the clusters of the fleet before it starts.
const CLUSTERS_WAIT: Duration = Duration::from_secs(5);

/// Arguments of `tidings worker`.
#[derive(Args, Debug)]
pub struct WorkerArguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    worker: WorkerFlags,
    #[command(flatten)]
    shadow: ShadowFlags,
}

/// Runs a worker until it is stopped.
///
/// # Errors
/// The settings, a port, NATS or the rules cannot be used.
pub async fn run(arguments: WorkerArguments) -> anyhow::Result<()> {
    let flags = [
        arguments.kubernetes.flags(),
        arguments.rules.flags(),
        arguments.worker.flags(),
        arguments.shadow.flags(),
    ]
    .concat();
    let settings = settings(&arguments.common, flags)?;
    rules::check_source(&settings)?;
    bus::check_url(&settings)?;
    start_log(&settings)?;
    Process::start(settings, Role::Worker)
        .await?
        .run(async |context: &Context| {
            let rules = rules::start(context, false).await?;
            let bus = bus::connect(context, StreamPolicy::Verify).await?;
            let rules = rules.loaded(&bus).await?;
            rules::answer_names(context, &bus, &rules).await?;
            let clusters = clusters::start(context, &bus);
            start(context, &bus, &rules, clusters, http_clients(context)?).await
        })
        .await
}

/// Starts to pull and make deliveries. In shadow mode nothing is pulled.
///
/// # Errors
/// The links in the settings or a bucket cannot be used.
pub async fn start(
    context: &Context,
    bus: &Bus,
    rules: &ActiveRules,
    clusters: Arc<LiveClusters>,
    http_clients: HttpClients,
) -> anyhow::Result<()> {
    let settings = &context.settings;
    if settings.shadow {
        shadow::warn("worker");
        return Ok(());
    }
    // Without them, messages lack the labels and dashboards of clusters, and nothing else.
    clusters.wait_until_loaded(CLUSTERS_WAIT).await;
    let renderer = Renderer::new(&settings.links).map_err(anyhow::Error::msg)?;
    let renderer = renderer.with_clusters(clusters);
    let crash_marks = CrashMarks::open(bus)
        .await
        .context("cannot open the bucket suspects")?;
    let leases = ProcessLeases::open(bus)
        .await
        .context("cannot open the bucket suspects")?;
    let newest_wins = NewestWins::open(bus, &leases)
        .await
        .context("cannot open the bucket latest")?;
    let throttle = Throttle::open(bus, &leases, context.metrics.clone())
        .await
        .context("cannot open the bucket limits")?;
    let worker = Worker::new(
        bus.clone(),
        rules.live.clone(),
        http_clients,
        newest_wins,
        CrashGuard::new(crash_marks),
        throttle,
        context.metrics.clone(),
        renderer,
        context.memory,
    );
    context.tasks.spawn(worker.run(
        &settings.worker.pools,
        settings.worker.concurrency,
        &context.health,
        context.stop.clone(),
    ));
    Ok(())
}

/// The HTTP clients for calls to providers.
///
/// # Errors
/// The system's certificates cannot be read.
pub fn http_clients(context: &Context) -> anyhow::Result<HttpClients> {
    let rules = AddressRules::new(context.settings.worker.addresses.clone());
    let rules = match context.own_receiver {
        Some(receiver) => rules.with_own_receiver(receiver),
        None => rules,
    };
    HttpClients::with_rules(rules).context("cannot read the system's CA certificates")
}
