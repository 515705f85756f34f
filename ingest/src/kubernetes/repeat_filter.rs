//! Limits a recurring Event to its first occurrence and then one per interval. Pure: the current
//! time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::kubernetes::convert::EventTimes;

/// If more Events than this occur in an interval, the older half is forgotten.
const MAX_REMEMBERED: usize = 100_000;

/// How the reader got a state of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeType {
    /// From the watch, as a new Event.
    Added,
    /// From the watch, as an update of an Event.
    Modified,
    /// From a list.
    Listed,
}

/// Remembers by uid when each Event was last stored, for one to two intervals.
///
/// If an entry is forgotten, for example at a restart, an Event is stored once more than it should
/// be. Its token depends only on the Event, so the bus detects the duplicate within the dedupe
/// interval.
#[derive(Debug)]
pub struct RepeatFilter {
    interval: Duration,
    recent: HashMap<String, Timestamp>,
    older: HashMap<String, Timestamp>,
    recent_since: Option<Instant>,
}

impl RepeatFilter {
    /// A filter that passes a recurring Event once per `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            recent: HashMap::new(),
            older: HashMap::new(),
            recent_since: None,
        }
    }

    /// Returns `None` for a repetition within the interval; otherwise how many intervals passed
    /// since the first occurrence, and remembers the Event as stored.
    pub fn pass(
        &mut self,
        uid: &str,
        times: EventTimes,
        change: ChangeType,
        now: Instant,
    ) -> Option<u64> {
        let repeat = self.intervals(times.last.duration_since(times.first));
        let last_passed = self.recent.get(uid).or_else(|| self.older.get(uid));
        let passes = match last_passed {
            Some(last_passed) => self.intervals(times.last.duration_since(*last_passed)) > 0,
            // A watch has no gaps, so this or another replica stored the first occurrence.
            None => change != ChangeType::Modified || repeat > 0,
        };
        if !passes {
            return None;
        }
        self.rotate(now);
        self.recent.insert(uid.to_owned(), times.last);
        Some(repeat)
    }

    /// Forgets all Events, because an Event that passed may not have been stored.
    pub fn clear(&mut self) {
        self.recent.clear();
        self.older.clear();
    }

    fn intervals(&self, duration: SignedDuration) -> u64 {
        let nanoseconds = u128::try_from(duration.as_nanos()).unwrap_or(0);
        u64::try_from(nanoseconds / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    fn rotate(&mut self, now: Instant) {
        let since = *self.recent_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.interval
            || self.recent.len() >= MAX_REMEMBERED / 2
        {
            self.older = std::mem::take(&mut self.recent);
            self.recent_since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(first: i64, last: i64) -> EventTimes {
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        EventTimes {
            first: time(first),
            last: time(last),
        }
    }

    #[test]
    fn a_recurring_event_passes_once_per_interval() {
        let now = Instant::now();
        let mut filter = RepeatFilter::new(Duration::from_secs(300));
        for (last, change, expected) in [
            (1000, ChangeType::Added, Some(0)),
            (1000, ChangeType::Modified, None),
            (1001, ChangeType::Modified, None),
            (1299, ChangeType::Modified, None),
            (1310, ChangeType::Modified, Some(1)),
            (1600, ChangeType::Modified, None),
            (1610, ChangeType::Modified, Some(2)),
            (1610, ChangeType::Listed, None),
            (9999, ChangeType::Modified, Some(29)),
        ] {
            assert_eq!(
                filter.pass("a", at(1000, last), change, now),
                expected,
                "{last}"
            );
        }
        assert_eq!(
            filter.pass("b", at(1000, 1000), ChangeType::Added, now),
            Some(0),
            "another Event"
        );
    }

    #[test]
    fn a_new_leader_passes_an_update_only_after_an_interval() {
        let now = Instant::now();
        for (last, change, expected) in [
            (1299, ChangeType::Modified, None),
            (1300, ChangeType::Modified, Some(1)),
            (1299, ChangeType::Listed, Some(0)),
            (1000, ChangeType::Added, Some(0)),
        ] {
            assert_eq!(
                RepeatFilter::new(Duration::from_secs(300)).pass("a", at(1000, last), change, now),
                expected,
                "{last} {change:?}"
            );
        }
    }

    #[test]
    fn an_event_is_remembered_for_one_to_two_intervals() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut filter = RepeatFilter::new(seconds(300));
        assert!(
            filter
                .pass("a", at(0, 0), ChangeType::Added, start)
                .is_some()
        );
        assert!(
            filter
                .pass("b", at(0, 0), ChangeType::Added, start + seconds(301))
                .is_some()
        );
        assert_eq!(
            filter.pass("a", at(0, 0), ChangeType::Listed, start + seconds(302)),
            None
        );
        assert!(
            filter
                .pass("c", at(0, 0), ChangeType::Added, start + seconds(602))
                .is_some()
        );
        assert_eq!((filter.recent.len(), filter.older.len()), (1, 1));
        filter.clear();
        assert!(
            filter
                .pass("c", at(0, 0), ChangeType::Added, start + seconds(603))
                .is_some()
        );
    }

    #[test]
    fn memory_is_limited() {
        let mut filter = RepeatFilter::new(Duration::from_secs(300));
        for number in 0..MAX_REMEMBERED * 2 {
            filter.pass(
                &number.to_string(),
                at(0, 0),
                ChangeType::Added,
                Instant::now(),
            );
        }
        assert!(filter.recent.len() + filter.older.len() <= MAX_REMEMBERED);
    }

    proptest! {
        #[test]
        fn passed_states_of_an_event_are_an_interval_apart_and_have_distinct_repeats(
            steps in prop::collection::vec(0i64..400, 1..60)
        ) {
            let (mut filter, now) = (RepeatFilter::new(Duration::from_secs(100)), Instant::now());
            let (mut last, mut passed) = (0, Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                last += if number == 0 { 0 } else { step };
                let change = if number == 0 { ChangeType::Added } else { ChangeType::Modified };
                if let Some(repeat) = filter.pass("a", at(0, last), change, now) {
                    passed.push((last, repeat));
                }
            }
            prop_assert_eq!(passed[0], (0, 0));
            for pair in passed.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 100 && pair[1].1 > pair[0].1, "{:?}", pair);
            }
        }
    }
}
