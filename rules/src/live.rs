//! The current rules, shared by all tasks of a process.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidings_core::model::text::visible;
use tidings_core::runtime::codes::log as codes;
use tokio::sync::watch;

use crate::problem::{Problem, Severity};
use crate::snapshot::Rules;

/// The current rules, which are replaced as a whole.
///
/// # Guarantees
/// Reading takes no lock. A snapshot from [`LiveRules::current`] never changes; the next call
/// returns the next snapshot.
#[derive(Debug)]
pub struct LiveRules {
    rules: ArcSwap<Rules>,
    changes: watch::Sender<u64>,
    loaded: AtomicBool,
    /// A problem of the folder or the cluster as a whole. It is not part of a snapshot.
    source_problem: watch::Sender<Option<Problem>>,
    /// When the running reload started.
    reload: Mutex<Option<Instant>>,
}

/// A running reload. It ends when this is dropped.
pub(crate) struct Reload<'a>(&'a LiveRules);

impl Drop for Reload<'_> {
    fn drop(&mut self) {
        *self.0.reload.lock() = None;
    }
}

impl Default for LiveRules {
    fn default() -> Self {
        Self {
            rules: ArcSwap::default(),
            changes: watch::Sender::new(0),
            loaded: AtomicBool::new(false),
            source_problem: watch::Sender::new(None),
            reload: Mutex::default(),
        }
    }
}

impl LiveRules {
    /// Starts with these rules.
    pub fn new(rules: Rules) -> Self {
        let live = Self::default();
        live.replace(rules);
        live
    }

    /// The current rules. Empty before the first complete snapshot; see [`LiveRules::loaded`].
    pub fn current(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Whether a complete snapshot was loaded.
    pub fn loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Notifies of every new snapshot, including the first; the number increases by one each time.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Replaces the rules.
    pub fn replace(&self, rules: Rules) {
        let (alerts, providers) = (rules.alerts().len(), rules.providers().count());
        let problems = rules.problems().len();
        self.rules.store(Arc::new(rules));
        self.loaded.store(true, Ordering::Release);
        self.changes.send_modify(|number| *number += 1);
        tracing::info!(
            code = codes::RULES_LOADED,
            alerts,
            providers,
            problems,
            "rules loaded"
        );
    }

    /// How long the running reload has taken so far. The last rules stay in effect meanwhile.
    pub fn reloads_for(&self) -> Option<Duration> {
        self.reload.lock().map(|started| started.elapsed())
    }

    /// Notes that the rules are read and compiled.
    pub(crate) fn start_reload(&self) -> Reload<'_> {
        *self.reload.lock() = Some(Instant::now());
        Reload(self)
    }

    /// The problem of the folder or the cluster; the last good rules stay in effect.
    pub fn source_problem(&self) -> Option<Problem> {
        self.source_problem.borrow().clone()
    }

    /// Notifies of every change of [`LiveRules::source_problem`].
    pub fn source_problems(&self) -> watch::Receiver<Option<Problem>> {
        self.source_problem.subscribe()
    }

    pub(crate) fn set_source_problem(&self, problem: Option<Problem>) {
        self.source_problem.send_if_modified(|now| {
            let is_new = *now != problem;
            *now = problem;
            is_new
        });
    }

    /// All current problems: of the source, of files and of objects.
    pub fn problems(&self) -> Vec<Problem> {
        self.source_problem()
            .into_iter()
            .chain(self.current().problems().iter().cloned())
            .collect()
    }
}

/// Logs a problem with its parts as fields.
macro_rules! log {
    ($level:ident, $code:path, $problem:ident, $message:literal) => {
        tracing::$level!(
            code = $code,
            severity = $problem.severity.as_str(),
            file = $problem.file,
            line = $problem.line,
            object = $problem.object,
            field = $problem.field,
            problem = %visible(&$problem.to_string()),
            $message
        )
    };
}

/// Logs new and resolved problems, and returns the current ones.
pub(crate) fn log_changes(logged: HashSet<Problem>, problems: Vec<Problem>) -> HashSet<Problem> {
    let now: HashSet<Problem> = problems.iter().cloned().collect();
    for problem in problems.iter().filter(|problem| !logged.contains(problem)) {
        match problem.severity {
            Severity::Error | Severity::Fault => {
                log!(error, codes::RULE_PROBLEM, problem, "problem in rules")
            }
            Severity::Warning => log!(warn, codes::RULE_PROBLEM, problem, "problem in rules"),
        }
    }
    for problem in logged.difference(&now) {
        log!(
            info,
            codes::RULE_PROBLEM_RESOLVED,
            problem,
            "problem in rules resolved"
        );
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_visible_until_it_ends() {
        let live = LiveRules::default();
        assert_eq!(live.reloads_for(), None);
        let reload = live.start_reload();
        assert!(live.reloads_for().is_some());
        drop(reload);
        assert_eq!(live.reloads_for(), None);
    }

    #[test]
    fn a_problem_is_logged_until_it_is_resolved() {
        let problem = |line| Problem {
            file: None,
            line: Some(line),
            object: None,
            field: None,
            message: String::new(),
            severity: crate::Severity::Error,
        };
        let logged = log_changes(HashSet::new(), vec![problem(1), problem(2)]);
        assert_eq!(
            log_changes(logged, vec![problem(2)]),
            HashSet::from([problem(2)])
        );
    }
}
