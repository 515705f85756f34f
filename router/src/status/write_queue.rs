//! Which object's status is written next, and when. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What has only news is written once in this time.
pub const NEWS_EVERY: Duration = Duration::from_secs(60);
/// All objects together: five news a second.
const NEWS_APART: Duration = Duration::from_millis(200);
/// Conditions are told at once, at most fifty a second: two thousand objects that are new together
/// take 40 s.
const CONDITIONS_APART: Duration = Duration::from_millis(20);

/// The pause after the first write that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// Lets something happen at most once in a time, in total.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    every: Duration,
    next: Option<Instant>,
}

impl Gap {
    /// Once in so long.
    pub fn new(every: Duration) -> Self {
        Self { every, next: None }
    }

    /// When the next one may happen.
    pub fn opens(&self, now: Instant) -> Instant {
        self.next.map_or(now, |next| next.max(now))
    }

    /// It has happened.
    pub fn pass(&mut self, now: Instant) {
        self.next = Some(now + self.every);
    }
}

/// The pause after what has failed: it doubles with each failure that follows at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// It has failed.
    pub fn fail(&mut self, now: Instant) {
        self.until = Some(
            now + FIRST_PAUSE
                .saturating_mul(1 << self.failures.min(10))
                .min(MOST_PAUSE),
        );
        self.failures = self.failures.saturating_add(1);
    }

    /// It has worked.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// When it may be tried that would otherwise be tried at this time.
    pub fn after(&self, time: Instant) -> Instant {
        self.until.map_or(time, |until| until.max(time))
    }
}

/// Objects whose status is to be written.
#[derive(Debug)]
pub struct Pacer<K> {
    conditions: VecDeque<K>,
    waiting: HashSet<K>,
    /// By the time from which each may be written.
    news: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    /// When news of each was last written.
    written: HashMap<K, Instant>,
    condition_gap: Gap,
    news_gap: Gap,
}

impl<K> Default for Pacer<K> {
    fn default() -> Self {
        Self {
            conditions: VecDeque::new(),
            waiting: HashSet::new(),
            news: BTreeSet::new(),
            due: HashMap::new(),
            written: HashMap::new(),
            condition_gap: Gap::new(CONDITIONS_APART),
            news_gap: Gap::new(NEWS_APART),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Pacer<K> {
    /// A condition has changed: to be written as soon as it may.
    pub fn hurry(&mut self, key: &K) {
        if self.waiting.insert(key.clone()) {
            self.conditions.push_back(key.clone());
        }
    }

    /// There is news: to be written a minute after the last one, at once where there was none.
    pub fn want(&mut self, key: &K, now: Instant) {
        if self.waiting.contains(key) || self.due.contains_key(key) {
            return;
        }
        let due = self
            .written
            .get(key)
            .map_or(now, |written| (*written + NEWS_EVERY).max(now));
        self.due.insert(key.clone(), due);
        self.news.insert((due, key.clone()));
    }

    /// The object to write now, if there is one. It counts as written; call [`Pacer::hurry`] if it
    /// could not be.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        if self.when(now)? > now {
            return None;
        }
        let key = if !self.conditions.is_empty() && self.condition_gap.opens(now) <= now {
            self.condition_gap.pass(now);
            self.conditions.pop_front()?
        } else {
            self.news_gap.pass(now);
            self.news.first()?.1.clone()
        };
        // Everything is written at a time, so what else was waiting for this object is done too.
        self.waiting.remove(&key);
        if let Some(due) = self.due.remove(&key) {
            self.news.remove(&(due, key.clone()));
            self.written.insert(key.clone(), now);
        }
        Some(key)
    }

    /// When there is something to take.
    pub fn when(&self, now: Instant) -> Option<Instant> {
        let condition = (!self.conditions.is_empty()).then(|| self.condition_gap.opens(now));
        let news = self
            .news
            .first()
            .map(|(due, _)| (*due).max(self.news_gap.opens(now)));
        condition.into_iter().chain(news).min()
    }

    /// The object is no more.
    pub fn forget(&mut self, key: &K) {
        self.written.remove(key);
        if self.waiting.remove(key) {
            self.conditions.retain(|other| other != key);
        }
        if let Some(due) = self.due.remove(key) {
            self.news.remove(&(due, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is taken until `until`, with the milliseconds when it was.
    fn run(pacer: &mut Pacer<u32>, from: Instant, until: Duration) -> Vec<(u128, u32)> {
        let (mut taken, mut now) = (Vec::new(), from);
        while let Some(when) = pacer.when(now).filter(|when| *when <= from + until) {
            now = when;
            let key = pacer.take(now).expect("it is the time that was told");
            taken.push(((now - from).as_millis(), key));
        }
        taken
    }

    #[test]
    fn a_burst_of_news_of_one_object_is_a_write_at_once_and_one_a_minute() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        let mut taken = Vec::new();
        for second in 0..150 {
            let now = start + Duration::from_secs(second);
            pacer.want(&1, now);
            taken.extend(pacer.take(now).map(|_| second));
        }
        assert_eq!(taken, [0, 60, 120]);
    }

    #[test]
    fn news_of_all_objects_together_are_five_writes_a_second() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        (0..1000).for_each(|key| pacer.want(&key, start));
        let taken = run(&mut pacer, start, Duration::from_secs(10));
        assert_eq!(taken.len(), 51);
        assert!(
            taken.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 200),
            "{taken:?}"
        );
    }

    #[test]
    fn conditions_go_first_and_take_the_news_along() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        for key in [1, 2, 3] {
            pacer.want(&key, start);
        }
        pacer.hurry(&3);
        pacer.hurry(&3);
        assert_eq!(
            run(&mut pacer, start, Duration::from_secs(300)),
            [(0, 3), (0, 1), (200, 2)]
        );
        pacer.want(&3, start + Duration::from_secs(1));
        assert_eq!(
            pacer.when(start + Duration::from_secs(1)),
            Some(start + NEWS_EVERY),
            "it was written at 0"
        );
    }

    #[test]
    fn the_first_news_does_not_wait_for_a_condition_that_was_written() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        pacer.hurry(&1);
        assert_eq!(pacer.take(start), Some(1));
        pacer.want(&1, start);
        assert_eq!(pacer.take(start), Some(1));
    }

    #[test]
    fn a_condition_that_changes_again_is_written_again_at_once() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        pacer.hurry(&1);
        assert_eq!(pacer.take(start), Some(1));
        pacer.hurry(&1);
        assert_eq!(run(&mut pacer, start, Duration::from_secs(9)), [(20, 1)]);
    }

    #[test]
    fn what_is_no_more_is_not_written() {
        let (mut pacer, start) = (Pacer::default(), Instant::now());
        pacer.hurry(&1);
        pacer.want(&2, start);
        pacer.forget(&1);
        pacer.forget(&2);
        assert_eq!((pacer.when(start), pacer.take(start)), (None, None));
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
