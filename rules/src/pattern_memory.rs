//! Limits the memory of compiled patterns: of each Alert, and of all rules together.
//!
//! Patterns are compiled here and not when an Alert is checked, so that no more than the limits
//! exists at any time. Equal patterns count once. Which Alerts are refused depends only on the
//! rules, and no namespace uses up the share of another; see [`shares`].

mod measure;
mod shares;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::alert::Alert;
use crate::check::{Checked, Resource};
use crate::options::MOST_PATTERN_BYTES;
use crate::pattern::{Automaton, Pattern};
use crate::problem::{Problem, Severity};
use measure::{Measured, measure};
use shares::{Demand, Refusals, refusals};

/// The memory of the patterns of one Alert.
const MAX_ALERT_BYTES: usize = 16 << 20;
/// How much may be compiled for a namespace to learn what its Alerts need.
const MAX_NAMESPACE_WORK: usize = 2 * MOST_PATTERN_BYTES;

/// The compiled patterns of the Alerts in effect. They exist as long as this value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Automata(
    #[expect(dead_code, reason = "keeps the automata alive")] Arc<[Arc<Automaton>]>,
);

/// Refuses Alerts whose patterns need too much memory: `total` bytes for all of them. `earlier` is
/// the last good state of an object. It stays in effect if there is room for it.
pub(crate) fn limit(
    total: usize,
    checked: &mut [Checked],
    earlier: impl Fn(&Checked) -> Option<Resource>,
) -> Automata {
    let mut held = Held {
        most: total,
        ..Held::default()
    };
    let mut demands = measure_all(checked, &mut held);
    let refused = refusals(&demands, total);
    for (position, over) in &refused.at {
        let demand = &demands[*position];
        let field = &demand.fields[*over];
        let message = over_total(total, &demand.namespace, &refused);
        reject(&mut checked[demand.owner], field, message);
    }
    let mut position = 0;
    demands.retain(|_| {
        position += 1;
        !refused.at.contains_key(&(position - 1))
    });
    held.retain(&demands);
    restore(total, checked, &mut demands, &mut held, earlier);
    held.retain(&demands);
    let patterns = demands.iter().flat_map(|demand| &demand.patterns);
    let compiled: HashMap<_, _> = patterns
        .filter_map(|(pattern, _)| Some((Arc::as_ptr(pattern), pattern.automaton().ok()?)))
        .collect();
    Automata(compiled.into_values().collect())
}

/// Automata that are kept until it is known which Alerts are in effect.
#[derive(Default)]
struct Held {
    automata: HashMap<*const Pattern, Arc<Automaton>>,
    bytes: usize,
    most: usize,
}

impl Held {
    /// Keeps the automata as long as there is room. The others are compiled again if needed.
    fn keep(&mut self, patterns: &[(Arc<Pattern>, usize)]) {
        for (pattern, bytes) in patterns {
            let id = Arc::as_ptr(pattern);
            if self.bytes + bytes > self.most || self.automata.contains_key(&id) {
                continue;
            }
            if let Ok(automaton) = pattern.automaton() {
                self.bytes += bytes;
                self.automata.insert(id, automaton);
            }
        }
    }

    /// Drops what no demand needs, so that there is room for what is compiled next.
    fn retain(&mut self, demands: &[Demand]) {
        let patterns = demands.iter().flat_map(|demand| &demand.patterns);
        let needed: HashMap<_, _> = patterns
            .map(|(pattern, bytes)| (Arc::as_ptr(pattern), bytes))
            .collect();
        self.automata.retain(|id, _| needed.contains_key(id));
        let kept = self
            .automata
            .keys()
            .filter_map(|id| needed.get(id).copied());
        self.bytes = kept.sum();
    }
}

/// What each Alert needs, ordered by namespace and name. Rejects Alerts that need too much by
/// themselves.
fn measure_all(checked: &mut [Checked], held: &mut Held) -> Vec<Demand> {
    let mut owners: Vec<_> = (0..checked.len())
        .filter(|owner| alert(&checked[*owner]).is_some())
        .collect();
    owners.sort_by(|left, right| checked[*left].identity.cmp(&checked[*right].identity));
    let mut work: BTreeMap<String, usize> = BTreeMap::new();
    let mut demands = Vec::new();
    for owner in owners {
        let Some(alert) = alert(&checked[owner]).cloned() else {
            continue;
        };
        let work = work.entry(alert.namespace.clone()).or_default();
        let measured = measure(&alert, MAX_ALERT_BYTES, MAX_NAMESPACE_WORK - *work);
        *work = (*work + measured.work).min(MAX_NAMESPACE_WORK);
        let checked = &mut checked[owner];
        report_too_large(checked, &measured);
        match measured.over {
            Some((field, message)) => reject(checked, &field, message),
            None => {
                held.keep(&measured.patterns);
                demands.push(Demand {
                    owner,
                    namespace: alert.namespace.clone(),
                    patterns: measured.patterns,
                    fields: measured.fields,
                });
            }
        }
    }
    demands
}

/// Restores the last good state of rejected Alerts, as far as there is room for them.
fn restore(
    total: usize,
    checked: &mut [Checked],
    demands: &mut Vec<Demand>,
    held: &mut Held,
    earlier: impl Fn(&Checked) -> Option<Resource>,
) {
    let first = demands.len();
    let mut states = Vec::new();
    for (owner, checked) in checked.iter().enumerate() {
        if checked.identity.kind != "Alert" || checked.resource.is_some() {
            continue;
        }
        let Some(Resource::Alert(alert)) = earlier(checked) else {
            continue;
        };
        let measured = measure(&alert, MAX_ALERT_BYTES, MAX_NAMESPACE_WORK);
        if measured.over.is_some() {
            continue;
        }
        held.keep(&measured.patterns);
        demands.push(Demand {
            owner,
            namespace: alert.namespace.clone(),
            patterns: measured.patterns,
            fields: measured.fields,
        });
        states.push(alert);
    }
    let refused = refusals(demands, total);
    let mut kept = demands.split_off(first);
    for (number, (demand, alert)) in kept.drain(..).zip(states).enumerate() {
        if !refused.at.contains_key(&(first + number)) {
            checked[demand.owner].resource = Some(Resource::Alert(alert));
            demands.push(demand);
        }
    }
}

fn alert(checked: &Checked) -> Option<&Arc<Alert>> {
    match &checked.resource {
        Some(Resource::Alert(alert)) => Some(alert),
        _ => None,
    }
}

/// Reports the patterns that are too large by themselves. They match nothing.
fn report_too_large(checked: &mut Checked, measured: &Measured) {
    if checked.rejection.is_some() {
        return;
    }
    for (field, message) in &measured.too_large {
        let message = format!("the pattern {message}; it matches no event");
        let problem = problem(checked, Severity::Fault, field, message);
        checked.problems.push(problem);
    }
}

/// Rejects an Alert. Its fields are those of the manifest only if it was not rejected before.
fn reject(checked: &mut Checked, field: &str, message: String) {
    checked.resource = None;
    if checked.rejection.is_some() {
        return;
    }
    checked.rejection = Some(format!("{field}: {message}"));
    let problem = problem(checked, Severity::Error, field, message);
    checked.problems.push(problem);
}

fn problem(checked: &Checked, severity: Severity, field: &str, message: String) -> Problem {
    Problem {
        object: Some(checked.identity.to_string()),
        field: Some(field.to_owned()),
        ..checked.origin.problem(severity, field, message)
    }
}

fn over_total(total: usize, namespace: &str, refused: &Refusals) -> String {
    format!(
        "the patterns of all Alerts need more than {} MiB of memory, and the share of namespace \
         {namespace}, {} KiB, is used up at this pattern; use smaller repetitions and classes, or \
         remove patterns from Alerts of this namespace",
        total >> 20,
        refused.share >> 10,
    )
}

#[cfg(test)]
mod tests;
