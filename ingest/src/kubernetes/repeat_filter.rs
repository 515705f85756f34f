//! Which states of an Event are news: its first occurrence, then one in each interval. Pure: time
//! is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::kubernetes::convert::Times;

/// When more Events than this were told within an interval, the oldest half is forgotten.
const MOST_REMEMBERED: usize = 100_000;

/// How a state of an Event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// By the watch, as a new Event.
    Added,
    /// By the watch, as a new state of an Event that had come before.
    Modified,
    /// By a list.
    Listed,
}

/// When Events were told last, by their uid. Those of the present and of the last interval are
/// kept.
///
/// What is forgotten (at the process's end, say) costs at most one repetition: its token of
/// uniqueness follows from the Event alone, so within the dedupe interval it is a duplicate.
#[derive(Debug)]
pub struct Repeats {
    interval: Duration,
    recent: HashMap<String, Timestamp>,
    older: HashMap<String, Timestamp>,
    since: Option<Instant>,
}

impl Repeats {
    /// With the time in which an Event that goes on is news once.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            recent: HashMap::new(),
            older: HashMap::new(),
            since: None,
        }
    }

    /// Whether a state is news, and then how many intervals have passed since the first occurrence.
    /// What is news counts as told.
    pub fn news(&mut self, uid: &str, times: Times, came: Came, now: Instant) -> Option<u64> {
        let repeat = self.intervals(times.last.duration_since(times.first));
        let told = self.recent.get(uid).or_else(|| self.older.get(uid));
        let is_news = match told {
            Some(told) => self.intervals(times.last.duration_since(*told)) > 0,
            // Its first occurrence was told, here or by another replica: a watch leaves nothing
            // out.
            None => came != Came::Modified || repeat > 0,
        };
        if !is_news {
            return None;
        }
        self.make_room(now);
        self.recent.insert(uid.to_owned(), times.last);
        Some(repeat)
    }

    /// Forgets all, because something that counts as told was not.
    pub fn forget(&mut self) {
        self.recent.clear();
        self.older.clear();
    }

    fn intervals(&self, duration: SignedDuration) -> u64 {
        let nanoseconds = u128::try_from(duration.as_nanos()).unwrap_or(0);
        u64::try_from(nanoseconds / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    fn make_room(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.interval
            || self.recent.len() >= MOST_REMEMBERED / 2
        {
            self.older = std::mem::take(&mut self.recent);
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(first: i64, last: i64) -> Times {
        let time = |seconds| Timestamp::from_second(seconds).unwrap();
        Times {
            first: time(first),
            last: time(last),
        }
    }

    #[test]
    fn an_event_that_goes_on_is_news_once_an_interval() {
        let now = Instant::now();
        let mut repeats = Repeats::new(Duration::from_secs(300));
        for (last, came, news) in [
            (1000, Came::Added, Some(0)),
            (1000, Came::Modified, None),
            (1001, Came::Modified, None),
            (1299, Came::Modified, None),
            (1310, Came::Modified, Some(1)),
            (1600, Came::Modified, None),
            (1610, Came::Modified, Some(2)),
            (1610, Came::Listed, None),
            (9999, Came::Modified, Some(29)),
        ] {
            assert_eq!(repeats.news("a", at(1000, last), came, now), news, "{last}");
        }
        assert_eq!(
            repeats.news("b", at(1000, 1000), Came::Added, now),
            Some(0),
            "another Event"
        );
    }

    #[test]
    fn what_another_replica_has_told_is_not_told_again_before_its_interval_is_over() {
        let now = Instant::now();
        for (last, came, news) in [
            (1299, Came::Modified, None),
            (1300, Came::Modified, Some(1)),
            (1299, Came::Listed, Some(0)),
            (1000, Came::Added, Some(0)),
        ] {
            assert_eq!(
                Repeats::new(Duration::from_secs(300)).news("a", at(1000, last), came, now),
                news,
                "{last} {came:?}"
            );
        }
    }

    #[test]
    fn what_was_told_is_remembered_for_an_interval_at_least_and_no_longer_than_two() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut repeats = Repeats::new(seconds(300));
        assert!(repeats.news("a", at(0, 0), Came::Added, start).is_some());
        assert!(
            repeats
                .news("b", at(0, 0), Came::Added, start + seconds(301))
                .is_some()
        );
        assert_eq!(
            repeats.news("a", at(0, 0), Came::Listed, start + seconds(302)),
            None
        );
        assert!(
            repeats
                .news("c", at(0, 0), Came::Added, start + seconds(602))
                .is_some()
        );
        assert_eq!((repeats.recent.len(), repeats.older.len()), (1, 1));
        repeats.forget();
        assert!(
            repeats
                .news("c", at(0, 0), Came::Added, start + seconds(603))
                .is_some()
        );
    }

    #[test]
    fn memory_has_a_bound() {
        let mut repeats = Repeats::new(Duration::from_secs(300));
        for number in 0..MOST_REMEMBERED * 2 {
            repeats.news(&number.to_string(), at(0, 0), Came::Added, Instant::now());
        }
        assert!(repeats.recent.len() + repeats.older.len() <= MOST_REMEMBERED);
    }

    proptest! {
        #[test]
        fn news_of_one_event_are_an_interval_apart_and_have_tokens_of_their_own(
            steps in prop::collection::vec(0i64..400, 1..60)
        ) {
            let (mut repeats, now) = (Repeats::new(Duration::from_secs(100)), Instant::now());
            let (mut last, mut told) = (0, Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                last += if number == 0 { 0 } else { step };
                let came = if number == 0 { Came::Added } else { Came::Modified };
                if let Some(repeat) = repeats.news("a", at(0, last), came, now) {
                    told.push((last, repeat));
                }
            }
            prop_assert_eq!(told[0], (0, 0));
            for pair in told.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 100 && pair[1].1 > pair[0].1, "{:?}", pair);
            }
        }
    }
}
