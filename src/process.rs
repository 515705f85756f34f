//! The lifecycle of a process: log, admin endpoint, signals and shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tidings_core::bus::pull::Stop;
use tidings_core::runtime::admin;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::{Role, Settings};
use tidings_core::runtime::health::{Check, Health};
use tidings_core::runtime::memory::{MemoryLimit, MemoryPlan, least};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::BuildLabels;
use tidings_core::runtime::scaling::Scaling;
use tidings_core::runtime::telemetry::{self, LogFormat};
use tidings_core::runtime::traces;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::role::Context;

/// How long returning unfinished messages may take at shutdown.
const RETURN_TIMEOUT: Duration = Duration::from_secs(3);

/// A process with a running admin endpoint.
pub struct Process {
    context: Context,
    /// Fails until every role has registered its own checks, so that the process is not reported as
    /// ready too early.
    started: Check,
    /// Separate from `Context::stop`, because the admin endpoint also runs during the shutdown.
    stop_admin: CancellationToken,
    admin: TaskTracker,
    signals: Signals,
}

impl Process {
    /// Starts the admin endpoint and listens for signals.
    ///
    /// # Errors
    /// The admin address cannot be used.
    pub async fn start(settings: Settings, role: Role) -> anyhow::Result<Self> {
        tracing::info!(
            code = codes::STARTING,
            settings = %settings.changed(),
            version = env!("SOURCE_VERSION"),
            "starting"
        );
        let limit = MemoryLimit::find(settings.memory.limit);
        let memory = match role == Role::Ingest && settings.ingest.edge {
            true => MemoryPlan::of_edge(limit),
            false => MemoryPlan::new(limit, role),
        };
        tracing::info!(
            code = codes::MEMORY_PLANNED,
            limit = memory.limit.bytes,
            from = memory.limit.from,
            shares = ?memory,
            "memory planned"
        );
        if memory.limit.bytes < least(role) {
            tracing::warn!(
                code = codes::MEMORY_LOW,
                limit = memory.limit.bytes,
                least = least(role),
                from = memory.limit.from,
                "memory limit is low"
            );
        }
        let signals = Signals::listen()?;
        let (health, metrics) = (Health::default(), Metrics::of(role));
        let build = BuildLabels {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SOURCE_COMMIT").to_owned(),
        };
        metrics.build_info.get_or_create(&build).set(1);
        tidings_workers::expression::count_in(&metrics);
        let limit = i64::try_from(memory.limit.bytes).unwrap_or(i64::MAX);
        metrics.memory_limit_bytes.set(limit);
        let started = health.check("start", None);
        let scaling = Scaling::default();
        let (admin, stop_admin) = (TaskTracker::new(), CancellationToken::new());
        let listener = bind("admin", settings.admin_for(role)).await?;
        tracing::info!(
            code = codes::LISTENING,
            role = "admin",
            address = %listener.local_addr()?,
            "listening"
        );
        admin.spawn(admin::serve(
            listener,
            health.clone(),
            metrics.clone(),
            role.routes().then(|| scaling.clone()),
            stop_admin.clone(),
        ));
        if let Some(exporter) = traces::start(&settings.otlp, role, &metrics)? {
            admin.spawn(exporter.run(stop_admin.clone()));
        }
        let context = Context {
            role,
            settings,
            memory,
            health,
            metrics,
            scaling,
            own_receiver: None,
            stop: Stop {
                pulling: CancellationToken::new(),
                holding: CancellationToken::new(),
            },
            tasks: TaskTracker::new(),
        };
        Ok(Self {
            context,
            started,
            stop_admin,
            admin,
            signals,
        })
    }

    /// Whether the log is text for people.
    pub fn logs_text(&self) -> bool {
        self.context.settings.log.format == LogFormat::Text
    }

    /// Lets Providers call this address of the process itself, whatever the address rules say.
    pub fn allow_own_receiver(&mut self, address: SocketAddr) {
        self.context.own_receiver = Some(address);
    }

    /// The tasks of the servers beside the roles, and what stops them: they run until the roles
    /// have ended, and the grace period does not count their connections.
    pub fn servers(&self) -> (&TaskTracker, CancellationToken) {
        (&self.admin, self.stop_admin.clone())
    }

    /// Starts the roles and runs until a signal. Then waits for work in progress, up to the grace
    /// period, returns unfinished messages, and ends.
    ///
    /// # Errors
    /// The roles cannot start.
    pub async fn run(
        mut self,
        start: impl AsyncFnOnce(&Context) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let started = tokio::select! {
            started = start(&self.context) => started.map(|()| true),
            () = self.signals.next() => Ok(false),
        };
        if let Ok(true) = started {
            self.started.succeed();
            self.signals.next().await;
        }
        self.end().await;
        started.map(drop)
    }

    async fn end(mut self) {
        let Context {
            settings,
            stop,
            tasks,
            ..
        } = &self.context;
        tracing::info!(
            code = codes::STOPPING,
            grace = ?settings.shutdown_grace,
            "stopping: work in progress continues, no new work is accepted"
        );
        stop.pulling.cancel();
        tasks.close();
        tokio::select! {
            () = tasks.wait() => {}
            () = tokio::time::sleep(settings.shutdown_grace) => tracing::info!(
                code = codes::GRACE_PERIOD_OVER,
                "grace period over, returning unfinished messages"
            ),
            () = self.signals.next() => tracing::info!(
                code = codes::STOP_FORCED,
                "second signal, returning unfinished messages"
            ),
        }
        stop.holding.cancel();
        let _ = tokio::time::timeout(RETURN_TIMEOUT, tasks.wait()).await;
        self.stop_admin.cancel();
        self.admin.close();
        let _ = tokio::time::timeout(RETURN_TIMEOUT, self.admin.wait()).await;
        tracing::info!(code = codes::STOPPED, "stopped");
    }
}

/// SIGTERM and SIGINT. Both stop the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts the log.
///
/// # Errors
/// The log filter is invalid.
pub fn start_log(settings: &Settings) -> anyhow::Result<()> {
    telemetry::start(&settings.log.filter, settings.log.format).map_err(anyhow::Error::msg)
}

/// Binds a TCP address. `flag` is the name of the flag that sets it.
///
/// # Errors
/// The address cannot be used.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: pass another address with --{flag}"))
}
