//! A process of one role or of all: starts what it is made of, and ends it in order.

use std::net::SocketAddr;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use anyhow::Context;
use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect_patiently;
use tidings_core::bus::crash_marks::CrashMarks;
use tidings_core::bus::pull::Stop;
use tidings_core::bus::setup::{SetupError, StreamPolicy};
use tidings_core::bus::streams::Sizing;
use tidings_core::bus::watch::Watch;
use tidings_core::runtime::admin;
use tidings_core::runtime::config::{Role, Settings};
use tidings_core::runtime::health::{Check, Health};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::telemetry;
use tidings_router::Router;
use tidings_workers::http::HttpClients;
use tidings_workers::message::render::Renderer;
use tidings_workers::newest_wins::NewestWins;
use tidings_workers::throttle::Throttle;
use tidings_workers::worker::Worker;
use tidings_workers::worker::crash_guard::CrashGuard;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::role::ingest;
use crate::role::rules;
use crate::role::status_writer as status;

/// The server is sampled every second; older news of it counts as none.
const BUS_FRESH_FOR: Duration = Duration::from_secs(10);
/// Between tries to see the streams.
const SETUP_PAUSE: Duration = Duration::from_millis(500);
/// What is handed back at the end has this long to get out.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(3);

/// Which roles a process has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// Takes events.
    pub ingest: bool,
    /// Plans deliveries.
    pub router: bool,
    /// Makes deliveries.
    pub worker: bool,
}

impl Parts {
    /// All of them.
    pub const ALL: Self = Self {
        ingest: true,
        router: true,
        worker: true,
    };
}

/// A process that has begun: its log runs, its ports are bound.
pub struct Process {
    settings: Settings,
    role: Role,
    policy: StreamPolicy,
    health: Health,
    /// Succeeds once every part has its own check: without it there would be readiness before
    /// there are parts.
    started: Check,
    metrics: Metrics,
    stop: Stop,
    /// The admin endpoint tells the truth to the very end.
    stop_admin: CancellationToken,
    tasks: TaskTracker,
    events: Option<TcpListener>,
    terminate: (Signal, Signal),
}

impl Process {
    /// Starts the log.
    ///
    /// # Errors
    /// The filter can't be read.
    pub fn start_log(settings: &Settings) -> anyhow::Result<()> {
        telemetry::start(&settings.log.filter, settings.log.format).map_err(anyhow::Error::msg)
    }

    /// Starts the log and binds the ports, so that what is wrong with them shows at once.
    ///
    /// # Errors
    /// The log's filter or a port can't be used.
    pub async fn start(
        settings: Settings,
        role: Role,
        policy: StreamPolicy,
    ) -> anyhow::Result<Self> {
        Self::start_log(&settings)?;
        Self::start_with_log(settings, role, policy).await
    }

    /// The same where the log runs already.
    ///
    /// # Errors
    /// A port can't be used.
    pub async fn start_with_log(
        settings: Settings,
        role: Role,
        policy: StreamPolicy,
    ) -> anyhow::Result<Self> {
        tracing::info!(code = codes::STARTING, settings = %serde_json::to_string(&settings.redacted())?, "starting");
        let terminate = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let stop = Stop {
            pulling: CancellationToken::new(),
            holding: CancellationToken::new(),
        };
        let (health, metrics, stop_admin) = (
            Health::default(),
            Metrics::default(),
            CancellationToken::new(),
        );
        let started = health.check("start", None);
        let tasks = TaskTracker::new();
        let events = match role {
            Role::Up | Role::Ingest => Some(bind("listen", settings.listen).await?),
            Role::Router | Role::Worker => None,
        };
        let admin_listener = bind("admin", settings.admin_for(role)).await?;
        tracing::info!(code = codes::LISTENING, role = "admin", address = %admin_listener.local_addr()?, "listening");
        tasks.spawn(admin::serve(
            admin_listener,
            health.clone(),
            metrics.clone(),
            stop_admin.clone(),
        ));
        Ok(Self {
            settings,
            role,
            policy,
            health,
            started,
            metrics,
            stop,
            stop_admin,
            tasks,
            events,
            terminate,
        })
    }

    /// Cancelled when the process begins to end.
    pub fn ending(&self) -> CancellationToken {
        self.stop.pulling.clone()
    }

    /// Where events are taken.
    pub fn events_address(&self) -> Option<SocketAddr> {
        self.events
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    }

    /// What is to be joined at the end.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Runs until a signal asks it to end, then drains for the grace period, hands back what is
    /// left, and ends.
    ///
    /// # Errors
    /// NATS, its streams or the rules can't be used and waiting does not help.
    pub async fn run(mut self, parts: Parts) -> anyhow::Result<()> {
        let roles = TaskTracker::new();
        let pulling = self.stop.pulling.clone();
        let started = {
            let (terminate, interrupt) = (&mut self.terminate.0, &mut self.terminate.1);
            let start = start_roles(
                &self.settings,
                self.role,
                self.policy,
                &self.health,
                &self.metrics,
                &self.stop,
                &mut self.events,
                &roles,
                parts,
            );
            tokio::select! {
                started = start => started,
                _ = terminate.recv() => { pulling.cancel(); Ok(()) }
                _ = interrupt.recv() => { pulling.cancel(); Ok(()) }
            }
        };
        if started.is_ok() && !pulling.is_cancelled() {
            self.started.succeed();
            tokio::select! {
                _ = self.terminate.0.recv() => {}
                _ = self.terminate.1.recv() => {}
            }
        }
        self.end(&roles).await;
        started
    }

    async fn end(mut self, roles: &TaskTracker) {
        tracing::info!(code = codes::STOPPING, grace = ?self.settings.shutdown_grace, "stopping: work in progress continues, no new work is accepted");
        self.stop.pulling.cancel();
        roles.close();
        let again = async {
            tokio::select! {
                _ = self.terminate.0.recv() => {}
                _ = self.terminate.1.recv() => {}
            }
        };
        tokio::select! {
            () = roles.wait() => {}
            () = tokio::time::sleep(self.settings.shutdown_grace) => tracing::info!(code = codes::GRACE_PERIOD_OVER, "grace period over, returning unfinished messages"),
            () = again => tracing::info!(code = codes::STOP_FORCED, "second signal, returning unfinished messages"),
        }
        self.stop.holding.cancel();
        let _ = tokio::time::timeout(HAND_BACK_WITHIN, roles.wait()).await;
        self.stop_admin.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(HAND_BACK_WITHIN, self.tasks.wait()).await;
        tracing::info!(code = codes::STOPPED, "stopped");
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one caller; the parts of a process while another part of it is borrowed"
)]
async fn start_roles(
    settings: &Settings,
    role: Role,
    policy: StreamPolicy,
    health: &Health,
    metrics: &Metrics,
    stop: &Stop,
    events: &mut Option<TcpListener>,
    roles: &TaskTracker,
    parts: Parts,
) -> anyhow::Result<()> {
    let needs_rules = parts.router || parts.worker;
    let rules = if needs_rules {
        Some(
            rules::start(
                settings,
                parts.router,
                health,
                metrics,
                stop.holding.clone(),
            )
            .await?,
        )
    } else {
        None
    };
    let check = health.check("bus", Some(BUS_FRESH_FOR));
    let name = format!("tidings {role:?}").to_lowercase();
    let bus = connect_patiently(&settings.nats, &name, &check).await?;
    let sizing = set_up(&bus, &settings.sizing(), policy, &check).await?;
    Watch::new(bus.clone(), &sizing, policy, metrics.clone())
        .start(check, stop.holding.clone())
        .await;
    if parts.ingest
        && let Some(listener) = events.take()
    {
        ingest::start(listener, &bus, settings, health, metrics, stop, roles).await?;
    }
    let Some(rules::Source {
        live: rules,
        cluster,
    }) = rules
    else {
        return Ok(());
    };
    let http_clients = HttpClients::new(settings.worker.addresses.clone())
        .context("cannot read the system's certificates")?;
    if parts.router {
        if let Some(origin) = cluster {
            let writer = status::writer(
                settings,
                origin,
                http_clients.clone(),
                bus.clone(),
                rules.clone(),
                metrics.clone(),
            );
            roles.spawn(writer.run(stop.pulling.clone()));
        }
        let router = Router::new(bus.clone(), rules.clone(), metrics.clone());
        roles.spawn(router.run(settings.router.concurrency, health, stop.clone()));
    }
    if parts.worker {
        let newest_wins = NewestWins::open(&bus)
            .await
            .context("cannot open the bucket latest")?;
        let suspects = CrashMarks::open(&bus)
            .await
            .context("cannot open the bucket suspects")?;
        let renderer = Renderer::new(&settings.links).map_err(anyhow::Error::msg)?;
        let throttle = Throttle::open(&bus, metrics.clone())
            .await
            .context("cannot open the bucket limits")?;
        let worker = Worker::new(
            bus,
            rules,
            http_clients,
            newest_wins,
            CrashGuard::new(suspects),
            throttle,
            metrics.clone(),
            renderer,
        );
        let (pools, capacity) = (&settings.worker.pools, settings.worker.concurrency);
        roles.spawn(worker.run(pools, capacity, health, stop.clone()));
    }
    Ok(())
}

/// Router and worker make the streams; ingest waits for them.
async fn set_up(
    bus: &Bus,
    sizing: &Sizing,
    policy: StreamPolicy,
    check: &Check,
) -> anyhow::Result<Sizing> {
    loop {
        match bus.set_up(sizing, policy).await {
            Ok(sizing) => return Ok(sizing),
            Err(error @ SetupError::Differs { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(code = codes::STREAMS_UNAVAILABLE, %error, "streams not available, retrying");
                check.fail(error.to_string());
            }
        }
        tokio::time::sleep(SETUP_PAUSE).await;
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another address with --{key}"))
}
