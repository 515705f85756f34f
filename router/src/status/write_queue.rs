//! Decides which object's status is written next, and when. Pure: the current time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often the times and the error of an object are written.
pub const UPDATE_PERIOD: Duration = Duration::from_secs(60);
/// The interval between such writes, over all objects: five per second.
const UPDATE_INTERVAL: Duration = Duration::from_millis(200);
/// The interval between writes of changed conditions, over all objects: fifty per second, so 2,000
/// new objects take 40 s.
const CONDITION_INTERVAL: Duration = Duration::from_millis(20);

/// The pause after the first write that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Enforces a minimum interval between writes.
#[derive(Clone, Copy, Debug)]
pub struct MinInterval {
    every: Duration,
    next: Option<Instant>,
}

impl MinInterval {
    /// Allows the first write at once.
    pub fn new(every: Duration) -> Self {
        Self { every, next: None }
    }

    /// When the next write is allowed.
    pub fn next_at(&self, now: Instant) -> Instant {
        self.next.map_or(now, |next| next.max(now))
    }

    /// Records a write.
    pub fn record(&mut self, now: Instant) {
        self.next = Some(now + self.every);
    }
}

/// The pause after failed writes, which doubles with each consecutive failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Records a failure.
    pub fn fail(&mut self, now: Instant) {
        self.until = Some(
            now + FIRST_PAUSE
                .saturating_mul(1 << self.failures.min(10))
                .min(MAX_PAUSE),
        );
        self.failures = self.failures.saturating_add(1);
    }

    /// Records a success.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Delays a write that is due at `time` until the pause is over.
    pub fn after(&self, time: Instant) -> Instant {
        self.until.map_or(time, |until| until.max(time))
    }
}

/// Objects whose status must be written.
#[derive(Debug)]
pub struct WriteQueue<K> {
    conditions: VecDeque<K>,
    has_condition: HashSet<K>,
    /// Ordered by when each is due.
    updates: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    /// When each object was last written because of an update.
    written: HashMap<K, Instant>,
    condition_interval: MinInterval,
    update_interval: MinInterval,
}

impl<K> Default for WriteQueue<K> {
    fn default() -> Self {
        Self {
            conditions: VecDeque::new(),
            has_condition: HashSet::new(),
            updates: BTreeSet::new(),
            due: HashMap::new(),
            written: HashMap::new(),
            condition_interval: MinInterval::new(CONDITION_INTERVAL),
            update_interval: MinInterval::new(UPDATE_INTERVAL),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> WriteQueue<K> {
    /// Queues an object whose condition changed, to be written as soon as possible.
    pub fn push_condition(&mut self, key: &K) {
        if self.has_condition.insert(key.clone()) {
            self.conditions.push_back(key.clone());
        }
    }

    /// Queues an object with new times or errors, to be written a minute after the last such write.
    pub fn push_update(&mut self, key: &K, now: Instant) {
        if self.has_condition.contains(key) || self.due.contains_key(key) {
            return;
        }
        let due = self
            .written
            .get(key)
            .map_or(now, |written| (*written + UPDATE_PERIOD).max(now));
        self.due.insert(key.clone(), due);
        self.updates.insert((due, key.clone()));
    }

    /// Takes the object to write now, if any. It counts as written; call
    /// [`WriteQueue::push_condition`] if the write fails.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        if self.when(now)? > now {
            return None;
        }
        let key = if !self.conditions.is_empty() && self.condition_interval.next_at(now) <= now {
            self.condition_interval.record(now);
            self.conditions.pop_front()?
        } else {
            self.update_interval.record(now);
            self.updates.first()?.1.clone()
        };
        // A write covers the whole status, so other pending changes of the object are done too.
        self.has_condition.remove(&key);
        if let Some(due) = self.due.remove(&key) {
            self.updates.remove(&(due, key.clone()));
            self.written.insert(key.clone(), now);
        }
        Some(key)
    }

    /// When the next write is due.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        let condition = (!self.conditions.is_empty()).then(|| self.condition_interval.next_at(now));
        let updates = self
            .updates
            .first()
            .map(|(due, _)| (*due).max(self.update_interval.next_at(now)));
        condition.into_iter().chain(updates).min()
    }

    /// Removes an object that no longer exists.
    pub fn remove(&mut self, key: &K) {
        self.written.remove(key);
        if self.has_condition.remove(key) {
            self.conditions.retain(|other| other != key);
        }
        if let Some(due) = self.due.remove(key) {
            self.updates.remove(&(due, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything that is due until `until`; returns it with its time in milliseconds.
    fn run(queue: &mut WriteQueue<u32>, from: Instant, until: Duration) -> Vec<(u128, u32)> {
        let (mut taken, mut now) = (Vec::new(), from);
        while let Some(when) = queue.when(now).filter(|when| *when <= from + until) {
            now = when;
            let key = queue.take(now).expect("a write is due");
            taken.push(((now - from).as_millis(), key));
        }
        taken
    }

    #[test]
    fn a_burst_of_updates_is_written_at_once_and_then_once_a_minute() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        let mut taken = Vec::new();
        for second in 0..150 {
            let now = start + Duration::from_secs(second);
            queue.push_update(&1, now);
            taken.extend(queue.take(now).map(|_| second));
        }
        assert_eq!(taken, [0, 60, 120]);
    }

    #[test]
    fn updates_of_all_objects_are_limited_to_five_writes_a_second() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        (0..1000).for_each(|key| queue.push_update(&key, start));
        let taken = run(&mut queue, start, Duration::from_secs(10));
        assert_eq!(taken.len(), 51);
        assert!(
            taken.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 200),
            "{taken:?}"
        );
    }

    #[test]
    fn conditions_go_first_and_include_updates() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        for key in [1, 2, 3] {
            queue.push_update(&key, start);
        }
        queue.push_condition(&3);
        queue.push_condition(&3);
        assert_eq!(
            run(&mut queue, start, Duration::from_secs(300)),
            [(0, 3), (0, 1), (200, 2)]
        );
        queue.push_update(&3, start + Duration::from_secs(1));
        assert_eq!(
            queue.when(start + Duration::from_secs(1)),
            Some(start + UPDATE_PERIOD),
            "it was written at 0"
        );
    }

    #[test]
    fn the_first_update_does_not_wait_after_a_condition() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        queue.push_condition(&1);
        assert_eq!(queue.take(start), Some(1));
        queue.push_update(&1, start);
        assert_eq!(queue.take(start), Some(1));
    }

    #[test]
    fn a_condition_that_changes_again_is_written_again_at_once() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        queue.push_condition(&1);
        assert_eq!(queue.take(start), Some(1));
        queue.push_condition(&1);
        assert_eq!(run(&mut queue, start, Duration::from_secs(9)), [(20, 1)]);
    }

    #[test]
    fn a_removed_object_is_not_written() {
        let (mut queue, start) = (WriteQueue::default(), Instant::now());
        queue.push_condition(&1);
        queue.push_update(&2, start);
        queue.remove(&1);
        queue.remove(&2);
        assert_eq!((queue.when(start), queue.take(start)), (None, None));
    }

    #[test]
    fn pauses_grow_with_failures_and_end_with_a_success() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            backoff.fail(now);
            pauses.push((backoff.after(now) - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(
            backoff.after(now + Duration::from_secs(40)),
            now + Duration::from_secs(40)
        );
        backoff.succeed();
        assert_eq!(backoff.after(now), now);
    }
}
