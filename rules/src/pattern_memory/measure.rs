//! Measures the patterns of one Alert by compiling them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::alert::Alert;
use crate::pattern::{Automaton, MAX_AUTOMATON_BYTES, Pattern};

/// What the patterns of an Alert need.
#[derive(Default)]
pub(super) struct Measured {
    /// Each pattern once, with its size.
    pub patterns: Vec<(Arc<Pattern>, usize)>,
    /// The field of each pattern.
    pub fields: Vec<String>,
    /// The fields of patterns that are too large by themselves, and why.
    pub too_large: Vec<(String, String)>,
    /// The field at which the Alert needs too much, and why.
    pub over: Option<(String, String)>,
    /// The sizes of all patterns that were compiled.
    pub work: usize,
    /// The automata, unless the Alert needs too much.
    pub automata: Vec<Arc<Automaton>>,
}

/// Measures an Alert. Stops at the first pattern above a limit. Compiles no more than
/// `work_left`, apart from one pattern.
pub(super) fn measure(alert: &Alert, limit: usize, work_left: usize) -> Measured {
    let mut measured = Measured::default();
    let mut known = HashSet::new();
    let mut bytes = 0;
    for (field, pattern) in patterns(alert) {
        if !known.insert(Arc::as_ptr(pattern)) {
            continue;
        }
        if measured.work >= work_left {
            measured.over = Some((field, over_work(&alert.namespace)));
            break;
        }
        let size = match pattern.bytes() {
            Ok(size) => {
                measured.automata.extend(pattern.automaton());
                measured.patterns.push((pattern.clone(), size));
                measured.fields.push(field.clone());
                size
            }
            Err(message) => {
                measured.too_large.push((field.clone(), message));
                MAX_AUTOMATON_BYTES
            }
        };
        measured.work += size;
        bytes += size;
        if bytes > limit {
            measured.over = Some((field, over_alert(limit)));
            break;
        }
    }
    if measured.over.is_some() {
        measured.automata.clear();
    }
    measured
}

/// The patterns of both lists, each with its field.
fn patterns(alert: &Alert) -> impl Iterator<Item = (String, &Arc<Pattern>)> {
    let lists = [
        ("spec.inclusionList", &alert.included),
        ("spec.exclusionList", &alert.excluded),
    ];
    lists.into_iter().flat_map(|(field, list)| {
        let patterns = list.iter().flat_map(|patterns| patterns.iter());
        patterns.map(move |(position, pattern)| (format!("{field}[{position}]"), pattern))
    })
}

fn over_alert(limit: usize) -> String {
    format!(
        "the patterns of the Alert need more than {} MiB of memory up to this one; use smaller \
         repetitions and classes, remove patterns, or distribute them over several Alerts",
        limit >> 20
    )
}

fn over_work(namespace: &str) -> String {
    format!(
        "the patterns of namespace {namespace} need far more memory than all rules may use, and \
         this one is not compiled; remove patterns from Alerts of this namespace"
    )
}
