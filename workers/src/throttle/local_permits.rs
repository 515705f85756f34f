//! Local permits limit the calls of one destination that a worker makes at a time. So a destination
//! that hangs leaves capacity for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::model::jitter::jitter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::bounded_map::BoundedMap;

mod limit;

use limit::Limit;

/// A delivery waits in memory for a local permit for this long.
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// A delivery without a permit is parked for a time between these, plus up to a quarter.
const MIN_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(240);
/// Retries of one destination are at least this far apart.
const MIN_APART: Duration = Duration::from_millis(1);
/// A destination whose calls take this long is slow.
const SLOW: Duration = Duration::from_secs(1);
/// This part of the capacity of a type is reserved for destinations that are known to be fast.
const RESERVED_PART: usize = 16;

/// The local permits of all destinations.
#[derive(Default)]
pub struct LocalPermits {
    destinations: Mutex<BoundedMap<Destination, Arc<Permits>>>,
}

/// The permits of one destination.
struct Permits {
    limit: Mutex<Limit>,
    free: Arc<Semaphore>,
    /// Deliveries that hold a permit, or wait for one in memory.
    held: AtomicUsize,
    pace: Mutex<Pace>,
}

/// How long the calls of a destination take, and when parked deliveries are retried.
struct Pace {
    /// The duration of the last call, but at least half of the value before; `None` before a call
    /// ended.
    took: Option<Duration>,
    /// When a call last ended, or when the first of the running calls started.
    progress: Instant,
    /// When the delivery that was parked last is retried.
    last_retry: Instant,
}

/// How many deliveries of a type a worker can hold, and how many hold or wait for a permit.
#[derive(Clone, Debug)]
pub struct TypeCapacity {
    capacity: usize,
    held: Arc<AtomicUsize>,
}

/// A permit for one call, until it is dropped.
pub struct LocalPermit {
    share: Share,
    started: Option<Instant>,
    /// Whether the destination answered; `None` if that is not known.
    answered: Option<bool>,
    permit: Option<OwnedSemaphorePermit>,
}

/// One delivery's share of the capacity of its type, until it is dropped.
struct Share {
    permits: Arc<Permits>,
    capacity: TypeCapacity,
}

impl LocalPermits {
    /// Takes a permit. `max` is the `maxInFlight` of the Provider.
    ///
    /// # Errors
    /// No permit is free within 100 ms: park the delivery for this long.
    pub async fn take(
        &self,
        destination: &Destination,
        max: Option<u32>,
        capacity: &TypeCapacity,
    ) -> Result<LocalPermit, Duration> {
        let permits = self.of(destination, max);
        let share = capacity
            .share(&permits)
            .ok_or_else(|| permits.retry_after())?;
        let acquire = permits.free.clone().acquire_owned();
        match tokio::time::timeout(SHORT_WAIT, acquire).await {
            Ok(Ok(permit)) => Ok(LocalPermit {
                share,
                started: None,
                answered: None,
                permit: Some(permit),
            }),
            _ => Err(permits.retry_after()),
        }
    }

    fn of(&self, destination: &Destination, max: Option<u32>) -> Arc<Permits> {
        let mut destinations = self.destinations.lock();
        if let Some(permits) = destinations
            .get(destination)
            .filter(|found| found.limit.lock().fixed() == max)
        {
            return permits.clone();
        }
        let limit = Limit::new(max);
        let permits = Arc::new(Permits {
            free: Arc::new(Semaphore::new(limit.size())),
            limit: Mutex::new(limit),
            held: AtomicUsize::default(),
            pace: Mutex::new(Pace::new()),
        });
        // Every call, and every delivery that waits, holds a reference.
        let is_used = |_: &Destination, permits: &Arc<Permits>| Arc::strong_count(permits) > 1;
        destinations.insert(destination.clone(), permits.clone(), is_used);
        permits
    }
}

impl TypeCapacity {
    /// The capacity for this many deliveries.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            held: Arc::default(),
        }
    }

    /// A share for one more delivery of a destination. A destination that is known to be fast holds
    /// at most as much as stays free. Any other one gets at most half of the free capacity, and
    /// leaves the reserved part: however many others are slow, a fast destination goes on. The
    /// first call of a destination may use half of the reserved part, so that a slow one can show
    /// that it recovered.
    fn share(&self, permits: &Arc<Permits>) -> Option<Share> {
        let mut pace = permits.pace.lock();
        let all = self.held.load(Ordering::Relaxed);
        let held = permits.held.load(Ordering::Relaxed);
        let reserve = match self.capacity {
            0 | 1 => 0,
            capacity => capacity.div_ceil(RESERVED_PART),
        };
        let free = self.capacity.saturating_sub(all);
        let most = match (pace.is_fast(held), held) {
            (true, _) => free,
            (false, 0) => free.saturating_sub(reserve / 2).div_ceil(2),
            (false, _) => free.saturating_sub(reserve).div_ceil(2),
        };
        if held >= most && all > 0 {
            return None;
        }
        if held == 0 {
            pace.progress = Instant::now();
        }
        if 2 * held <= most.min(permits.size()) {
            pace.last_retry = Instant::now();
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        permits.held.fetch_add(1, Ordering::Relaxed);
        Some(Share {
            permits: permits.clone(),
            capacity: self.clone(),
        })
    }
}

impl Permits {
    fn size(&self) -> usize {
        self.limit.lock().size()
    }

    /// Follows the end of a call in the number of permits. Returns whether its permit goes away.
    fn adapt(&self, answered: Option<bool>, is_fast: bool) -> bool {
        let mut limit = self.limit.lock();
        match answered {
            Some(true) if is_fast && self.free.available_permits() == 0 && limit.answered() => {
                self.free.add_permits(1);
            }
            Some(false) => limit.failed(),
            _ => {}
        }
        limit.drops_one()
    }

    /// How long a delivery without a permit is parked. Deliveries are retried one after the other,
    /// as fast as calls end, with jitter.
    fn retry_after(&self) -> Duration {
        let mut pace = self.pace.lock();
        let (now, held) = (Instant::now(), self.held.load(Ordering::Relaxed));
        let apart = pace.apart(self.size(), held);
        pace.last_retry =
            (pace.last_retry + apart).clamp(now + MIN_RETRY.max(apart), now + MAX_RETRY);
        match pace.last_retry - now {
            // All that are later than this are retried within the same time.
            MAX_RETRY => jitter(MAX_RETRY),
            wait => wait + jitter(wait / 4),
        }
    }
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            took: None,
            progress: now,
            last_retry: now,
        }
    }

    fn is_fast(&self, held: usize) -> bool {
        let is_stalled = held > 0 && self.progress.elapsed() >= SLOW;
        self.took.is_some_and(|took| took < SLOW) && !is_stalled
    }

    /// The time between the ends of two calls while all permits are taken. Running calls of which
    /// none ended for a while are expected to take as long again.
    fn apart(&self, size: usize, held: usize) -> Duration {
        let running = if held > 0 {
            2 * self.progress.elapsed()
        } else {
            Duration::ZERO
        };
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let took = self.took.unwrap_or_default().max(running);
        (took / size).clamp(MIN_APART, MAX_RETRY)
    }

    fn count_end(&mut self, took: Duration) {
        self.took = Some(took.max(self.took.unwrap_or_default() / 2));
        self.progress = Instant::now();
    }
}

impl LocalPermit {
    /// The call may start: from now on its duration counts.
    pub fn start(&mut self) {
        self.started = Some(Instant::now());
    }

    /// Notes whether the destination answered the call, or failed or asked to wait.
    pub fn answered(&mut self, answered: bool) {
        self.answered = Some(answered);
    }
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        let Some(started) = self.started else { return };
        let permits = &self.share.permits;
        let is_fast = {
            let mut pace = permits.pace.lock();
            pace.count_end(started.elapsed());
            pace.is_fast(0)
        };
        if permits.adapt(self.answered, is_fast)
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.capacity.held.fetch_sub(1, Ordering::Relaxed);
        self.permits.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
