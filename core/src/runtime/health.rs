//! Whether a role really works: each part tells when it last succeeded, and readiness is the sum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// All checks of a process.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<String, Part>>>,
}

#[derive(Clone, Debug)]
struct Part {
    check: Check,
    is_aside: bool,
}

/// One part of a role. It is unwell until it has succeeded, and again when its last success is too
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
    /// Adds a part. With `fresh_for` its success counts no longer than that.
    pub fn check(&self, name: impl Into<String>, fresh_for: Option<Duration>) -> Check {
        self.add(name.into(), fresh_for, false)
    }

    /// Adds a part without which the role still does its duty: once it has worked, its trouble is a
    /// remark.
    pub fn side_check(&self, name: impl Into<String>) -> Check {
        self.add(name.into(), None, true)
    }

    /// What is wrong, by part; empty when everything works.
    pub fn troubles(&self) -> BTreeMap<String, String> {
        self.collect(|part| !part.is_remark())
    }

    /// What else is wrong, by part: it does not keep the role from its duty.
    pub fn remarks(&self) -> BTreeMap<String, String> {
        self.collect(Part::is_remark)
    }

    fn add(&self, name: String, fresh_for: Option<Duration>, is_aside: bool) -> Check {
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
            is_aside,
        };
        self.checks.lock().insert(name, part);
        check
    }

    fn collect(&self, is_meant: impl Fn(&Part) -> bool) -> BTreeMap<String, String> {
        let checks = self.checks.lock();
        let meant = checks.iter().filter(|(_, part)| is_meant(part));
        meant
            .filter_map(|(name, part)| Some((name.clone(), part.check.trouble()?)))
            .collect()
    }
}

impl Part {
    fn is_remark(&self) -> bool {
        let state = self.check.state.lock();
        self.is_aside && state.succeeded.is_some()
    }
}

impl Check {
    /// It has just worked.
    pub fn succeed(&self) {
        let mut state = self.state.lock();
        state.succeeded = Some(Instant::now());
        state.trouble = None;
    }

    /// It does not work, for this reason.
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
    fn what_goes_wrong_aside_is_a_remark_once_it_has_worked() {
        let health = Health::default();
        let watch = health.side_check("watch");
        assert_eq!((health.troubles().len(), health.remarks().len()), (1, 0));
        watch.succeed();
        assert_eq!((health.troubles().len(), health.remarks().len()), (0, 0));
        watch.fail("forbidden");
        assert!(health.troubles().is_empty());
        assert_eq!(health.remarks()["watch"], "forbidden");
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
