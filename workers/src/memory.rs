//! Limits the memory of the deliveries in flight.
//!
//! A delivery reserves what it may need before its event is read and its request is rendered. One
//! that does not fit is parked for a moment, so that it holds nothing and nobody waits for it.
//! Large deliveries leave a part for small ones. A namespace that holds some leaves as much as it
//! holds, and a part for namespaces that hold nothing, however many others hold all the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::model::flux;
use tidings_core::model::jitter::jitter;
use tidings_core::model::metadata::Metadata;
use tidings_core::model::stored_event::MAX_BODY_BYTES;
use tidings_core::runtime::metrics::Gauge;
use tidings_core::{Event, Message as _};
use tokio::time::Instant;

use crate::message::render::Content;

/// A delivery that needs more is large.
const LARGE: usize = 3 << 19;
/// The part of the memory that only small deliveries may use.
const PART_FOR_SMALL: usize = 4;
/// The part of the memory that only the first delivery of a namespace may use.
const PART_FOR_FIRST: usize = 8;
/// What a delivery needs besides its event: buffers of its connection, and the answer of its
/// service, whose headers alone may have 408 KiB.
const FIXED: usize = 512 << 10;
/// The size of the largest event, for deliveries that do not state the size of theirs.
const LARGEST_EVENT: usize = MAX_BODY_BYTES;
/// How often the memory can have space for the largest delivery at least.
const SMALLEST_BUDGET: usize = needed_for(LARGEST_EVENT, COPIES_OF_EVENT) * 2;
/// The event, and its JSON in which each byte may need six.
const COPIES_OF_EVENT: usize = 7;
/// The event, a copy without mentions, the values and the result of a template, and the parts of a
/// body, which services limit.
const COPIES_OF_TEXT: usize = 6;
/// Retries of deliveries that did not fit are this far apart, so that many of them do not keep the
/// bus busy.
const APART: Duration = Duration::from_millis(20);
/// The shortest and longest time that a delivery which did not fit is parked.
const MIN_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// The memory for deliveries in flight.
pub struct MemoryBudget {
    most: usize,
    state: Mutex<State>,
    used: Gauge,
}

struct State {
    used: usize,
    by_large: usize,
    by_namespace: HashMap<String, usize>,
    /// When the delivery that did not fit last is retried.
    last_retry: Instant,
}

/// The memory of one delivery, until it is dropped.
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    namespace: String,
    bytes: Mutex<usize>,
}

tokio::task_local! {
    /// The memory of the delivery that this task attempts.
    static CURRENT: Arc<Reservation>;
}

/// Attempts a delivery with its memory, which [`grow`] can enlarge.
pub async fn within<T>(memory: Arc<Reservation>, attempt: impl Future<Output = T>) -> T {
    CURRENT.scope(memory, attempt).await
}

/// Gives back what the delivery that this task attempts does not need.
pub fn shrink_to(bytes: usize) {
    // Outside of a worker there is nothing to give back.
    let _ = CURRENT.try_with(|reservation| reservation.shrink_to(bytes));
}

/// Takes more memory for the delivery that this task attempts, for the large answer of a service.
/// Returns whether there is some. Outside of a worker there is always some.
pub fn grow(more: usize) -> bool {
    CURRENT
        .try_with(|reservation| reservation.grow(more))
        .unwrap_or(true)
}

/// The memory that a delivery needs. `carried` is the size of its message, and `event` that of an
/// event that has to be read.
pub fn needed(carried: usize, event: Option<usize>, content: Content) -> usize {
    let copies = match content {
        Content::Event => COPIES_OF_EVENT,
        Content::Text(_) => COPIES_OF_TEXT,
    };
    // The message is decoded, and encoded again to be parked.
    3 * carried + needed_for(event.unwrap_or(carried), copies)
}

/// The memory that a delivery of a large event needs after the event was read. Few events need the
/// escapes that [`needed`] expects.
pub fn needed_for_event(carried: usize, event: &Event, metadata: &Metadata) -> usize {
    let json = flux::json_size(event, metadata);
    // The event is held twice: its metadata is also merged with that of the Alert.
    FIXED + 3 * carried + 2 * event.encoded_len() + json
}

/// The size of an event that a delivery does not carry. Older deliveries do not state it.
pub fn stated_size(event_bytes: u64) -> usize {
    match usize::try_from(event_bytes) {
        Ok(bytes) if bytes > 0 => bytes.min(LARGEST_EVENT),
        _ => LARGEST_EVENT,
    }
}

const fn needed_for(event: usize, copies: usize) -> usize {
    FIXED + copies * event
}

impl MemoryBudget {
    /// A budget of this many bytes. `used` shows how many are reserved.
    pub fn new(most: usize, used: Gauge) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(SMALLEST_BUDGET),
            state: Mutex::new(State {
                used: 0,
                by_large: 0,
                by_namespace: HashMap::new(),
                last_retry: Instant::now(),
            }),
            used,
        })
    }

    /// Whether more deliveries should be pulled.
    pub fn has_room(&self) -> bool {
        self.state.lock().used + LARGE <= self.most
    }

    /// Reserves memory for a delivery of a namespace.
    ///
    /// # Errors
    /// It does not fit: park the delivery for this long.
    pub fn reserve(
        self: &Arc<Self>,
        namespace: &str,
        bytes: usize,
    ) -> Result<Reservation, Duration> {
        // What needs more than the share of its namespace goes alone.
        let bytes = bytes.min(self.most / 2);
        let mut state = self.state.lock();
        if !self.fits(&state, namespace, bytes) {
            return Err(state.retry_after());
        }
        state.change(namespace, bytes, true);
        self.show(&state);
        Ok(Reservation {
            budget: self.clone(),
            namespace: namespace.to_owned(),
            bytes: Mutex::new(bytes),
        })
    }

    fn fits(&self, state: &State, namespace: &str, bytes: usize) -> bool {
        let of_namespace = state.by_namespace.get(namespace).copied();
        let of_namespace = of_namespace.unwrap_or_default();
        let is_first = of_namespace == 0;
        let most_of_large = self.most - self.most / PART_FOR_SMALL;
        let most = match is_first && bytes <= LARGE {
            true => self.most,
            false => self.most - self.most / PART_FOR_FIRST,
        };
        let left_by_others = most.saturating_sub(state.used - of_namespace);
        state.used + bytes <= most
            && match is_first {
                true => bytes <= self.most / 2,
                false => of_namespace + bytes <= left_by_others / 2,
            }
            && (bytes <= LARGE || state.by_large + bytes <= most_of_large)
    }

    fn show(&self, state: &State) {
        self.used.set(i64::try_from(state.used).unwrap_or(i64::MAX));
    }
}

impl State {
    fn change(&mut self, namespace: &str, bytes: usize, is_more: bool) {
        let changed = |value: usize| match is_more {
            true => value + bytes,
            false => value.saturating_sub(bytes),
        };
        self.used = changed(self.used);
        if bytes > LARGE {
            self.by_large = changed(self.by_large);
        }
        let of_namespace = changed(
            self.by_namespace
                .get(namespace)
                .copied()
                .unwrap_or_default(),
        );
        match of_namespace {
            0 => self.by_namespace.remove(namespace),
            _ => self.by_namespace.insert(namespace.to_owned(), of_namespace),
        };
    }

    /// Deliveries that did not fit are retried one after the other.
    fn retry_after(&mut self) -> Duration {
        let now = Instant::now();
        self.last_retry = (self.last_retry + APART).clamp(now + MIN_RETRY, now + MAX_RETRY);
        match self.last_retry - now {
            MAX_RETRY => MAX_RETRY / 2 + jitter(MAX_RETRY / 2),
            wait => wait,
        }
    }
}

impl Reservation {
    fn shrink_to(&self, needed: usize) {
        let mut state = self.budget.state.lock();
        let mut bytes = self.bytes.lock();
        state.change(&self.namespace, *bytes, false);
        *bytes = needed.min(*bytes);
        state.change(&self.namespace, *bytes, true);
        self.budget.show(&state);
    }

    fn grow(&self, more: usize) -> bool {
        let mut state = self.budget.state.lock();
        let mut bytes = self.bytes.lock();
        state.change(&self.namespace, *bytes, false);
        let fits = self.budget.fits(&state, &self.namespace, *bytes + more);
        if fits {
            *bytes += more;
        }
        state.change(&self.namespace, *bytes, true);
        self.budget.show(&state);
        fits
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        state.change(&self.namespace, *self.bytes.lock(), false);
        self.budget.show(&state);
    }
}

#[cfg(test)]
mod tests {
    use tidings_rules::template::Escape;

    use super::*;

    const MIB: usize = 1 << 20;

    fn budget() -> Arc<MemoryBudget> {
        MemoryBudget::new(96 * MIB, Gauge::default())
    }

    #[test]
    fn the_largest_event_fits_into_the_smallest_budget() {
        let budget = MemoryBudget::new(0, Gauge::default());
        let largest = needed(8 * 1024, Some(LARGEST_EVENT), Content::Event);
        let one = budget.reserve("a", largest);
        assert!(one.is_ok());
        assert!(budget.reserve("a", largest).is_err());
        drop(one);
        assert!(budget.reserve("a", largest).is_ok());
    }

    /// Reserves as often as possible.
    fn fill(budget: &Arc<MemoryBudget>, namespace: &str, bytes: usize) -> Vec<Reservation> {
        std::iter::from_fn(|| budget.reserve(namespace, bytes).ok()).collect()
    }

    #[test]
    fn one_namespace_gets_at_most_half_of_what_others_leave() {
        let budget = budget();
        let large = fill(&budget, "a", 22 * MIB);
        let small = fill(&budget, "a", MIB);
        assert_eq!((large.len(), small.len()), (1, 20), "half of 84 MiB");
        let of_b = fill(&budget, "b", MIB);
        assert_eq!(of_b.len(), 21);
        drop((large, small, of_b));
        assert_eq!(budget.used.get(), 0);
        assert!(budget.state.lock().by_namespace.is_empty());
    }

    #[test]
    fn a_namespace_that_holds_nothing_gets_memory_whatever_others_hold() {
        let budget = budget();
        let hostile = |number: usize| {
            let namespace = format!("hostile-{number}");
            let large = fill(&budget, &namespace, 22 * MIB);
            (large, fill(&budget, &namespace, LARGE))
        };
        let _held: Vec<_> = (0..10).map(hostile).collect();
        assert!(budget.reserve("neighbor", MIB).is_ok());
    }

    #[tokio::test]
    async fn a_delivery_grows_by_the_large_answer_of_its_service() {
        let budget = budget();
        let memory = Arc::new(budget.reserve("a", MIB).unwrap());
        let grown = within(memory.clone(), async { [grow(8 * MIB), grow(40 * MIB)] }).await;
        assert_eq!(grown, [true, false]);
        assert_eq!(budget.used.get(), 9 << 20);
        within(memory.clone(), async { shrink_to(2 * MIB) }).await;
        assert_eq!(budget.used.get(), 2 << 20);
        drop(memory);
        assert_eq!((budget.used.get(), budget.state.lock().by_large), (0, 0));
        assert!(grow(1000 * MIB), "outside of an attempt");
    }

    #[test]
    fn large_deliveries_leave_a_part_for_small_ones() {
        let budget = budget();
        let namespaces = ["a", "b", "c", "d", "e", "f"];
        let large = namespaces.map(|namespace| budget.reserve(namespace, 18 * MIB).ok());
        assert_eq!(large.iter().flatten().count(), 4);
        let small = ["g", "h", "i", "j"].map(|namespace| budget.reserve(namespace, LARGE));
        assert!(small.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_that_do_not_fit_are_retried_one_after_the_other() {
        let budget = budget();
        let _all = [budget.reserve("a", 48 * MIB), budget.reserve("b", 24 * MIB)];
        let wait = || budget.reserve("b", 24 * MIB + 1).err().unwrap();
        assert_eq!([wait(), wait()], [MIN_RETRY, MIN_RETRY + APART]);
        let mut last = MIN_RETRY;
        for _ in 0..10_000 {
            last = wait();
        }
        assert!((MAX_RETRY / 2..=MAX_RETRY).contains(&last));
    }

    #[test]
    fn a_delivery_needs_more_than_its_event() {
        let text = Content::Text(Escape::Entities);
        assert_eq!(needed(0, Some(MIB), Content::Event), FIXED + 7 * MIB);
        assert_eq!(needed(0, Some(MIB), text), FIXED + 6 * MIB);
        assert_eq!(needed(100, None, Content::Event), FIXED + 1000);
        assert_eq!(
            (stated_size(0), stated_size(70_000)),
            (LARGEST_EVENT, 70_000)
        );
    }
}
