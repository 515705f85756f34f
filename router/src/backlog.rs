//! Finds the clusters that cause a backlog, and remembers what was routed ahead of it. No I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How many of the last events are looked at.
const RECENT: usize = 256;
/// An event that waited this long waited behind others.
const LATE: Duration = Duration::from_secs(2);
/// A cluster with more than one of this many of the recent events causes the backlog.
const SHARE: usize = 8;

/// The clusters of the last late events, by token.
#[derive(Debug, Default)]
pub struct RecentEvents {
    tokens: VecDeque<String>,
    counts: BTreeMap<String, usize>,
    is_in_time: bool,
}

impl RecentEvents {
    /// Notes an event of the backlog and how long it waited. An event that did not wait ends the
    /// backlog.
    pub fn observe(&mut self, token: &str, waited: Duration) {
        self.is_in_time = waited < LATE;
        if self.is_in_time {
            return self.clear();
        }
        if self.tokens.len() == RECENT
            && let Some(oldest) = self.tokens.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.tokens.push_back(token.to_owned());
        *self.counts.entry(token.to_owned()).or_default() += 1;
    }

    /// Ends the backlog.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.counts.clear();
    }

    /// Whether all recent events were late.
    pub fn is_backlog(&self) -> bool {
        self.tokens.len() == RECENT
    }

    /// Whether the last event did not wait.
    pub fn is_in_time(&self) -> bool {
        self.is_in_time
    }

    /// The tokens of the clusters that cause the backlog. Empty if there is none.
    pub fn causes(&self) -> BTreeSet<&str> {
        if !self.is_backlog() {
            return BTreeSet::new();
        }
        let counts = self.counts.iter();
        let causes = counts.filter(|(_, count)| **count > RECENT / SHARE);
        causes.map(|(token, _)| token.as_str()).collect()
    }
}

/// The events that were routed ahead of the backlog.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RoutedAhead {
    tokens: BTreeSet<String>,
    from: u64,
    until: u64,
}

impl RoutedAhead {
    /// All events of the clusters with these filters, from one sequence until another.
    pub fn new(filters: &[String], from: u64, until: u64) -> Self {
        let tokens = filters.iter().filter_map(|filter| filter.split('.').nth(1));
        Self {
            tokens: tokens.map(str::to_owned).collect(),
            from,
            until,
        }
    }

    /// Whether the event was routed.
    pub fn contains(&self, token: &str, sequence: u64) -> bool {
        (self.from..=self.until).contains(&sequence) && self.tokens.contains(token)
    }
}

/// The filter for all events of a cluster.
pub fn filter(token: &str) -> String {
    format!("events.{token}.>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(recent: &mut RecentEvents, token: &str, times: usize) {
        for _ in 0..times {
            recent.observe(token, LATE);
        }
    }

    #[test]
    fn a_cluster_with_a_large_share_of_late_events_causes_the_backlog() {
        let mut recent = RecentEvents::default();
        observe(&mut recent, "quiet", RECENT / SHARE);
        observe(&mut recent, "storm", RECENT - RECENT / SHARE - 1);
        assert!(recent.causes().is_empty(), "too few events");
        observe(&mut recent, "storm", 1);
        assert_eq!(recent.causes(), ["storm"].into());
        observe(&mut recent, "other", RECENT / SHARE + 1);
        assert_eq!(recent.causes(), ["other", "storm"].into());
    }

    #[test]
    fn an_event_in_time_ends_the_backlog() {
        let mut recent = RecentEvents::default();
        observe(&mut recent, "storm", RECENT);
        recent.observe("storm", LATE - Duration::from_millis(1));
        assert!(!recent.is_backlog() && recent.causes().is_empty());
        assert!(recent.is_in_time());
        observe(&mut recent, "storm", RECENT - 1);
        assert!(!recent.is_backlog() && !recent.is_in_time());
    }

    #[test]
    fn only_the_events_of_the_filters_between_the_sequences_were_routed() {
        let routed = RoutedAhead::new(&[filter("a"), filter("b=2E1")], 10, 20);
        for (token, sequence, expected) in [
            ("a", 10, true),
            ("b=2E1", 20, true),
            ("a", 9, false),
            ("a", 21, false),
            ("c", 15, false),
        ] {
            assert_eq!(
                routed.contains(token, sequence),
                expected,
                "{token} {sequence}"
            );
        }
        assert!(!RoutedAhead::default().contains("a", 0));
    }
}
