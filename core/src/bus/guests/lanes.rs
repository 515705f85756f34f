//! In which order requests of guests are answered: each guest has a lane of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The most requests that are answered at a time, of all guests and of one.
const MOST: usize = 16;
const MOST_OF_GUEST: usize = 2;
/// The most requests that are answered or wait, of all guests and of one.
const MOST_WAITING: usize = 1024;
const MOST_WAITING_OF_GUEST: usize = 16;
/// A request waits at most twice this long.
const WAITS_FOR: Duration = Duration::from_secs(1);

/// Who waits.
pub(super) struct Lanes {
    all: Arc<Semaphore>,
    of_guests: Mutex<HashMap<String, Lane>>,
}

struct Lane {
    turns: Arc<Semaphore>,
    waiting: usize,
}

/// A request that waits, or is answered. The place is free again when it is dropped.
pub(super) struct Place {
    lanes: Arc<Lanes>,
    guest: String,
    turns: Arc<Semaphore>,
}

/// The request may be answered, until this is dropped.
pub(super) struct Turn {
    _of_guest: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MOST)),
            of_guests: Mutex::default(),
        }
    }
}

impl Lanes {
    /// Begins to wait. `None` if too many wait.
    pub(super) fn enter(self: &Arc<Self>, guest: &str) -> Option<Place> {
        let mut of_guests = self.of_guests.lock();
        let waiting: usize = of_guests.values().map(|lane| lane.waiting).sum();
        let lane = of_guests.get(guest);
        let of_guest = lane.map_or(0, |lane| lane.waiting);
        if waiting >= MOST_WAITING || of_guest >= MOST_WAITING_OF_GUEST {
            return None;
        }
        let lane = of_guests.entry(guest.to_owned()).or_insert_with(|| Lane {
            turns: Arc::new(Semaphore::new(MOST_OF_GUEST)),
            waiting: 0,
        });
        lane.waiting += 1;
        Some(Place {
            lanes: self.clone(),
            guest: guest.to_owned(),
            turns: lane.turns.clone(),
        })
    }
}

impl Place {
    /// Waits until the request may be answered. `None` if that takes too long.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let of_guest = timeout(WAITS_FOR, self.turns.clone().acquire_owned());
        let of_guest = of_guest.await.ok()?.ok()?;
        let of_all = timeout(WAITS_FOR, self.lanes.all.clone().acquire_owned());
        Some(Turn {
            _of_guest: of_guest,
            _of_all: of_all.await.ok()?.ok()?,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_guests = self.lanes.of_guests.lock();
        if let Some(lane) = of_guests.get_mut(&self.guest) {
            lane.waiting -= 1;
            if lane.waiting == 0 {
                of_guests.remove(&self.guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_floods_holds_up_no_other() {
        let lanes = Arc::new(Lanes::default());
        let flood: Vec<_> = (0..MOST_WAITING_OF_GUEST)
            .map(|_| lanes.enter("a").unwrap())
            .collect();
        assert!(lanes.enter("a").is_none());
        let first = flood[0].turn().await.unwrap();
        let _second = flood[1].turn().await.unwrap();
        assert!(flood[2].turn().await.is_none(), "one guest has two turns");

        let other = lanes.enter("b").unwrap();
        assert!(other.turn().await.is_some());
        drop(first);
        assert!(flood[2].turn().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_has_left_takes_no_room() {
        let lanes = Arc::new(Lanes::default());
        let places: Vec<_> = (0..MOST_WAITING)
            .map(|number| lanes.enter(&number.to_string()).unwrap())
            .collect();
        assert!(lanes.enter("one more").is_none());
        drop(places);
        assert!(lanes.of_guests.lock().is_empty());
        assert!(lanes.enter("one more").is_some());
    }
}
