//! What waits, for autoscalers and metrics: read from the bus, kept for a second.

mod answer;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex as SyncMutex;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::bus::workload::Workload;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::QueueLabels;

pub use answer::{MOST_QUEUES, ScalingAnswer};

/// An answer, or an error, is given again for this time, so that many requests cost nothing.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// How often the metrics are updated when nobody asks.
const UPDATE_EVERY: Duration = Duration::from_secs(5);

/// A reading that takes longer counts as failed.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// The most requests that wait for a reading, of the 64 connections to the admin endpoint.
const MOST_WAITING: usize = 40;

/// Reads what waits. Clones share what was read.
#[derive(Clone, Default)]
pub struct Scaling {
    shared: Arc<Shared>,
}

struct Shared {
    bus: OnceLock<(Bus, Metrics)>,
    last: Mutex<Option<Reading>>,
    /// The labels that the metrics have.
    shown: SyncMutex<HashSet<QueueLabels>>,
    /// A permit for each request that may wait.
    waiting: Semaphore,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            bus: OnceLock::new(),
            last: Mutex::default(),
            shown: SyncMutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }
}

/// What was read, and when.
struct Reading {
    at: Instant,
    result: Result<Arc<Workload>, String>,
}

impl Scaling {
    /// Reads from this bus from now on, and updates these metrics every five seconds until `stop`.
    pub async fn run(self, bus: Bus, metrics: Metrics, stop: CancellationToken) {
        if self.shared.bus.set((bus, metrics)).is_err() {
            return;
        }
        let mut ticks = tokio::time::interval(UPDATE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // An error shows in `tidings_bus_up`; the metrics keep their last values.
            let _ = stop.run_until_cancelled(self.current()).await;
        }
    }

    /// What waits now, at most a second old. Requests at the same time share one reading.
    ///
    /// # Errors
    /// The role has not set up the streams, or the bus is unavailable.
    pub async fn current(&self) -> Result<Arc<Workload>, String> {
        let (bus, metrics) = self
            .shared
            .bus
            .get()
            .ok_or("the streams cannot be used yet")?;
        let mut last = self.shared.last.lock().await;
        if let Some(reading) = &*last
            && reading.at.elapsed() < KEPT_FOR
        {
            return reading.result.clone();
        }
        let result = read(bus).await;
        if let Ok(workload) = &result {
            self.show(workload, metrics);
        }
        *last = Some(Reading {
            at: Instant::now(),
            result: result.clone(),
        });
        result
    }

    /// What waits now, see [`Scaling::current`]. Refuses if many requests wait for an answer, so
    /// that probes still find a free connection while the bus does not answer.
    ///
    /// # Errors
    /// Too many requests wait, or there is no answer.
    pub async fn asked(&self) -> Result<Arc<Workload>, String> {
        let permit = self.shared.waiting.try_acquire();
        let _permit = permit.map_err(|_| "too many requests wait for an answer")?;
        self.current().await
    }

    fn show(&self, workload: &Workload, metrics: &Metrics) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let answer = ScalingAnswer::new(workload);
        let mut shown = self.shared.shown.lock();
        let mut now = HashSet::new();
        for (pool, work) in &answer.workers {
            for (kind, queue) in &work.by_type {
                let labels = QueueLabels {
                    pool: pool.clone(),
                    r#type: kind.clone(),
                };
                let ready = gauge(queue.ready);
                metrics.deliveries_ready.get_or_create(&labels).set(ready);
                now.insert(labels);
            }
        }
        for gone in shown.difference(&now) {
            metrics.deliveries_ready.remove(gone);
        }
        *shown = now;
        metrics.deliveries_parked.set(gauge(workload.parked));
        metrics
            .oldest_ready_seconds
            .set(workload.oldest_ready.as_secs_f64());
        metrics.events_unrouted.set(gauge(workload.events_unrouted));
    }
}

async fn read(bus: &Bus) -> Result<Arc<Workload>, String> {
    if !bus.is_connected() {
        return Err("not connected to NATS".to_owned());
    }
    match tokio::time::timeout(READ_WITHIN, bus.workload()).await {
        Ok(Ok(workload)) => Ok(Arc::new(workload)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer of NATS within {READ_WITHIN:?}")),
    }
}
