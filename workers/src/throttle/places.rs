//! Places: how many calls of one destination a worker has under way, so that one that hangs leaves room for the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidings_core::Destination;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many calls of one destination a worker has under way, where its Provider does not say how many.
const SHARE: usize = 64;
/// Who waits for a place does so for as long at most; what would take longer is parked.
pub const MOST_WAIT: Duration = Duration::from_secs(1);
/// As long as a destination makes this much time of waiting, it is quicker to wait than to be parked.
const MOST_QUEUE: Duration = Duration::from_millis(50);
/// What is parked for want of a place comes back no sooner.
const SOONEST: Duration = Duration::from_millis(500);
/// How much the last call weighs in the average.
const LAST_WEIGHS: f64 = 0.2;

/// The places of all destinations in one process.
#[derive(Default)]
pub struct Places {
    all: Mutex<HashMap<Destination, Arc<Desk>>>,
}

/// The places of one destination.
struct Desk {
    size: usize,
    free: Arc<Semaphore>,
    calls: Mutex<Calls>,
    number: AtomicU64,
}

#[derive(Default)]
struct Calls {
    /// When those that are under way began.
    begun: BTreeMap<u64, Instant>,
    waiting: u32,
    /// What a call takes.
    average: Duration,
    /// When the next one that finds no place is to come back.
    next: Option<Instant>,
}

/// A place that is taken, until it is dropped.
pub struct Place {
    desk: Arc<Desk>,
    number: u64,
    began: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// A place at a destination. `most` is what its Provider allows, `spare` how many messages this worker could still take.
    ///
    /// # Errors
    /// There is none within a moment: come back after this long.
    pub async fn take(&self, destination: &Destination, most: Option<u32>, spare: usize) -> Result<Place, Duration> {
        let desk = self.desk(destination, most);
        let has_room = {
            let calls = desk.calls();
            // A slow one gets half of what is left, so that however many of them leave room for the others.
            !calls.is_slow() || calls.begun.len() < (spare / 2).max(1)
        };
        if has_room && let Ok(permit) = desk.free.clone().try_acquire_owned() {
            return Ok(desk.begin(permit));
        }
        if !has_room || !desk.calls().joins_the_queue(desk.size) {
            return Err(desk.comes_back());
        }
        let waiting = Waiting::new(&desk);
        let permit = tokio::time::timeout(MOST_WAIT, desk.free.clone().acquire_owned()).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(desk.begin(permit)),
            _ => Err(desk.comes_back()),
        }
    }

    fn desk(&self, destination: &Destination, most: Option<u32>) -> Arc<Desk> {
        let size = most.map_or(SHARE, |most| usize::try_from(most).unwrap_or(SHARE));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = all.get(destination).filter(|desk| desk.size == size) {
            return desk.clone();
        }
        let desk = Desk { size, free: Arc::new(Semaphore::new(size)), calls: Mutex::default(), number: AtomicU64::default() };
        let desk = Arc::new(desk);
        all.insert(destination.clone(), desk.clone());
        desk
    }
}

impl Desk {
    fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let (number, began) = (self.number.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.calls().begun.insert(number, began);
        Place { desk: self.clone(), number, began, _permit: permit }
    }

    /// Spreads those that find no place over the time that those before them will take.
    fn comes_back(&self) -> Duration {
        let now = Instant::now();
        let mut calls = self.calls();
        let apart = calls.each(now) / u32::try_from(self.size).unwrap_or(u32::MAX);
        let next = calls.next.map_or(now, |next| next + apart).max(now + SOONEST.max(apart));
        calls.next = Some(next);
        next - now
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// What a call takes: one that has taken longer than the others will take as long again.
    fn each(&self, now: Instant) -> Duration {
        let longest = self.begun.values().min().map(|began| now - *began).unwrap_or_default();
        if longest > MOST_WAIT { self.average.max(2 * longest) } else { self.average }
    }

    fn is_slow(&self) -> bool {
        self.each(Instant::now()) >= MOST_WAIT
    }

    fn joins_the_queue(&self, size: usize) -> bool {
        !self.is_slow() && self.average * self.waiting / u32::try_from(size).unwrap_or(u32::MAX) <= MOST_QUEUE
    }
}

impl Place {
    /// The call begins only now: what it had to wait for until now is no sign of a slow destination.
    pub fn begin(&mut self) {
        self.began = Instant::now();
        self.desk.calls().begun.insert(self.number, self.began);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let mut calls = self.desk.calls();
        calls.begun.remove(&self.number);
        let is_first = calls.average.is_zero();
        calls.average = if is_first { took } else { calls.average.mul_f64(1.0 - LAST_WEIGHS) + took.mul_f64(LAST_WEIGHS) };
    }
}

/// Counts one that waits, also where it gives up.
struct Waiting(Arc<Desk>);

impl Waiting {
    fn new(desk: &Arc<Desk>) -> Self {
        desk.calls().waiting += 1;
        Self(desk.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.calls().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> Destination {
        Destination::channel("apps", "hook", "")
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_has_its_share_and_who_comes_then_waits_for_a_moment() {
        let places = Places::default();
        let mut taken = Vec::new();
        for _ in 0..SHARE {
            taken.push(places.take(&destination(), None, 100).await.unwrap());
        }
        assert!(places.take(&destination(), None, 100).await.is_err(), "nobody leaves");
        assert!(places.take(&Destination::channel("apps", "hook", "other"), None, 100).await.is_ok());
        let hook = destination();
        let (next, ()) = tokio::join!(places.take(&hook, None, 100), async { drop(taken.pop()) });
        assert!(next.is_ok(), "one has left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_can_say_how_many() {
        let places = Places::default();
        let _one = places.take(&destination(), Some(1), 100).await.unwrap();
        assert!(places.take(&destination(), Some(1), 100).await.is_err());
    }

    #[test]
    fn a_slow_destination_gets_half_of_what_is_left_and_nobody_waits_for_it() {
        let slow = Calls { average: Duration::from_secs(5), ..Calls::default() };
        assert!(slow.is_slow() && !slow.joins_the_queue(64));
        let brisk = Calls { average: Duration::from_millis(20), waiting: 160, ..Calls::default() };
        assert!(brisk.joins_the_queue(64), "160 of 20 ms on 64 places are 50 ms");
        assert!(!Calls { waiting: 164, ..brisk }.joins_the_queue(64));
    }

    #[tokio::test]
    async fn those_that_find_no_place_come_back_one_after_the_other() {
        let desk = Places::default().desk(&destination(), Some(1));
        desk.calls().average = Duration::from_secs(3);
        let waits = [desk.comes_back(), desk.comes_back(), desk.comes_back()].map(|wait| wait.as_secs_f64().round());
        assert_eq!(waits, [3.0, 6.0, 9.0]);
    }
}
