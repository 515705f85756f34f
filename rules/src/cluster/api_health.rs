//! Whether the API server can be had: what has failed lately, and what of it has not been heard of
//! since.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::problem::{Problem, Severity};

/// A watch that fails tries again within [`super::watch::LONGEST_PAUSE`]. One that has been silent
/// for longer, while the API server answers, is under way again: a watch on which nothing happens
/// can't say so itself.
const SILENCE: Duration = super::watch::LONGEST_PAUSE.saturating_mul(2);

/// The connection to the API server.
#[derive(Debug, Default)]
pub(super) struct Link {
    troubles: BTreeMap<String, (String, Instant)>,
    /// The newest version that was told.
    newest: u64,
    /// No answer that is asked for from now on can be older than this version.
    floor: u64,
}

impl Link {
    /// Something did not work.
    pub(super) fn fail(&mut self, part: impl Into<String>, why: String, now: Instant) {
        // What is asked from now on is asked after what was told, also after an outage.
        if self.troubles.insert(part.into(), (why, now)).is_none() {
            self.floor = self.newest;
        }
    }

    /// A version was told.
    pub(super) fn told(&mut self, version: u64) {
        self.newest = self.newest.max(version);
    }

    /// It has worked.
    pub(super) fn succeed(&mut self, part: &str) {
        self.troubles.remove(part);
    }

    /// The API server has answered that it is at a version. Whether it was thrown back to an
    /// earlier state: then watches that go on from a later one tell nothing.
    pub(super) fn answered(&mut self, version: u64, now: Instant) -> bool {
        self.troubles.retain(|_, (_, when)| now < *when + SILENCE);
        let went_back = version < self.floor;
        self.newest = if went_back {
            version
        } else {
            self.newest.max(version)
        };
        self.floor = self.newest;
        went_back
    }

    /// What is wrong, for people.
    pub(super) fn problem(&self, loaded: bool) -> Option<Problem> {
        let (part, (why, _)) = self.troubles.first_key_value()?;
        let consequence = if loaded {
            "the last rules stay in force"
        } else {
            "there are no rules yet"
        };
        Some(Problem {
            file: None,
            line: None,
            object: None,
            field: None,
            sentence: format!("{part}: {why}; {consequence}, and it is tried again"),
            severity: Severity::Error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_silent_while_the_server_answers_works_again() {
        let (mut link, start) = (Link::default(), Instant::now());
        link.fail("the watch of Alerts", "refused".into(), start);
        link.answered(1, start + SILENCE / 2);
        let problem = link.problem(true).unwrap().to_string();
        assert_eq!(
            problem,
            "the watch of Alerts: refused; the last rules stay in force, and it is tried again"
        );
        link.answered(1, start + SILENCE);
        assert_eq!(link.problem(true), None);
    }

    #[test]
    fn a_server_that_knows_less_than_it_told_was_thrown_back() {
        let (mut link, now) = (Link::default(), Instant::now());
        assert!(!link.answered(5, now));
        link.told(9);
        assert!(!link.answered(8, now), "it was asked before that was told");
        assert!(link.answered(8, now));
        assert!(!link.answered(8, now), "once");
        link.told(20);
        link.fail("a", "b".into(), now);
        assert!(link.answered(10, now));
    }

    #[test]
    fn what_has_worked_is_no_trouble() {
        let mut link = Link::default();
        link.fail("a", "b".into(), Instant::now());
        link.succeed("a");
        assert_eq!(link.problem(false), None);
    }
}
