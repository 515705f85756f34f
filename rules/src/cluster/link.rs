//! Whether the API server can be had: what has failed lately, and what of it has not been heard of since.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::problem::{Problem, Severity};

/// A watch that fails tries again within [`super::watch::LONGEST_PAUSE`]. One that has been silent for longer, while the
/// API server answers, is under way again: a watch on which nothing happens can't say so itself.
const SILENCE: Duration = super::watch::LONGEST_PAUSE.saturating_mul(2);

/// The connection to the API server.
#[derive(Debug, Default)]
pub(super) struct Link {
    troubles: BTreeMap<String, (String, Instant)>,
}

impl Link {
    /// Something did not work.
    pub(super) fn fail(&mut self, part: impl Into<String>, why: String, now: Instant) {
        self.troubles.insert(part.into(), (why, now));
    }

    /// It has worked.
    pub(super) fn succeed(&mut self, part: &str) {
        self.troubles.remove(part);
    }

    /// The API server has answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.troubles.retain(|_, (_, when)| now < *when + SILENCE);
    }

    /// What is wrong, for people.
    pub(super) fn problem(&self, loaded: bool) -> Option<Problem> {
        let (part, (why, _)) = self.troubles.first_key_value()?;
        let consequence = if loaded { "the last rules stay in force" } else { "there are no rules yet" };
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
        link.answered(start + SILENCE / 2);
        let problem = link.problem(true).unwrap().to_string();
        assert_eq!(problem, "the watch of Alerts: refused; the last rules stay in force, and it is tried again");
        link.answered(start + SILENCE);
        assert_eq!(link.problem(true), None);
    }

    #[test]
    fn what_has_worked_is_no_trouble() {
        let mut link = Link::default();
        link.fail("a", "b".into(), Instant::now());
        link.succeed("a");
        assert_eq!(link.problem(false), None);
    }
}
