//! Limits the memory of all bodies that arrive at the same time.
//!
//! Bytes count when they arrive, not when they are announced: a sender that only announces a large
//! body holds nothing. When the memory is used up, the body that has been open for the longest time
//! is given up for the newer one: it is the one whose sender is most likely to stall. The last part
//! of the memory is for the beginning of each body, so that small events are accepted beside large
//! ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::runtime::metrics::Gauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A body up to this size may use all of the memory.
const SMALL: usize = 64 << 10;
/// The part of the memory that only small bodies may use.
const PART_FOR_SMALL: usize = 8;
/// A body is not given up within this time.
const PROTECTED_FOR: Duration = Duration::from_secs(1);

/// The memory for bodies.
pub struct BodyBudget {
    most: usize,
    state: Mutex<State>,
    used: Gauge,
}

#[derive(Default)]
struct State {
    used: usize,
    next: u64,
    /// By age.
    arriving: BTreeMap<u64, Arriving>,
}

struct Arriving {
    bytes: usize,
    since: Instant,
    is_complete: bool,
    given_up: CancellationToken,
}

/// The memory of one body, until it is dropped.
pub(crate) struct HeldBody {
    budget: Arc<BodyBudget>,
    id: u64,
    bytes: usize,
    given_up: CancellationToken,
}

/// The memory is used up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl BodyBudget {
    /// A budget of this many bytes. `used` shows how many are in use.
    pub fn new(most: usize, used: Gauge) -> Arc<Self> {
        Arc::new(Self {
            most,
            state: Mutex::default(),
            used,
        })
    }

    /// A body that has begun.
    pub(crate) fn begin(self: &Arc<Self>) -> HeldBody {
        let given_up = CancellationToken::new();
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let arriving = Arriving {
            bytes: 0,
            since: Instant::now(),
            is_complete: false,
            given_up: given_up.clone(),
        };
        state.arriving.insert(id, arriving);
        HeldBody {
            budget: self.clone(),
            id,
            bytes: 0,
            given_up,
        }
    }

    fn show(&self, state: &State) {
        self.used.set(i64::try_from(state.used).unwrap_or(i64::MAX));
    }
}

impl State {
    /// Gives up the oldest body, except this one, those that have just begun and those that are
    /// complete: nobody stops their handling.
    fn give_up_oldest(&mut self, except: u64) -> Result<(), Full> {
        let is_old = |arriving: &Arriving| {
            let is_slow = arriving.since.elapsed() >= PROTECTED_FOR;
            arriving.bytes > 0 && !arriving.is_complete && is_slow
        };
        let mut bodies = self.arriving.iter();
        let oldest = bodies.find(|(id, arriving)| **id != except && is_old(arriving));
        let id = *oldest.ok_or(Full)?.0;
        if let Some(oldest) = self.arriving.remove(&id) {
            oldest.given_up.cancel();
            self.used -= oldest.bytes;
        }
        Ok(())
    }
}

impl HeldBody {
    /// Takes memory, so that the body holds this many bytes.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let more = bytes.saturating_sub(self.bytes);
        let most = match bytes {
            0..=SMALL => self.budget.most,
            _ => self.budget.most - self.budget.most / PART_FOR_SMALL,
        };
        let mut state = self.budget.state.lock();
        while state.used + more > most {
            state.give_up_oldest(self.id)?;
        }
        let Some(arriving) = state.arriving.get_mut(&self.id) else {
            return Err(Full);
        };
        arriving.bytes += more;
        state.used += more;
        self.bytes += more;
        self.budget.show(&state);
        Ok(())
    }

    /// The body has arrived. It keeps its memory until it is dropped.
    pub(crate) fn complete(&self) {
        let mut state = self.budget.state.lock();
        if let Some(arriving) = state.arriving.get_mut(&self.id) {
            arriving.is_complete = true;
        }
    }

    /// Waits until this body has to be given up for a newer one.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        if let Some(arriving) = state.arriving.remove(&self.id) {
            state.used -= arriving.bytes;
        }
        self.budget.show(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_body_is_given_up_for_a_newer_one_but_not_at_once() {
        let budget = BodyBudget::new(8 * MIB, Gauge::default());
        let mut bodies = [budget.begin(), budget.begin(), budget.begin()];
        assert_eq!(bodies[0].grow(3 * MIB), Ok(()));
        assert_eq!(bodies[1].grow(3 * MIB), Ok(()));
        assert_eq!(bodies[2].grow(3 * MIB), Err(Full));
        tokio::time::advance(PROTECTED_FOR).await;
        assert_eq!(bodies[2].grow(3 * MIB), Ok(()));
        let given_up = bodies.each_ref().map(|body| body.given_up.is_cancelled());
        assert_eq!(given_up, [true, false, false]);
        assert_eq!(bodies[0].grow(3 * MIB + 1), Err(Full));
        drop(bodies);
        assert_eq!((budget.state.lock().used, budget.used.get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_leave_a_part_for_small_ones() {
        let budget = BodyBudget::new(8 * MIB, Gauge::default());
        let mut large = budget.begin();
        assert_eq!(large.grow(7 * MIB), Ok(()));
        assert_eq!(large.grow(7 * MIB + 1), Err(Full));
        let mut small: Vec<HeldBody> = (0..16).map(|_| budget.begin()).collect();
        assert!(small.iter_mut().all(|body| body.grow(SMALL) == Ok(())));
        assert_eq!(budget.begin().grow(1), Err(Full));
        drop(small);
        assert_eq!(budget.begin().grow(1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_bytes_is_not_given_up() {
        let budget = BodyBudget::new(MIB, Gauge::default());
        let announced = budget.begin();
        tokio::time::advance(PROTECTED_FOR).await;
        assert_eq!(budget.begin().grow(2 * MIB), Err(Full));
        assert!(!announced.given_up.is_cancelled());
    }
}
