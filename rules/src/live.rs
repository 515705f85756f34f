//! The rules as they are now, for everybody who needs them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidings_core::runtime::codes::log as codes;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::problem::Problem;
use crate::snapshot::Rules;

/// The rules as they are now.
///
/// # Guarantees
/// Reading takes no lock. What [`Live::current`] gave stays as it is; what changes comes with the
/// next call.
#[derive(Debug)]
pub struct Live {
    rules: ArcSwap<Rules>,
    changes: watch::Sender<u64>,
    loaded: AtomicBool,
    /// Of the folder or the cluster as a whole: not part of any snapshot.
    source_problem: watch::Sender<Option<Problem>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            rules: ArcSwap::default(),
            changes: watch::Sender::new(0),
            loaded: AtomicBool::new(false),
            source_problem: watch::Sender::new(None),
        }
    }
}

impl Live {
    /// Rules that are already there.
    pub fn new(rules: Rules) -> Self {
        let live = Self::default();
        live.replace(rules);
        live
    }

    /// The present rules. Empty before the first complete snapshot; see [`Live::loaded`].
    pub fn current(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Whether there has been a complete snapshot.
    pub fn loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Tells of every change, the first snapshot included; the number grows by one each time.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Puts new rules in force.
    pub fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.loaded.store(true, Ordering::Release);
        self.changes.send_modify(|number| *number += 1);
    }

    /// What is wrong with the folder or the cluster that the rules come from; what was in force
    /// stays in force.
    pub fn source_problem(&self) -> Option<Problem> {
        self.source_problem.borrow().clone()
    }

    /// Tells whenever that changes.
    pub fn source_problems(&self) -> watch::Receiver<Option<Problem>> {
        self.source_problem.subscribe()
    }

    pub(crate) fn set_source_problem(&self, problem: Option<Problem>) {
        self.source_problem.send_if_modified(|now| {
            let is_news = *now != problem;
            *now = problem;
            is_news
        });
    }

    /// All that is wrong now: with the source as a whole, with files and with objects.
    pub fn problems(&self) -> Vec<Problem> {
        self.source_problem()
            .into_iter()
            .chain(self.current().problems().iter().cloned())
            .collect()
    }
}

/// Logs what is new and what is mended, and gives what is known then.
pub(crate) fn log_changes(known: HashSet<Problem>, problems: Vec<Problem>) -> HashSet<Problem> {
    let now: HashSet<Problem> = problems.iter().cloned().collect();
    for problem in problems.iter().filter(|problem| !known.contains(problem)) {
        tracing::warn!(code = codes::RULE_PROBLEM, severity = ?problem.severity, %problem, "problem in rules");
    }
    for problem in known.difference(&now) {
        tracing::info!(code = codes::RULE_PROBLEM_RESOLVED, %problem, "problem in rules resolved");
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_known_until_it_is_mended() {
        let problem = |line| Problem {
            file: None,
            line: Some(line),
            object: None,
            field: None,
            sentence: String::new(),
            severity: crate::Severity::Error,
        };
        let known = log_changes(HashSet::new(), vec![problem(1), problem(2)]);
        assert_eq!(
            log_changes(known, vec![problem(2)]),
            HashSet::from([problem(2)])
        );
    }
}
