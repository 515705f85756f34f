//! Local permits: how many calls of one destination a worker makes at a time, so that a destination
//! that hangs leaves capacity for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_core::Destination;
use tidings_core::model::jitter::jitter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bounded_map::BoundedMap;

/// How many calls of one destination a worker makes at a time, unless its Provider sets
/// `maxInFlight`.
const MOST_CALLS: usize = 64;
/// A delivery waits in memory for a local permit for this long.
const SHORT_WAIT: Duration = Duration::from_millis(100);
/// The longest that a delivery waits in memory for a slot or a shared permit.
pub const MOST_WAIT: Duration = Duration::from_secs(1);
/// A delivery without a permit is parked for a time between these, plus a quarter at random.
const SOONEST: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(240);
/// The pace of a destination is measured over about this long.
const PACE_WINDOW: Duration = Duration::from_secs(2);

/// The local permits of all destinations.
#[derive(Default)]
pub struct LocalPermits {
    destinations: Mutex<BoundedMap<Destination, Arc<Permits>>>,
}

/// The permits of one destination.
struct Permits {
    size: usize,
    free: Arc<Semaphore>,
    /// Deliveries that hold a permit, or wait for one in memory.
    held: AtomicUsize,
    pace: Mutex<Pace>,
}

/// How fast calls end, while most of the permits are taken.
struct Pace {
    since: Instant,
    ended: u32,
    /// When the delivery that was parked last returns.
    last_return: Instant,
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
    _permit: OwnedSemaphorePermit,
}

/// The part of one delivery in the capacity of its type, until it is dropped.
struct Share {
    permits: Arc<Permits>,
    capacity: TypeCapacity,
}

impl LocalPermits {
    /// Takes a permit. `most` is the `maxInFlight` of the Provider.
    ///
    /// # Errors
    /// None is free within a moment: park the delivery for this long.
    pub async fn take(
        &self,
        destination: &Destination,
        most: Option<u32>,
        capacity: &TypeCapacity,
    ) -> Result<LocalPermit, Duration> {
        let permits = self.of(destination, most);
        let share = capacity
            .share(&permits)
            .ok_or_else(|| permits.return_after())?;
        let acquire = permits.free.clone().acquire_owned();
        match tokio::time::timeout(SHORT_WAIT, acquire).await {
            Ok(Ok(permit)) => Ok(LocalPermit {
                share,
                _permit: permit,
            }),
            _ => Err(permits.return_after()),
        }
    }

    fn of(&self, destination: &Destination, most: Option<u32>) -> Arc<Permits> {
        let size = most.map_or(MOST_CALLS, |most| {
            usize::try_from(most).unwrap_or(MOST_CALLS)
        });
        let mut destinations = self.destinations.lock();
        if let Some(permits) = destinations
            .get(destination)
            .filter(|found| found.size == size)
        {
            return permits.clone();
        }
        let (free, held) = (Arc::new(Semaphore::new(size)), AtomicUsize::default());
        let permits = Arc::new(Permits {
            size,
            free,
            held,
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

    /// A part for one more delivery of a destination. A destination gets at most half of what is
    /// left, so that any number of destinations can hang and leave some.
    fn share(&self, permits: &Arc<Permits>) -> Option<Share> {
        let all = self.held.load(Ordering::Relaxed);
        let held = permits.held.load(Ordering::Relaxed);
        let most = self.capacity.saturating_sub(all).div_ceil(2);
        if 2 * held <= most.min(permits.size) {
            *permits.pace.lock() = Pace::new();
        }
        if held >= most && all > 0 {
            return None;
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
    /// How long a delivery without a permit is parked. Deliveries return one after the other, as
    /// fast as permits are given back, with jitter.
    fn return_after(&self) -> Duration {
        let mut pace = self.pace.lock();
        let (now, apart) = (Instant::now(), pace.apart(self.size).min(LATEST));
        pace.last_return = (pace.last_return + apart).clamp(now + SOONEST.max(apart), now + LATEST);
        let wait = pace.last_return - now;
        wait + jitter(wait / 4)
    }
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            ended: 0,
            last_return: Instant::now(),
        }
    }

    /// The time between the ends of two calls. Until as many calls have ended as there are permits,
    /// they are expected to take as long again.
    fn apart(&self, size: usize) -> Duration {
        let (since, size) = (
            self.since.elapsed(),
            u32::try_from(size).unwrap_or(u32::MAX),
        );
        match self.ended < size {
            true => 2 * since / size,
            false => since / self.ended,
        }
    }

    fn count_end(&mut self) {
        self.ended += 1;
        let measured = self.since.elapsed();
        if measured > PACE_WINDOW {
            (self.since, self.ended) = (self.since + measured / 2, self.ended / 2);
        }
    }
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        self.share.permits.pace.lock().count_end();
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

    fn channel(channel: &str) -> Destination {
        Destination::channel("apps", "hook", channel)
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_has_64_permits_and_the_next_delivery_waits_for_a_moment() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let mut taken = Vec::new();
        for _ in 0..MOST_CALLS {
            taken.push(permits.take(&channel("a"), None, &capacity).await.unwrap());
        }
        assert!(
            permits.take(&channel("a"), None, &capacity).await.is_err(),
            "none is given back"
        );
        assert!(
            permits
                .take(&channel("other"), None, &capacity)
                .await
                .is_ok()
        );
        let hook = channel("a");
        let (next, ()) = tokio::join!(permits.take(&hook, None, &capacity), async {
            drop(taken.pop())
        });
        assert!(next.is_ok(), "one is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn max_in_flight_sets_the_number_of_permits() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let _one = permits
            .take(&channel("a"), Some(1), &capacity)
            .await
            .unwrap();
        assert!(
            permits
                .take(&channel("a"), Some(1), &capacity)
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn unused_destinations_are_dropped_and_used_ones_are_not() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let _held = permits
            .take(&channel("held"), Some(1), &capacity)
            .await
            .unwrap();
        for number in 0..10_000 {
            permits
                .take(&channel(&number.to_string()), None, &capacity)
                .await
                .unwrap();
        }
        assert!(permits.destinations.lock().len() <= 1000);
        let again = permits.take(&channel("held"), Some(1), &capacity).await;
        assert!(again.is_err(), "its only permit is still taken");
    }

    #[tokio::test(start_paused = true)]
    async fn destinations_that_hang_leave_capacity_for_another() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let mut hanging = Vec::new();
        let mut counts = Vec::new();
        for number in 0..8 {
            let (hook, before) = (channel(&number.to_string()), hanging.len());
            for _ in 0..100 {
                let take = permits.take(&hook, None, &capacity);
                let taken = tokio::time::timeout(Duration::ZERO, take).await;
                hanging.extend(taken.ok().and_then(Result::ok));
            }
            counts.push(hanging.len() - before);
        }
        assert_eq!(counts, [64, 64, 43, 29, 19, 13, 8, 6]);
        drop(hanging);
        assert_eq!(
            capacity.held.load(Ordering::Relaxed),
            0,
            "all is given back"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_wait_for_a_permit_leave_capacity_too() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let hook = channel("a");
        let takes = (0..200).map(|_| permits.take(&hook, None, &capacity));
        let mut takes = std::pin::pin!(futures::future::join_all(takes));
        assert!(futures::poll!(&mut takes).is_pending());
        assert_eq!(
            capacity.held.load(Ordering::Relaxed),
            86,
            "64 call and 22 wait"
        );
        let taken = takes.await;
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 64);
        assert_eq!(capacity.held.load(Ordering::Relaxed), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_holds_one_delivery_at_a_time_makes_calls() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(1));
        let one = permits.take(&channel("a"), None, &capacity).await;
        assert!(one.is_ok());
        assert!(permits.take(&channel("b"), None, &capacity).await.is_err());
    }

    #[test]
    fn parked_deliveries_return_one_after_the_other_within_five_minutes() {
        let permits = LocalPermits::default().of(&channel("a"), Some(1));
        permits.pace.lock().since = Instant::now() - Duration::from_secs(3);
        for least in [6.0, 12.0, 18.0] {
            let wait = permits.return_after().as_secs_f64();
            assert!((least - 0.1..=1.3 * least).contains(&wait), "{wait}");
        }
        permits.pace.lock().last_return = Instant::now() + 100 * LATEST;
        assert!((LATEST..=LATEST.mul_f64(1.25)).contains(&permits.return_after()));
    }

    #[test]
    fn the_pace_follows_the_calls_that_end() {
        let mut pace = Pace::new();
        pace.since -= Duration::from_millis(1900);
        assert_eq!(
            (pace.apart(64).as_millis(), pace.apart(1).as_millis()),
            (59, 3800)
        );
        for _ in 0..190 {
            pace.count_end();
        }
        assert_eq!(pace.apart(64).as_millis(), 10);
        pace.since -= Duration::from_millis(8100);
        pace.count_end();
        assert!(
            pace.since.elapsed() < Duration::from_millis(5100),
            "the old half is forgotten"
        );
    }

    #[tokio::test]
    async fn a_crowd_is_forgotten_when_half_of_the_permits_are_free() {
        let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
        let hook = permits.of(&channel("a"), None);
        hook.pace.lock().last_return = Instant::now() + LATEST;
        permits.take(&channel("a"), None, &capacity).await.unwrap();
        assert!(hook.return_after() < Duration::from_secs(1));
    }
}
