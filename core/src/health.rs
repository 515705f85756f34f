//! Whether a role really works: each part tells when it last succeeded, and readiness is the sum.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// All checks of a process.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<String, Check>>>,
}

/// One part of a role. It is unwell until it has succeeded, and again when its last success is too old.
#[derive(Clone, Debug)]
pub struct Check {
    state: Arc<Mutex<State>>,
    fresh_for: Option<Duration>,
}

#[derive(Debug)]
struct State {
    succeeded: Option<Instant>,
    trouble: Option<String>,
    note: Option<String>,
}

impl Health {
    /// Adds a part. With `fresh_for` its success counts no longer than that.
    pub fn check(&self, name: impl Into<String>, fresh_for: Option<Duration>) -> Check {
        let state = State { succeeded: None, trouble: Some("not started yet".to_owned()), note: None };
        let check = Check { state: Arc::new(Mutex::new(state)), fresh_for };
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), check.clone());
        check
    }

    /// What is wrong, by part; empty when everything works.
    pub fn troubles(&self) -> BTreeMap<String, String> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(|(name, check)| Some((name.clone(), check.trouble()?))).collect()
    }

    /// What is wrong with parts that work all the same.
    pub fn notes(&self) -> BTreeMap<String, String> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(|(name, check)| Some((name.clone(), check.state().note.clone()?))).collect()
    }
}

impl Check {
    /// It has just worked.
    pub fn succeed(&self) {
        let mut state = self.state();
        state.succeeded = Some(Instant::now());
        state.trouble = None;
    }

    /// It does not work, for this reason.
    pub fn fail(&self, trouble: impl Into<String>) {
        let mut state = self.state();
        state.trouble = Some(trouble.into());
    }

    /// It works, and something is wrong with it nevertheless, or no longer.
    pub fn note(&self, note: Option<String>) {
        self.state().note = note;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> Option<String> {
        let state = self.state();
        let age = state.succeeded.map(|instant| instant.elapsed());
        match (&state.trouble, self.fresh_for, age) {
            (Some(trouble), ..) => Some(trouble.clone()),
            (None, Some(fresh_for), Some(age)) if age > fresh_for => Some(format!("last worked {} s ago", age.as_secs())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_unwell_until_it_works_and_when_it_no_longer_does() {
        let health = Health::default();
        let bus = health.check("bus", None);
        assert_eq!(health.troubles()["bus"], "not started yet");
        bus.succeed();
        assert!(health.troubles().is_empty());
        bus.fail("not connected");
        assert_eq!(health.troubles()["bus"], "not connected");
    }

    #[test]
    fn a_note_makes_nothing_unwell() {
        let health = Health::default();
        let rules = health.check("rules", None);
        rules.succeed();
        rules.note(Some("the API server is away".to_owned()));
        assert_eq!((health.troubles().len(), health.notes()["rules"].as_str()), (0, "the API server is away"));
        rules.note(None);
        assert!(health.notes().is_empty());
    }

    #[test]
    fn a_success_grows_old() {
        let health = Health::default();
        let pull = health.check("pull", Some(Duration::ZERO));
        pull.succeed();
        std::thread::sleep(Duration::from_millis(2));
        assert!(health.troubles()["pull"].starts_with("last worked"));
    }
}
