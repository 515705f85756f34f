//! Places: how many calls of one destination a worker has under way, so that one that hangs leaves
//! room for the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_core::Destination;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bounded_map::BoundedMap;

/// So many calls of one destination a worker has under way, where its Provider does not say how
/// many.
const SHARE: usize = 64;
/// What waits does so for as long at most; what would take longer is parked.
pub const MOST_WAIT: Duration = Duration::from_secs(1);
/// As long as a destination makes this much time of waiting, it is quicker to wait than to be
/// parked. Where nothing ends for longer than this and what a call takes, nobody waits: those that
/// do hold messages' room, which others need.
const MOST_QUEUE: Duration = Duration::from_millis(50);
/// What is parked for want of a place comes back no sooner.
const SOONEST: Duration = Duration::from_millis(500);
/// Nor later: what finds none then asks again.
const LATEST: Duration = Duration::from_secs(300);
/// This part of all places is not for destinations that are known to be slow.
const NOT_FOR_THE_SLOW: usize = 16;
/// How much the last call weighs in the average.
const LAST_WEIGHS: f64 = 0.2;

/// The places of all destinations in one process.
#[derive(Default)]
pub struct Places {
    all: Mutex<BoundedMap<Destination, Arc<Desk>>>,
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
    /// When one last ended.
    ended: Option<Instant>,
    /// When the next one that finds no place is to come back.
    next: Option<Instant>,
}

/// How many calls one worker has under way of all destinations that share its messages.
#[derive(Clone, Debug)]
pub struct Room {
    capacity: usize,
    calls: Arc<AtomicUsize>,
}

/// A place that is taken, until it is dropped.
pub struct Place {
    desk: Arc<Desk>,
    number: u64,
    began: Instant,
    room: Room,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    /// For so many messages.
    pub fn of(capacity: usize) -> Self {
        Self {
            capacity,
            calls: Arc::default(),
        }
    }

    /// Whether a destination with so many calls under way may have another. Each gets half of what
    /// is left, so that however many hang, before that is known of any, there is room for
    /// another; what is known to be slow leaves a part to those that are not.
    fn has_for(&self, begun: usize, is_slow: bool) -> bool {
        let all = self.calls.load(Ordering::Relaxed);
        let left = self.capacity.saturating_sub(all);
        let share = if is_slow {
            left.saturating_sub(self.capacity / NOT_FOR_THE_SLOW) / 2
        } else {
            left.div_ceil(2)
        };
        all == 0 || begun < share
    }
}

impl Places {
    /// A place at a destination. `most` is what its Provider allows, `room` what its worker has for
    /// it and others.
    ///
    /// # Errors
    /// There is none within a moment: come back after this long.
    pub async fn take(
        &self,
        destination: &Destination,
        most: Option<u32>,
        room: &Room,
    ) -> Result<Place, Duration> {
        let desk = self.desk(destination, most);
        let has_room = {
            let calls = desk.calls.lock();
            room.has_for(calls.begun.len(), calls.is_slow())
        };
        if has_room && let Ok(permit) = desk.free.clone().try_acquire_owned() {
            desk.calls.lock().finds_one_at_once(desk.size);
            return Ok(desk.begin(permit, room));
        }
        if !has_room || !desk.calls.lock().joins_the_queue(Instant::now(), desk.size) {
            return Err(desk.comes_back());
        }
        let waiting = Waiting::new(&desk);
        let most = desk.calls.lock().most_wait();
        let permit = tokio::time::timeout(most, desk.free.clone().acquire_owned()).await;
        drop(waiting);
        match permit {
            Ok(Ok(permit)) => Ok(desk.begin(permit, room)),
            _ => Err(desk.comes_back()),
        }
    }

    fn desk(&self, destination: &Destination, most: Option<u32>) -> Arc<Desk> {
        let size = most.map_or(SHARE, |most| usize::try_from(most).unwrap_or(SHARE));
        let mut all = self.all.lock();
        if let Some(desk) = all.get(destination).filter(|desk| desk.size == size) {
            return desk.clone();
        }
        let desk = Desk {
            size,
            free: Arc::new(Semaphore::new(size)),
            calls: Mutex::default(),
            number: AtomicU64::default(),
        };
        let desk = Arc::new(desk);
        // Whoever calls or waits holds its desk.
        all.insert(destination.clone(), desk.clone(), |_, desk| {
            Arc::strong_count(desk) > 1
        });
        desk
    }
}

impl Desk {
    fn begin(self: &Arc<Self>, permit: OwnedSemaphorePermit, room: &Room) -> Place {
        room.calls.fetch_add(1, Ordering::Relaxed);
        let (number, began) = (self.number.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.calls.lock().begun.insert(number, began);
        Place {
            desk: self.clone(),
            number,
            began,
            room: room.clone(),
            _permit: permit,
        }
    }

    /// Spreads those that find no place over the time that those before them will take.
    fn comes_back(&self) -> Duration {
        let now = Instant::now();
        let mut calls = self.calls.lock();
        let apart = calls.each(now) / u32::try_from(self.size).unwrap_or(u32::MAX);
        let next = calls
            .next
            .map_or(now, |next| next + apart)
            .max(now + SOONEST.max(apart))
            .min(now + LATEST);
        calls.next = Some(next);
        let wait = next - now;
        if wait < LATEST {
            wait
        } else {
            LATEST.mul_f64(0.5 + rand::random::<f64>() / 2.0)
        }
    }
}

impl Calls {
    /// What a call takes: one that has taken longer than the others will take as long again.
    fn each(&self, now: Instant) -> Duration {
        let longest = self
            .begun
            .values()
            .min()
            .map(|began| now - *began)
            .unwrap_or_default();
        if longest > MOST_WAIT {
            self.average.max(2 * longest)
        } else {
            self.average
        }
    }

    /// Where half of the places are free, nobody need come back behind those who found none.
    fn finds_one_at_once(&mut self, size: usize) {
        if self.begun.len() * 2 <= size {
            self.next = None;
        }
    }

    fn is_slow(&self) -> bool {
        self.each(Instant::now()) >= MOST_WAIT
    }

    fn joins_the_queue(&self, now: Instant, size: usize) -> bool {
        let queue = self.average * self.waiting / u32::try_from(size).unwrap_or(u32::MAX);
        !self.is_slow()
            && queue <= MOST_QUEUE
            && self.stands_still_for(now) <= MOST_QUEUE + self.average
    }

    /// For how long calls have been under way, and none has ended.
    fn stands_still_for(&self, now: Instant) -> Duration {
        let begun = self.begun.values().min().copied();
        begun
            .max(begun.and(self.ended))
            .map(|since| now - since)
            .unwrap_or_default()
    }

    /// Who joins the queue was told that it is short.
    fn most_wait(&self) -> Duration {
        (2 * (MOST_QUEUE + self.average)).min(MOST_WAIT)
    }
}

impl Place {
    /// The call begins only now: what it had to wait for until now is no sign of a slow
    /// destination.
    pub fn begin(&mut self) {
        self.began = Instant::now();
        self.desk.calls.lock().begun.insert(self.number, self.began);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.calls.fetch_sub(1, Ordering::Relaxed);
        let took = self.began.elapsed();
        let mut calls = self.desk.calls.lock();
        calls.begun.remove(&self.number);
        let is_first = calls.average.is_zero();
        calls.ended = Some(Instant::now());
        calls.average = if is_first {
            took
        } else {
            calls.average.mul_f64(1.0 - LAST_WEIGHS) + took.mul_f64(LAST_WEIGHS)
        };
    }
}

/// Counts one that waits, also where it gives up.
struct Waiting(Arc<Desk>);

impl Waiting {
    fn new(desk: &Arc<Desk>) -> Self {
        desk.calls.lock().waiting += 1;
        Self(desk.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.calls.lock().waiting -= 1;
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
        let (places, room) = (Places::default(), Room::of(256));
        let mut taken = Vec::new();
        for _ in 0..SHARE {
            taken.push(places.take(&destination(), None, &room).await.unwrap());
        }
        assert!(
            places.take(&destination(), None, &room).await.is_err(),
            "nobody leaves"
        );
        assert!(
            places
                .take(&Destination::channel("apps", "hook", "other"), None, &room)
                .await
                .is_ok()
        );
        let hook = destination();
        let (next, ()) = tokio::join!(places.take(&hook, None, &room), async { drop(taken.pop()) });
        assert!(next.is_ok(), "one has left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_can_say_how_many() {
        let (places, room) = (Places::default(), Room::of(256));
        let _one = places.take(&destination(), Some(1), &room).await.unwrap();
        assert!(places.take(&destination(), Some(1), &room).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn destinations_that_are_called_no_more_are_forgotten_and_the_others_are_not() {
        let (places, room) = (Places::default(), Room::of(256));
        let _held = places.take(&destination(), Some(1), &room).await.unwrap();
        for number in 0..10_000 {
            places
                .take(
                    &Destination::channel("apps", "hook", &number.to_string()),
                    None,
                    &room,
                )
                .await
                .unwrap();
        }
        assert!(places.all.lock().len() <= 1000);
        assert!(
            places.take(&destination(), Some(1), &room).await.is_err(),
            "its only place is taken still"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn destinations_that_hang_before_it_is_known_leave_room_for_another() {
        let (places, room) = (Places::default(), Room::of(256));
        let mut hanging = Vec::new();
        let mut counts = Vec::new();
        for number in 0..8 {
            let hook = Destination::channel("apps", "hook", &number.to_string());
            let before = hanging.len();
            for _ in 0..100 {
                let taken =
                    tokio::time::timeout(Duration::ZERO, places.take(&hook, None, &room)).await;
                hanging.extend(taken.ok().and_then(Result::ok));
            }
            counts.push(hanging.len() - before);
        }
        assert_eq!(counts, [64, 64, 43, 29, 19, 13, 8, 6]);
        drop(hanging);
        assert_eq!(
            room.calls.load(Ordering::Relaxed),
            0,
            "who leaves makes room"
        );
    }

    #[test]
    fn each_gets_half_of_what_is_left_and_the_slow_leave_a_part() {
        for (capacity, all, begun, is_slow, has_room) in [
            (256, 0, 0, false, true),
            (256, 63, 63, false, true),
            (256, 128, 63, false, true),
            (256, 128, 64, false, false),
            (256, 255, 0, false, true),
            (256, 256, 0, false, false),
            (256, 128, 55, true, true),
            (256, 128, 56, true, false),
            (256, 238, 0, true, true),
            (256, 239, 0, true, false),
            (1, 0, 0, true, true),
            (1, 1, 0, false, false),
        ] {
            let room = Room {
                capacity,
                calls: Arc::new(all.into()),
            };
            assert_eq!(
                room.has_for(begun, is_slow),
                has_room,
                "{begun} of {all} of {capacity}, slow: {is_slow}"
            );
        }
    }

    #[test]
    fn nobody_waits_for_a_slow_destination() {
        let now = Instant::now();
        let slow = Calls {
            average: Duration::from_secs(5),
            ..Calls::default()
        };
        assert!(slow.is_slow() && !slow.joins_the_queue(now, 64));
        let brisk = Calls {
            average: Duration::from_millis(20),
            waiting: 160,
            ..Calls::default()
        };
        assert!(
            brisk.joins_the_queue(now, 64),
            "160 of 20 ms on 64 places are 50 ms"
        );
        assert!(
            !Calls {
                waiting: 164,
                ..brisk
            }
            .joins_the_queue(now, 64)
        );
    }

    #[test]
    fn nobody_waits_where_nothing_ends() {
        let (began, ms) = (Instant::now(), Duration::from_millis);
        let begun = || BTreeMap::from([(1, began), (2, began + ms(30))]);
        for (average, ended, at, waits) in [
            (0, None, 50, true),
            (0, None, 51, false),
            (300, None, 350, true),
            (300, None, 351, false),
            (2, Some(900), 952, true),
            (2, Some(900), 953, false),
        ] {
            let ended = ended.map(|millis| began + ms(millis));
            let calls = Calls {
                begun: begun(),
                average: ms(average),
                ended,
                ..Calls::default()
            };
            assert_eq!(
                calls.joins_the_queue(began + ms(at), 64),
                waits,
                "{average} {ended:?} {at}"
            );
        }
        let idle = Calls {
            ended: Some(began),
            ..Calls::default()
        };
        assert!(
            idle.joins_the_queue(began + ms(9000), 64),
            "nothing is under way"
        );
    }

    #[tokio::test]
    async fn those_that_find_no_place_come_back_one_after_the_other() {
        let desk = Places::default().desk(&destination(), Some(1));
        desk.calls.lock().average = Duration::from_secs(3);
        let waits = [desk.comes_back(), desk.comes_back(), desk.comes_back()]
            .map(|wait| wait.as_secs_f64().round());
        assert_eq!(waits, [3.0, 6.0, 9.0]);
        desk.calls.lock().next = Some(Instant::now() + 100 * LATEST);
        assert!(
            (LATEST / 2..=LATEST).contains(&desk.comes_back()),
            "nobody is sent away for hours"
        );
        desk.calls.lock().finds_one_at_once(1);
        assert_eq!(
            desk.comes_back().as_secs_f64().round(),
            3.0,
            "the crowd is gone"
        );
    }
}
