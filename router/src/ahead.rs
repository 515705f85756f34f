//! Routes events of other clusters ahead of the backlog of a few.
//!
//! All routers share one consumer, which reads EVENTS in order. After an outage of its connection
//! a member may send the events of hours at once. While such a backlog lasts, a second consumer
//! reads the events of all other clusters. The first one still reads every event, and skips those
//! that the second one is known to have routed. So a lost second consumer loses nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tidings_core::bus::Bus;
use tidings_core::bus::ahead::AheadConsumer;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::pull::Pulled;
use tidings_core::model::stored_event::cluster_token;
use tidings_core::model::token::Token;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::log_pace::LogPace;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backlog::{RecentEvents, RoutedAhead, filter};

/// How often to check for a backlog, and the state of the second consumer.
const EVERY: Duration = Duration::from_secs(1);
/// What was learned this long ago may lack events that were routed since. Their deliveries are then
/// stored again, which the server recognizes for two minutes.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long the first attempt to learn is repeated.
const LEARN_WITHIN: Duration = Duration::from_secs(10);
/// The most clusters whose events are routed ahead.
const MAX_CLUSTERS: usize = 1_000;

/// The second consumer, and what it routed.
pub struct Ahead {
    bus: Bus,
    clusters: Arc<LiveClusters>,
    own_cluster: String,
    recent: Mutex<RecentEvents>,
    routed: RwLock<RoutedAhead>,
    /// When it was last learned what was routed. Held while this is asked.
    learned_at: tokio::sync::Mutex<Option<Instant>>,
}

/// A running puller of the second consumer.
struct Pulling {
    /// When the consumer was created.
    created: Timestamp,
    stop: CancellationToken,
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Ahead {
    /// Creates it for the clusters of the fleet and the hub's own.
    pub fn new(bus: Bus, clusters: Arc<LiveClusters>, own_cluster: String) -> Self {
        Self {
            bus,
            clusters,
            own_cluster,
            recent: Mutex::default(),
            routed: RwLock::default(),
            learned_at: tokio::sync::Mutex::default(),
        }
    }

    /// Learns what the second consumer routed before this process started, which may be longer ago
    /// than the server recognizes equal deliveries. Gives up after a while: routing twice is better
    /// than not at all.
    pub async fn learn(&self) {
        let until = Instant::now() + LEARN_WITHIN;
        while let Err(error) = self.ask().await {
            if Instant::now() >= until {
                log_failure(&error);
                break;
            }
            tokio::time::sleep(EVERY).await;
        }
        *self.learned_at.lock().await = Some(Instant::now());
    }

    /// Learns it again if it was learned long ago: this process may have had no connection while
    /// another one created the second consumer. A failure is not repeated for each event.
    async fn learn_again(&self) {
        let mut learned_at = self.learned_at.lock().await;
        if learned_at.is_some_and(|at| at.elapsed() < KNOWN_FOR) {
            return;
        }
        if let Err(error) = self.ask().await {
            log_failure(&error);
        }
        *learned_at = Some(Instant::now());
    }

    async fn ask(&self) -> Result<(), String> {
        let consumer = self.bus.ahead().await?;
        *self.routed.write() = consumer.as_ref().map(routed_by).unwrap_or_default();
        Ok(())
    }

    fn waited(&self, pulled: &Pulled) -> Duration {
        let waited = self.bus.clock().now().duration_since(pulled.stored_at);
        waited.try_into().unwrap_or_default()
    }

    /// Notes an event of the first consumer.
    pub fn observe(&self, pulled: &Pulled) {
        let waited = self.waited(pulled);
        let token = cluster_token(&pulled.message.subject).unwrap_or_default();
        self.recent.lock().observe(token, waited);
    }

    /// Whether the second consumer routed an event already.
    pub async fn has_routed(&self, pulled: &Pulled) -> bool {
        if self.waited(pulled) >= KNOWN_FOR {
            self.learn_again().await;
        }
        let token = cluster_token(&pulled.message.subject).unwrap_or_default();
        self.routed.read().contains(token, pulled.sequence)
    }

    /// Creates the second consumer when there is a backlog, and deletes it when it is over. Calls
    /// `pull` to route its events until the token is canceled.
    pub async fn run<P, F>(&self, pull: P, stop: CancellationToken)
    where
        P: Fn(AheadConsumer, CancellationToken) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = TaskTracker::new();
        self.run_until_stopped(|consumer, end| drop(tasks.spawn(pull(consumer, end))), stop)
            .await;
        tasks.close();
        tasks.wait().await;
    }

    async fn run_until_stopped(
        &self,
        pull: impl Fn(AheadConsumer, CancellationToken),
        stop: CancellationToken,
    ) {
        let mut pace = LogPace::default();
        let mut pulling = None;
        // A router that starts does not know whether others have created the consumer.
        let mut is_unknown = true;
        loop {
            let result = self.step(&mut pulling, is_unknown, &pull).await;
            if let Err(error) = &result
                && pace.is_due(error, Instant::now())
            {
                log_failure(error);
            }
            is_unknown = result.is_err();
            let wait = tokio::time::sleep(EVERY);
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    async fn step(
        &self,
        pulling: &mut Option<Pulling>,
        is_unknown: bool,
        pull: &impl Fn(AheadConsumer, CancellationToken),
    ) -> Result<(), String> {
        let is_backlog = self.recent.lock().is_backlog();
        if pulling.is_none() && !is_backlog && !is_unknown {
            return Ok(());
        }
        let Some(consumer) = self.bus.ahead().await? else {
            self.end(pulling);
            return match is_backlog {
                true => self.create().await,
                false => Ok(()),
            };
        };
        *self.routed.write() = routed_by(&consumer);
        *self.learned_at.lock().await = Some(Instant::now());
        if self.is_over(&consumer).await? {
            self.end(pulling);
            tracing::info!(
                code = codes::ROUTING_AHEAD_ENDED,
                "no cluster has a backlog any more"
            );
            return self.bus.delete_ahead().await;
        }
        let is_same = |pulling: &Pulling| pulling.created == consumer.created;
        if !pulling.as_ref().is_some_and(is_same) {
            let stop = CancellationToken::new();
            *pulling = Some(Pulling {
                created: consumer.created,
                stop: stop.clone(),
            });
            pull(consumer, stop);
        }
        Ok(())
    }

    /// Stops to pull, and to skip events: a stream that is created again has the same sequences.
    fn end(&self, pulling: &mut Option<Pulling>) {
        *pulling = None;
        *self.routed.write() = RoutedAhead::default();
    }

    /// Whether the first consumer has passed all that was routed ahead, and nothing waits behind
    /// others any more.
    async fn is_over(&self, consumer: &AheadConsumer) -> Result<bool, String> {
        let router = self.bus.router_progress().await?;
        let is_current = self.recent.lock().is_in_time() || router.waiting == 0;
        Ok(is_current && router.routed_until >= consumer.delivered_until())
    }

    /// Creates the consumer if a few clusters cause a backlog and others are known.
    async fn create(&self) -> Result<(), String> {
        if self.bus.router_progress().await?.waiting == 0 {
            self.recent.lock().clear();
            return Ok(());
        }
        let causes: Vec<String> = {
            let recent = self.recent.lock();
            recent.causes().into_iter().map(str::to_owned).collect()
        };
        let filters = self.filters_without(&causes);
        if causes.is_empty() || filters.is_empty() {
            return Ok(());
        }
        self.bus.create_ahead(&filters).await?;
        tracing::warn!(
            code = codes::ROUTING_AHEAD,
            causes = causes.join(", "),
            "clusters have a backlog, events of the others are routed ahead of it"
        );
        Ok(())
    }

    fn filters_without(&self, causes: &[String]) -> Vec<String> {
        let clusters = self.clusters.current();
        let names = clusters.keys().chain([&self.own_cluster]);
        let mut tokens: Vec<_> = names.map(|name| Token::new(name).to_string()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.retain(|token| !causes.contains(token));
        let tokens = tokens.iter().take(MAX_CLUSTERS);
        tokens.map(|token| filter(token)).collect()
    }
}

fn routed_by(consumer: &AheadConsumer) -> RoutedAhead {
    let (from, until) = (consumer.begins_at(), consumer.routed_until());
    RoutedAhead::new(&consumer.filters(), from, until)
}

fn log_failure(error: &str) {
    tracing::warn!(
        code = codes::ROUTING_AHEAD_FAILED,
        error,
        "events of other clusters cannot be routed ahead of a backlog, retrying"
    );
}
