//! Tracks whether the API server is reachable: recent failures that have not recovered yet.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::problem::{Problem, Severity};

/// A failed watch retries within [`super::watch::MAX_BACKOFF`]. If it has not failed for longer and
/// the API server responds, it counts as recovered: an idle watch sends nothing.
const SILENCE: Duration = super::watch::MAX_BACKOFF.saturating_mul(2);

/// The health of the connection to the API server.
#[derive(Debug, Default)]
pub(super) struct ApiHealth {
    failures: BTreeMap<String, (String, Instant)>,
    /// The highest resource version seen so far.
    newest: u64,
    /// Responses to new requests cannot have a lower resource version.
    floor: u64,
}

impl ApiHealth {
    /// Records a failure of a part.
    pub(super) fn failed(&mut self, part: impl Into<String>, why: String, now: Instant) {
        // Requests from now on are sent after the newest version was seen, even after an outage.
        if self.failures.insert(part.into(), (why, now)).is_none() {
            self.floor = self.newest;
        }
    }

    /// Records a resource version that a watch received.
    pub(super) fn observed(&mut self, version: u64) {
        self.newest = self.newest.max(version);
    }

    /// Records the recovery of a part.
    pub(super) fn recovered(&mut self, part: &str) {
        self.failures.remove(part);
    }

    /// Records the resource version of a probe. Returns whether the API server was restored to an
    /// earlier state. Watches that resume from a later version would then receive nothing.
    pub(super) fn probed(&mut self, version: u64, now: Instant) -> bool {
        self.failures.retain(|_, (_, when)| now < *when + SILENCE);
        let was_restored = version < self.floor;
        self.newest = if was_restored {
            version
        } else {
            self.newest.max(version)
        };
        self.floor = self.newest;
        was_restored
    }

    /// The problem to report.
    pub(super) fn problem(&self, loaded: bool) -> Option<Problem> {
        let (part, (why, _)) = self.failures.first_key_value()?;
        let consequence = if loaded {
            "the last good rules stay in effect"
        } else {
            "no rules are loaded yet"
        };
        Some(Problem {
            file: None,
            line: None,
            object: None,
            field: None,
            message: format!("{part}: {why}; {consequence}, retrying"),
            severity: Severity::Error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_watch_recovers_while_the_server_responds() {
        let (mut health, start) = (ApiHealth::default(), Instant::now());
        health.failed("the watch of Alerts", "refused".into(), start);
        health.probed(1, start + SILENCE / 2);
        let problem = health.problem(true).unwrap().to_string();
        assert_eq!(
            problem,
            "the watch of Alerts: refused; the last good rules stay in effect, retrying"
        );
        health.probed(1, start + SILENCE);
        assert_eq!(health.problem(true), None);
    }

    #[test]
    fn a_lower_resource_version_means_a_restored_server() {
        let (mut health, now) = (ApiHealth::default(), Instant::now());
        assert!(!health.probed(5, now));
        health.observed(9);
        assert!(
            !health.probed(8, now),
            "the request was sent before the newest version was seen"
        );
        assert!(health.probed(8, now));
        assert!(!health.probed(8, now), "reported once");
        health.observed(20);
        health.failed("a", "b".into(), now);
        assert!(health.probed(10, now));
    }

    #[test]
    fn a_recovered_part_is_no_problem() {
        let mut health = ApiHealth::default();
        health.failed("a", "b".into(), Instant::now());
        health.recovered("a");
        assert_eq!(health.problem(false), None);
    }
}
