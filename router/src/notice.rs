//! Notices: Tidings reports about itself, by deliveries of its own.
//!
//! ```text
//!  time ─────────────► watchdog ─┐
//!  DEAD, circuits ───► fallback ─┴► NoticeState (compare-and-set) ─► DELIVERIES
//! ```
//!
//! # Guarantees
//! One of several routers plans each notice, and stores it in the state before it stores the
//! delivery. A router that takes over stores the delivery again, with the same id: nothing is lost,
//! and within the dedupe window of DELIVERIES nothing is repeated. Notices are marked, and no
//! notice reports the end of another one.

mod circuits;
mod deliver;
mod fallback;
mod problem;
mod summary;
mod watchdog;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tidings_core::bus::notices::ReportedNotices;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::notice::{NoticeExclusion, NoticeKind};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::{FallbackSettings, ProviderName, WatchdogSettings};
use tidings_core::runtime::log_pace::LogPace;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::NoticeState;
use tidings_rules::LiveRules;
use tokio_util::sync::CancellationToken;

pub use problem::problems;

/// How often a router looks whether a notice is due: a part of the interval, within bounds.
const PART_OF_INTERVAL: u32 = 8;
const MOST_OFTEN: Duration = Duration::from_millis(250);
const LEAST_OFTEN: Duration = Duration::from_secs(5);

/// The notices of an installation. Every router has them.
pub struct Notices {
    bus: Bus,
    reported: ReportedNotices,
    rules: Arc<LiveRules>,
    metrics: Metrics,
    cluster: String,
    watchdog: WatchdogSettings,
    fallback: FallbackSettings,
}

/// What a router found that is due.
struct Due {
    /// What is stored next, with the notice if there is one.
    state: NoticeState,
    /// Failures of notices, which are only counted.
    excluded: Vec<(NoticeExclusion, u64)>,
}

impl Notices {
    /// The notices that the settings ask for; `None` for none.
    ///
    /// # Errors
    /// The bucket `consumers` does not exist, or the bus is unavailable.
    pub async fn open(
        bus: &Bus,
        rules: Arc<LiveRules>,
        metrics: Metrics,
        cluster: &str,
        settings: (WatchdogSettings, FallbackSettings),
    ) -> Result<Option<Self>, BusError> {
        let (watchdog, fallback) = settings;
        if watchdog.provider.is_none() && fallback.provider.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            bus: bus.clone(),
            reported: ReportedNotices::open(bus).await?,
            rules,
            metrics,
            cluster: cluster.to_owned(),
            watchdog,
            fallback,
        }))
    }

    /// Plans and stores notices until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let kinds = [
            (NoticeKind::Watchdog, &self.watchdog.provider),
            (NoticeKind::Fallback, &self.fallback.provider),
        ];
        let kinds = kinds
            .into_iter()
            .filter_map(|(kind, provider)| Some(self.repeat(kind, provider.as_ref()?, &stop)));
        futures::future::join_all(kinds.collect::<Vec<_>>()).await;
    }

    async fn repeat(&self, kind: NoticeKind, provider: &ProviderName, stop: &CancellationToken) {
        let interval = match kind {
            NoticeKind::Watchdog => self.watchdog.interval,
            NoticeKind::Fallback => self.fallback.interval,
        };
        let pause = (interval / PART_OF_INTERVAL).clamp(MOST_OFTEN, LEAST_OFTEN);
        let (mut pace, mut problem) = (LogPace::default(), None);
        while !stop.is_cancelled() {
            if self.rules.loaded() {
                self.note_problem(kind, provider, &mut problem);
                let step = stop.run_until_cancelled(self.step(kind, provider, problem.is_none()));
                match step.await {
                    Some(Err(error)) if pace.is_due(&error.to_string(), Instant::now()) => {
                        tracing::warn!(
                            code = codes::NOTICE_NOT_STORED,
                            notice = kind.as_str(),
                            %error,
                            "notice not stored, retrying"
                        );
                    }
                    Some(Ok(())) => drop(pace.reset()),
                    _ => {}
                }
            }
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// Logs why the Provider cannot be used, once.
    fn note_problem(&self, kind: NoticeKind, provider: &ProviderName, known: &mut Option<String>) {
        let problem = problem::problem(&self.rules.current(), kind, provider);
        let problem = problem.map(|problem| problem.to_string());
        if let Some(problem) = &problem
            && Some(problem) != known.as_ref()
        {
            tracing::error!(
                code = codes::NOTICE_PROVIDER_UNUSABLE,
                notice = kind.as_str(),
                problem,
                "the provider of a notice cannot be used"
            );
        }
        *known = problem;
    }

    /// Stores the notice that is planned, or plans the next one. Nothing is planned while the
    /// Provider is not usable. The fallback reports it later.
    async fn step(
        &self,
        kind: NoticeKind,
        provider: &ProviderName,
        is_usable: bool,
    ) -> Result<(), BusError> {
        let (state, revision) = self.reported.load(kind).await?;
        if let (Some(state), Some(revision)) = (&state, revision)
            && state.pending.is_some()
        {
            return self.store_delivery(kind, state, revision).await;
        }
        let due = match kind {
            NoticeKind::Watchdog if !is_usable => None,
            NoticeKind::Watchdog => self.plan_watchdog(state.as_ref(), provider),
            NoticeKind::Fallback => self.plan_fallback(state, provider, is_usable).await?,
        };
        let Some(Due { state, excluded }) = due else {
            return Ok(());
        };
        let stored = self.reported.store(kind, &state, revision).await?;
        // Otherwise another router was first.
        if let Some(revision) = stored {
            self.count(&excluded);
            if state.pending.is_some() {
                self.store_delivery(kind, &state, revision).await?;
            }
        }
        Ok(())
    }

    /// Stores the planned notice for workers, and then that it is stored.
    async fn store_delivery(
        &self,
        kind: NoticeKind,
        state: &NoticeState,
        revision: u64,
    ) -> Result<(), BusError> {
        let Some(delivery) = &state.pending else {
            return Ok(());
        };
        let ack = self.bus.enqueue(delivery).await?;
        if !ack.duplicate {
            self.metrics.router_notices_total.get_or_create(&kind).inc();
            tracing::info!(
                code = codes::NOTICE_STORED,
                notice = kind.as_str(),
                delivery.id,
                "notice stored for delivery"
            );
        }
        let stored = NoticeState {
            pending: None,
            ..state.clone()
        };
        self.reported.store(kind, &stored, Some(revision)).await?;
        Ok(())
    }

    fn count(&self, excluded: &[(NoticeExclusion, u64)]) {
        for (what, count) in excluded.iter().filter(|(_, count)| *count > 0) {
            let counter = &self.metrics.router_notices_excluded_total;
            counter.get_or_create(what).inc_by(*count);
            tracing::error!(
                code = codes::NOTICE_FAILED,
                what = what.as_str(),
                count,
                "notices failed, nothing reports this"
            );
        }
    }
}

/// A duration as settings have it, such as `5m`.
fn shown(duration: Duration) -> String {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    format!("{duration:#}")
}
