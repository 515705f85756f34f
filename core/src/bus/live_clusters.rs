//! The clusters of the fleet as they are now, shared by all tasks of a process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::bus::clusters::{ClusterRecords, Clusters};
use crate::bus::{Bus, BusError};
use crate::runtime::codes::log as codes;
use crate::runtime::health::Check;
use crate::runtime::log_pace::LogPace;

/// The pause before a failed watch starts again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is checked that the bucket was not recreated, which a watch does not notice.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The clusters of the bucket `clusters`, kept up to date.
///
/// # Guarantees
/// Reading takes no lock. While the bucket cannot be read, and after it was deleted, the last known
/// clusters stay in effect.
#[derive(Debug)]
pub struct LiveClusters {
    clusters: ArcSwap<Clusters>,
    loaded: watch::Sender<bool>,
}

impl Default for LiveClusters {
    fn default() -> Self {
        Self {
            clusters: ArcSwap::default(),
            loaded: watch::Sender::new(false),
        }
    }
}

impl LiveClusters {
    /// Clusters that never change, for tools and tests.
    pub fn fixed(clusters: Clusters) -> Arc<Self> {
        Arc::new(Self {
            clusters: ArcSwap::from_pointee(clusters),
            loaded: watch::Sender::new(true),
        })
    }

    /// Starts to follow the bucket until `stop`. `check` reports whether it can be read.
    pub fn start(bus: &Bus, check: Check, stop: CancellationToken) -> Arc<Self> {
        let live = Arc::new(Self::default());
        let (bus, following) = (bus.clone(), live.clone());
        tokio::spawn(async move {
            let following = following.follow(&bus, &check);
            stop.run_until_cancelled(following).await;
        });
        live
    }

    /// The clusters that are known now. Empty before the bucket was read; see
    /// [`LiveClusters::loaded`].
    pub fn current(&self) -> Arc<Clusters> {
        self.clusters.load_full()
    }

    /// Whether the bucket was read once.
    pub fn loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits until the bucket was read once, or for this long.
    pub async fn wait_until_loaded(&self, limit: Duration) {
        let mut loaded = self.loaded.subscribe();
        let loaded = loaded.wait_for(|loaded| *loaded);
        // The sender is in `self`, so that only the time can end.
        let _ = tokio::time::timeout(limit, loaded).await;
    }

    async fn follow(&self, bus: &Bus, check: &Check) {
        let mut pace = LogPace::default();
        loop {
            let trouble = match self.follow_once(bus, check).await {
                Ok(()) => "the watch ended".to_owned(),
                Err(error) => error.to_string(),
            };
            if pace.is_due(&trouble, Instant::now()) {
                tracing::warn!(
                    code = codes::CLUSTERS_UNREADABLE,
                    error = %trouble,
                    "bucket clusters cannot be read, retrying"
                );
            }
            check.fail(format!("the bucket clusters cannot be read: {trouble}"));
            sleep(PAUSE).await;
        }
    }

    async fn follow_once(&self, bus: &Bus, check: &Check) -> Result<(), BusError> {
        let records = ClusterRecords::open(bus).await?;
        let version = records.version().await?;
        // An empty bucket that replaces a deleted one must not end restrictions.
        let mut is_lost = version.is_empty() && !self.current().is_empty();
        if is_lost {
            tracing::error!(
                code = codes::CLUSTERS_LOST,
                clusters = self.current().len(),
                "bucket clusters was deleted, the last known clusters stay in effect"
            );
        }
        let changed = |clusters: &Clusters| {
            if !std::mem::take(&mut is_lost) {
                self.clusters.store(Arc::new(clusters.clone()));
            }
            self.loaded.send_replace(true);
            check.succeed();
        };
        let recreated = async {
            loop {
                sleep(CHECK_EVERY).await;
                if !records.version().await?.is_same_bucket(&version) {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            followed = records.follow(changed) => followed,
            recreated = recreated => recreated,
        }
    }
}
