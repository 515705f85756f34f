//! Health: each part of a role reports its successes and failures. The role is ready while all
//! parts that it needs work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The checks of all parts of a process.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<String, Part>>>,
}

#[derive(Clone, Debug)]
struct Part {
    check: Check,
    is_optional: bool,
}

/// The check of one part. It fails until its first success, and again when its last success is too
/// old.
#[derive(Clone, Debug)]
pub struct Check {
    state: Arc<Mutex<State>>,
    fresh_for: Option<Duration>,
}

#[derive(Debug)]
struct State {
    succeeded: Option<Instant>,
    trouble: Option<String>,
}

impl Health {
    /// Adds a part. With `fresh_for` a success is valid for this time only.
    pub fn check(&self, name: impl Into<String>, fresh_for: Option<Duration>) -> Check {
        self.add(name.into(), fresh_for, false)
    }

    /// Adds an optional part: after its first success, a failure is only a warning.
    pub fn optional_check(&self, name: impl Into<String>) -> Check {
        self.add(name.into(), None, true)
    }

    /// Adds a part that the role does not need: a failure is only a warning.
    pub fn warning_check(&self, name: impl Into<String>) -> Check {
        let check = self.optional_check(name);
        // A failure is a warning after the first success.
        check.succeed();
        check
    }

    /// The failures that make the role unready, by part.
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.collect(|part| !part.is_warning())
    }

    /// The failures of optional parts, by part.
    pub fn warnings(&self) -> BTreeMap<String, String> {
        self.collect(Part::is_warning)
    }

    fn add(&self, name: String, fresh_for: Option<Duration>, is_optional: bool) -> Check {
        let state = State {
            succeeded: None,
            trouble: Some("not started yet".to_owned()),
        };
        let check = Check {
            state: Arc::new(Mutex::new(state)),
            fresh_for,
        };
        let part = Part {
            check: check.clone(),
            is_optional,
        };
        self.checks.lock().insert(name, part);
        check
    }

    fn collect(&self, is_selected: impl Fn(&Part) -> bool) -> BTreeMap<String, String> {
        let checks = self.checks.lock();
        let selected = checks.iter().filter(|(_, part)| is_selected(part));
        selected
            .filter_map(|(name, part)| Some((name.clone(), part.check.trouble()?)))
            .collect()
    }
}

impl Part {
    fn is_warning(&self) -> bool {
        let state = self.check.state.lock();
        self.is_optional && state.succeeded.is_some()
    }
}

impl Check {
    /// Reports a success.
    pub fn succeed(&self) {
        let mut state = self.state.lock();
        state.succeeded = Some(Instant::now());
        state.trouble = None;
    }

    /// Reports a failure and its cause.
    pub fn fail(&self, trouble: impl Into<String>) {
        let mut state = self.state.lock();
        state.trouble = Some(trouble.into());
    }

    fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        let age = state.succeeded.map(|instant| instant.elapsed());
        match (&state.trouble, self.fresh_for, age) {
            (Some(trouble), ..) => Some(trouble.clone()),
            (None, Some(fresh_for), Some(age)) if age > fresh_for => {
                Some(format!("last worked {} s ago", age.as_secs()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_fails_until_its_first_success_and_after_a_failure() {
        let health = Health::default();
        let bus = health.check("bus", None);
        assert_eq!(health.failures()["bus"], "not started yet");
        bus.succeed();
        assert!(health.failures().is_empty());
        bus.fail("not connected");
        assert_eq!(health.failures()["bus"], "not connected");
    }

    #[test]
    fn a_failure_of_an_optional_part_is_a_warning_after_its_first_success() {
        let health = Health::default();
        let watch = health.optional_check("watch");
        assert_eq!((health.failures().len(), health.warnings().len()), (1, 0));
        watch.succeed();
        assert_eq!((health.failures().len(), health.warnings().len()), (0, 0));
        watch.fail("forbidden");
        assert!(health.failures().is_empty());
        assert_eq!(health.warnings()["watch"], "forbidden");
    }

    #[test]
    fn a_part_that_the_role_does_not_need_never_makes_it_unready() {
        let health = Health::default();
        health.warning_check("hub").fail("not connected");
        assert_eq!((health.failures().len(), health.warnings().len()), (0, 1));
    }

    #[test]
    fn a_success_expires() {
        let health = Health::default();
        let pull = health.check("pull", Some(Duration::ZERO));
        pull.succeed();
        std::thread::sleep(Duration::from_millis(2));
        assert!(health.failures()["pull"].starts_with("last worked"));
    }
}
