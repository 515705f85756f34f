//! Reports that this process runs, for `tidings status`. Nothing else depends on the reports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::bus::edge::EdgeState;
use tidings_core::bus::heartbeats::REPORT_EVERY;
use tidings_core::bus::{Bus, credentials};
use tidings_core::model::text::cut_bytes;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::{Role, Settings};
use tidings_core::runtime::health::Health;
use tidings_core::runtime::kubernetes::lease;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::Heartbeat;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::role::Context;

/// How often the readiness is looked at. A change is reported at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest pause after reports that were not stored, for example because this user may not
/// write them: the client logs each refusal.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a stopping process tries to remove its report.
const REMOVE_WITHIN: Duration = Duration::from_secs(2);
/// The most bytes of the reason of a process that is not ready.
const MOST_OF_A_REASON: usize = 500;

/// Reports until the process stops, then removes the report.
pub fn start(context: &Context, bus: &Bus) {
    let reporter = Reporter::new(context, bus, bus, None);
    let stop = context.stop.pulling.clone();
    context.tasks.spawn(async move {
        let reporter = reporter.report_until(stop).await;
        let _ = timeout(REMOVE_WITHIN, reporter.remove()).await;
    });
}

/// Reports to the hub what an edge stores on its own server, until the process has ended its work.
/// Returns what to report last.
pub fn start_edge(context: &Context, hub: &Bus, edge: &Bus, state: &Arc<EdgeState>) -> LastReport {
    let reporter = Reporter::new(context, hub, edge, Some(state.clone()));
    let stop = context.stop.holding.clone();
    tokio::spawn(reporter.clone().report_until(stop));
    LastReport(reporter)
}

/// The report of an edge that has stopped storing events.
pub struct LastReport(Reporter);

impl LastReport {
    /// Removes the report if the hub has all events. An edge that stops with events is silent then,
    /// not gone.
    pub async fn send(&self) {
        let Self(reporter) = self;
        let mut reporter = reporter.clone();
        reporter.look();
        let Some((state, backlog)) = reporter.edge.clone().zip(reporter.heartbeat.edge.as_mut())
        else {
            return;
        };
        let waiting = reporter.stores.waiting_for_hub(&state).await;
        // Without an answer some may wait.
        backlog.waiting = waiting.unwrap_or_else(|_| backlog.waiting.max(1));
        let has_all = backlog.waiting == 0;
        let _ = match has_all {
            true => timeout(REMOVE_WITHIN, reporter.remove()).await.is_ok(),
            false => timeout(REMOVE_WITHIN, reporter.report()).await.is_ok(),
        };
    }
}

#[derive(Clone)]
struct Reporter {
    bus: Bus,
    /// Where the process stores events.
    stores: Bus,
    edge: Option<Arc<EdgeState>>,
    health: Health,
    heartbeat: Heartbeat,
    /// The credentials file, which may be replaced while the process runs.
    credentials: Option<PathBuf>,
    metrics: Metrics,
    has_ingest: bool,
}

impl Reporter {
    fn new(context: &Context, bus: &Bus, stores: &Bus, edge: Option<Arc<EdgeState>>) -> Self {
        let mut heartbeat = described(context.role, &context.settings, bus.clock().now());
        // After a restart the storage is the same, and so is the report.
        if let Some(storage) = edge.as_ref().and_then(|state| state.storage()) {
            storage.clone_into(&mut heartbeat.process);
        }
        Self {
            bus: bus.clone(),
            stores: stores.clone(),
            edge,
            health: context.health.clone(),
            heartbeat,
            credentials: context.settings.nats.credentials.clone(),
            metrics: context.metrics.clone(),
            has_ingest: matches!(context.role, Role::Up | Role::Ingest),
        }
    }

    async fn report_until(mut self, stop: CancellationToken) -> Self {
        let (mut due, mut pause) = (Instant::now(), REPORT_EVERY);
        while !stop.is_cancelled() {
            let is_changed = self.look();
            // Without a connection there is nothing to try.
            if (is_changed || due <= Instant::now()) && self.bus.is_connected() {
                self.read_expiry();
                self.heartbeat.certificate_expires_at = self.certificate_expiry().map(to_proto);
                let reported = stop.run_until_cancelled(self.report()).await;
                pause = match reported {
                    Some(false) => (pause * 2).min(LONGEST_PAUSE),
                    _ => REPORT_EVERY,
                };
                due = Instant::now() + pause;
            }
            stop.run_until_cancelled(sleep(LOOK_EVERY)).await;
        }
        self
    }

    async fn remove(&self) {
        // The report then counts as alive for 20 s.
        let _ = self.bus.remove_heartbeat(&self.heartbeat).await;
    }

    /// Notes when the credentials expire that the next connection would use.
    fn read_expiry(&mut self) {
        let expiry = self.credentials.as_deref().and_then(credentials::expiry);
        self.heartbeat.credentials_expire_at = expiry.map(to_proto);
        let metric = &self.metrics.nats_credentials_expire_timestamp_seconds;
        metric.set(expiry.map_or(0, Timestamp::as_second));
    }

    /// When the certificate of the event endpoint expires that is in use.
    fn certificate_expiry(&self) -> Option<Timestamp> {
        let metric = &self.metrics.ingest_tls_certificate_expire_timestamp_seconds;
        let expires = Some(metric.get()).filter(|seconds| *seconds > 0)?;
        Timestamp::from_second(expires).ok()
    }

    /// Updates what the next report says. Returns whether the readiness changed.
    fn look(&mut self) -> bool {
        let (failures, warnings) = (self.health.failures(), self.health.warnings());
        let reasons: Vec<String> = failures
            .iter()
            .chain(&warnings)
            .map(|(part, trouble)| format!("{part}: {trouble}"))
            .collect();
        let was_ready = std::mem::replace(&mut self.heartbeat.ready, failures.is_empty());
        self.heartbeat.reason = cut_bytes(&reasons.join("; "), MOST_OF_A_REASON);
        if self.has_ingest {
            let stored = self.stores.stored_events();
            self.heartbeat.events = stored.count();
            self.heartbeat.last_event_at = stored.last_at().map(to_proto);
            let second = stored.last_at().map_or(0, Timestamp::as_second);
            self.metrics
                .note_last_event(&self.heartbeat.cluster, second);
        }
        self.heartbeat.edge = self.edge.as_ref().map(|edge| edge.backlog());
        self.heartbeat.at = Some(to_proto(self.bus.clock().now()));
        was_ready != self.heartbeat.ready
    }

    /// Returns whether the report was stored.
    async fn report(&self) -> bool {
        let reported = self.bus.report_heartbeat(&self.heartbeat).await;
        if let Err(error) = &reported {
            tracing::debug!(
                code = codes::HEARTBEAT_NOT_WRITTEN,
                %error,
                "heartbeat not written, retrying"
            );
        }
        reported.is_ok()
    }
}

/// What does not change while the process runs.
fn described(role: Role, settings: &Settings, now: Timestamp) -> Heartbeat {
    let process = lease::identity();
    let host = process.rsplit_once('_').map_or("", |(host, _)| host);
    let (name, cluster, pools) = match role {
        Role::Up => ("up", settings.cluster.as_str(), &settings.worker.pools[..]),
        Role::Ingest => ("ingest", settings.cluster.as_str(), &[][..]),
        Role::Router => ("router", "", &[][..]),
        Role::Bridge => ("bridge", "", &[][..]),
        Role::Worker => ("worker", "", &settings.worker.pools[..]),
    };
    Heartbeat {
        role: name.to_owned(),
        cluster: cluster.to_owned(),
        host: host.to_owned(),
        process,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: Some(to_proto(now)),
        pool: pools.join(","),
        shadow: settings.shadow && role.reads_rules(),
        ..Heartbeat::default()
    }
}
