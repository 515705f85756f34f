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
mod tests {
    use super::*;

    fn channel(channel: impl ToString) -> Destination {
        Destination::channel("apps", "hook", &channel.to_string())
    }

    /// Takes every permit that a destination gets at once.
    async fn take_all(
        permits: &LocalPermits,
        destination: &Destination,
        capacity: &TypeCapacity,
    ) -> Vec<LocalPermit> {
        let mut taken = Vec::new();
        for _ in 0..100 {
            let take = permits.take(destination, None, capacity);
            let result = tokio::time::timeout(Duration::ZERO, take).await;
            taken.extend(result.ok().and_then(Result::ok));
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_has_64_permits_and_the_next_delivery_waits_for_a_moment() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let (a, other) = (channel("a"), channel("other"));
        let mut taken = take_all(&permits, &a, &capacity).await;
        assert_eq!(taken.len(), limit::FIRST_CALLS);
        let next = permits.take(&a, None, &capacity).await;
        assert!(next.is_err(), "none is returned");
        assert!(permits.take(&other, None, &capacity).await.is_ok());
        let (next, ()) = tokio::join!(permits.take(&a, None, &capacity), async {
            drop(taken.pop())
        });
        assert!(next.is_ok(), "one is returned");
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_that_answers_gets_half_of_the_capacity_until_it_fails() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(512));
        let a = channel("a");
        let round = async |answered: bool| {
            let mut taken = Vec::new();
            for _ in 0..3 {
                taken.extend(take_all(&permits, &a, &capacity).await);
            }
            taken.iter_mut().for_each(LocalPermit::start);
            tokio::time::advance(Duration::from_millis(200)).await;
            let count = taken.len();
            // The last one ends first, while all are in use.
            if let Some(last) = taken.last_mut() {
                last.answered(answered);
            }
            taken.pop();
            taken.iter_mut().for_each(|permit| permit.answered(true));
            count
        };
        let mut counts = Vec::new();
        for _ in 0..400 {
            counts.push(round(true).await);
        }
        assert_eq!((counts[0], counts[399]), (64, 256));
        assert_eq!(round(false).await, 256);
        assert_eq!(round(true).await, 128);
    }

    #[tokio::test(start_paused = true)]
    async fn max_in_flight_sets_the_number_of_permits() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let a = channel("a");
        let _one = permits.take(&a, Some(1), &capacity).await.unwrap();
        assert!(permits.take(&a, Some(1), &capacity).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn unused_destinations_are_dropped_and_used_ones_are_not() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let held = channel("held");
        let _held = permits.take(&held, Some(1), &capacity).await.unwrap();
        for number in 0..10_000 {
            let other = channel(number);
            permits.take(&other, None, &capacity).await.unwrap();
        }
        assert!(permits.destinations.lock().len() <= 1000);
        let again = permits.take(&held, Some(1), &capacity).await;
        assert!(again.is_err(), "its only permit is still taken");
    }

    #[tokio::test(start_paused = true)]
    async fn destinations_that_hang_leave_capacity_for_another_one() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let (mut hanging, mut counts) = (Vec::new(), Vec::new());
        for number in 0..8 {
            let taken = take_all(&permits, &channel(number), &capacity).await;
            counts.push(taken.len());
            hanging.extend(taken);
        }
        assert_eq!(counts, [64, 59, 39, 26, 18, 12, 8, 5]);
        drop(hanging);
        let left = capacity.held.load(Ordering::Relaxed);
        assert_eq!(left, 0, "every share is returned");
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_slow_destinations_leaves_the_reserved_part_to_the_others() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let call = async |name: &str, takes| {
            let mut permit = permits.take(&channel(name), None, &capacity).await.unwrap();
            permit.start();
            tokio::time::advance(takes).await;
        };
        call("fast", Duration::from_millis(20)).await;
        for number in 0..50 {
            call(&number.to_string(), SLOW).await;
        }
        let mut others = Vec::new();
        for number in 0..100 {
            others.extend(take_all(&permits, &channel(number), &capacity).await);
        }
        assert_eq!(others.len(), 256 - 8, "50 slow and 50 unknown destinations");
        let fast = take_all(&permits, &channel("fast"), &capacity).await;
        assert_eq!(fast.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_destination_whose_calls_stall_leaves_the_reserved_part() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(32));
        let a = channel("a");
        permits.take(&a, None, &capacity).await.unwrap().start();
        let mut hanging = take_all(&permits, &a, &capacity).await;
        assert_eq!(hanging.len(), 16, "of 32 it holds what it leaves free");
        tokio::time::advance(SLOW).await;
        drop(hanging.split_off(9));
        tokio::time::advance(SLOW).await;
        assert_eq!(take_all(&permits, &a, &capacity).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_wait_for_a_permit_leave_capacity_too() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let hook = channel("a");
        let takes = (0..200).map(|_| permits.take(&hook, None, &capacity));
        let mut takes = std::pin::pin!(futures::future::join_all(takes));
        assert!(futures::poll!(&mut takes).is_pending());
        let held = capacity.held.load(Ordering::Relaxed);
        assert_eq!(held, 80, "64 call and 16 wait");
        let taken = takes.await;
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 64);
        assert_eq!(capacity.held.load(Ordering::Relaxed), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_holds_one_delivery_at_a_time_makes_calls() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(1));
        let one = permits.take(&channel("a"), None, &capacity).await;
        assert!(one.is_ok());
        let next = permits.take(&channel("b"), None, &capacity).await;
        assert!(next.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn parked_deliveries_are_retried_one_after_the_other_within_five_minutes() {
        let permits = LocalPermits::default().of(&channel("a"), Some(1));
        permits.pace.lock().took = Some(Duration::from_secs(6));
        for least in [6.0, 12.0, 18.0] {
            let wait = permits.retry_after().as_secs_f64();
            assert!((least..=1.25 * least).contains(&wait), "{wait}");
        }
        permits.pace.lock().last_retry = Instant::now() + 100 * MAX_RETRY;
        assert!((MAX_RETRY / 2..=MAX_RETRY).contains(&permits.retry_after()));
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_find_no_capacity_are_retried_at_different_times() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(1));
        let _one = permits.take(&channel("a"), None, &capacity).await;
        let b = channel("b");
        let mut last = Duration::ZERO;
        for _ in 0..5000 {
            last = permits.take(&b, None, &capacity).await.err().unwrap();
        }
        assert!(last >= Duration::from_secs(5), "5,000 within {last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_that_of_the_slowest_of_the_last_calls() {
        let mut pace = Pace::new();
        pace.count_end(Duration::from_secs(30));
        for _ in 1..64 {
            pace.count_end(Duration::from_secs(30));
        }
        assert_eq!(pace.apart(64, 0).as_millis(), 468);
        tokio::time::advance(Duration::from_secs(60)).await;
        let hanging = pace.apart(64, 64).as_millis();
        assert_eq!(hanging, 1875, "no call ended for a minute");
        pace.count_end(Duration::from_millis(20));
        assert_eq!(pace.took, Some(Duration::from_secs(15)));
        for _ in 0..4 {
            pace.count_end(Duration::from_millis(20));
        }
        assert!(pace.is_fast(0), "quick calls in a row are enough");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_times_start_over_when_half_of_the_permits_are_free() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let hook = permits.of(&channel("a"), None);
        hook.pace.lock().last_retry = Instant::now() + MAX_RETRY;
        permits.take(&channel("a"), None, &capacity).await.unwrap();
        assert!(hook.retry_after() < Duration::from_secs(1));
    }
}
