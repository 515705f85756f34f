//! `tidings ingest --edge`: an ingest that stores events on a nats-server of its own and forwards
//! them to the hub.
//!
//! The hub may be unreachable at any time, also at the start: only the own server is needed to
//! accept events. Whatever concerns the hub is a warning of `/readyz`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use tidings_core::bus::Bus;
use tidings_core::bus::connect::{connect_with_retries, member};
use tidings_core::bus::edge::EdgeState;
use tidings_core::bus::edge::forward::Forwarder;
use tidings_core::bus::edge::watch::EdgeWatch;
use tidings_core::bus::member::MemberWatch;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::bus::streams::Sizing;
use tidings_core::bus::watch::Watch;
use tidings_core::bus::write_check::WriteCheck;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::{NatsSettings, Role, Settings, Sources};
use tidings_core::runtime::memory::{MemoryLimit, MemoryPlan};
use tidings_core::runtime::metrics::Metrics;
use tidings_ingest::Quota;
use tokio::time::sleep;

use crate::nats_server::NatsServer;
use crate::process::Process;
use crate::role::bus::{SAMPLE_FRESH_FOR, WRITE_CHECK_FRESH_FOR, retry_setup};
use crate::role::heartbeat::LastReport;
use crate::role::{Context, heartbeat, ingest};

/// The pause before the hub is tried again with settings that are invalid now.
const INVALID_PAUSE: Duration = Duration::from_secs(5);

/// Runs an edge until it is stopped.
///
/// # Errors
/// The settings, the data folder or a port cannot be used, or no nats-server is found.
pub async fn run(settings: Settings, executable: Option<PathBuf>) -> anyhow::Result<()> {
    check_member(&settings)?;
    let listener = ingest::bind(&settings).await?;
    let server = {
        let (data, limit) = (settings.data.clone(), settings.nats.storage_limit);
        let memory = MemoryPlan::of_edge(MemoryLimit::find(settings.memory.limit)).nats_server;
        tokio::task::spawn_blocking(move || {
            NatsServer::start(executable.as_deref(), &data, limit, memory)
        })
        .await??
    };
    let started = Process::start(settings, Role::Ingest).await;
    let last_report = Arc::new(OnceLock::new());
    let result = match started {
        Ok(process) => {
            let roles = async |context: &Context| {
                let endpoint = ingest::serve(context, listener).await?;
                start(context, endpoint, &server, &last_report).await
            };
            process.run(roles).await
        }
        Err(error) => Err(error),
    };
    // Only now no sender's event can be stored any more.
    if let Some(last_report) = last_report.get() {
        last_report.send().await;
    }
    tokio::task::spawn_blocking(move || server.stop()).await?;
    result
}

/// Checks that the credentials file can be read, and is that of the cluster.
fn check_member(settings: &Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    match member(&settings.nats)? {
        Some(member) if member != *cluster => anyhow::bail!(
            "nats.credentials: issued for cluster {member:?}, but cluster is {cluster:?}; pass \
             --cluster {member}"
        ),
        _ => Ok(()),
    }
}

/// Checks that what waits in the folder is of the cluster. The credentials of a new name do not
/// permit events of the former one.
async fn check_renamed(edge: &Bus, state: &EdgeState, settings: &Settings) -> anyhow::Result<()> {
    let cluster = &settings.cluster;
    let others = edge.waiting_of_other_clusters(cluster, state).await;
    let others = others.context("cannot read the events of the own nats-server")?;
    let Some((other, count)) = others.first_key_value() else {
        return Ok(());
    };
    anyhow::bail!(
        "the data folder {} has {count} events of cluster {other:?} that the hub does not have, \
         but cluster is {cluster:?}: start the edge once more with --cluster {other} and its \
         credentials until `tidings status` shows that nothing waits (if they are revoked, add the \
         cluster again, with its labels), or pass another folder with --data",
        settings.data.display()
    )
}

async fn start(
    context: &Context,
    endpoint: ingest::Endpoint,
    server: &NatsServer,
    last_report: &Arc<OnceLock<LastReport>>,
) -> anyhow::Result<()> {
    let (settings, state) = (&context.settings, Arc::new(EdgeState::default()));
    let check = context.health.check("bus", Some(SAMPLE_FRESH_FOR));
    let edge = connect_with_retries(&own_server(server)?, "tidings edge", &check).await?;
    edge.limit_unsent(context.memory.unsent);
    let sizing = Sizing {
        storage_limit: Some(server.storage_limit),
        replicas: 1,
        ..settings.sizing()
    };
    retry_setup(&check, async || edge.set_up_edge(&sizing, &state).await).await?;
    check_renamed(&edge, &state, settings).await?;
    let stop = &context.stop.holding;
    EdgeWatch::new(edge.clone(), state.clone(), context.metrics.clone())
        .start(check, stop.clone())
        .await;
    let storage = context.health.check("storage", Some(WRITE_CHECK_FRESH_FOR));
    WriteCheck::of_edge(edge.clone(), &sizing)
        .start(storage, stop.clone())
        .await;
    tokio::spawn(server.restarter().run(edge.clone(), stop.clone()));
    let quota = Quota::of_edge(edge.clone(), state.quota());
    endpoint.start_storing(context, &edge, quota.clone())?;
    let hub = Hub {
        context: context.clone(),
        edge,
        state,
        quota,
        last_report: last_report.clone(),
    };
    context.tasks.spawn(hub.run());
    Ok(())
}

/// How to connect to the own server.
fn own_server(server: &NatsServer) -> anyhow::Result<NatsSettings> {
    let sources = Sources {
        flags: server.contact.flags("the own nats-server").into(),
        ..Sources::default()
    };
    let settings = Settings::load(&sources).context("the own nats-server")?;
    Ok(settings.nats)
}

/// What an edge does with the hub.
struct Hub {
    context: Context,
    edge: Bus,
    state: Arc<EdgeState>,
    quota: Quota,
    last_report: Arc<OnceLock<LastReport>>,
}

impl Hub {
    /// Forwards events, reports that the process runs, and follows the quota.
    async fn run(self) {
        let stop = self.context.stop.pulling.clone();
        let Some(hub) = stop.run_until_cancelled(self.connect()).await else {
            return;
        };
        let (context, cluster) = (&self.context, &self.context.settings.cluster);
        let last_report = heartbeat::start_edge(context, &hub, &self.edge, &self.state);
        // This is the only place that sets it.
        let _ = self.last_report.set(last_report);
        let holding = &context.stop.holding;
        let quota = self.quota.clone();
        tokio::spawn(quota.follow(hub.clone(), cluster.clone(), holding.clone()));
        self.watch(&hub).await;
        let forwarder = Forwarder {
            edge: self.edge.clone(),
            hub: hub.clone(),
            settings: context.settings.nats.clone(),
            cluster: cluster.clone(),
            state: self.state.clone(),
            metrics: context.metrics.clone(),
            check: context.health.warning_check("hub"),
            memory: usize::try_from(context.memory.forwarding).unwrap_or(usize::MAX),
        };
        let check = context.health.warning_check("publish");
        tokio::join!(
            forwarder.run(stop.clone()),
            hub.watch_permission(cluster, &check, stop, |_| {}),
        );
    }

    async fn connect(&self) -> Bus {
        let check = self.context.health.warning_check("hub");
        loop {
            let settings = &self.context.settings.nats;
            match connect_with_retries(settings, "tidings ingest", &check).await {
                Ok(hub) => return hub,
                Err(error) => {
                    tracing::error!(
                        code = codes::EDGE_CUT_OFF,
                        %error,
                        "cannot connect to the hub, retrying"
                    );
                    check.fail(error.to_string());
                    sleep(INVALID_PAUSE).await;
                }
            }
        }
    }

    /// Follows whether the hub has room. What the process exports is about its own server.
    async fn watch(&self, hub: &Bus) {
        let health = &self.context.health;
        let stop = self.context.stop.holding.clone();
        let check = health.warning_check("hub-events");
        if hub.member().is_some() {
            let storage = health.warning_check("hub-storage");
            let watch = MemberWatch::new(hub.clone(), Metrics::default());
            return watch.start(check, storage, stop).await;
        }
        let sizing = self.context.settings.sizing();
        let (policy, metrics) = (StreamPolicy::Wait, Metrics::default());
        Watch::new(hub.clone(), &sizing, policy, metrics)
            .start(check, stop)
            .await;
    }
}
