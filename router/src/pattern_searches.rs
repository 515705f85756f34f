//! The searches of patterns in the message of one event. They share a number of steps. Pure.

use tidings_rules::Alert;
use tidings_rules::pattern::{ALERT_STEPS, Decision, NAMESPACE_STEPS, Patterns, Steps};

/// The searches for one event. Alerts must come ordered by namespace.
///
/// # Guarantees
/// The work is limited for each Alert and for each namespace, so that no namespace takes the steps
/// of another. The decisions depend only on the rules and the message.
#[derive(Clone, Debug)]
pub struct PatternSearches {
    /// The steps for each Alert.
    alert_steps: u64,
    /// The steps for each namespace.
    namespace_steps: u64,
    namespace: String,
    left_for_namespace: u64,
    /// The steps for all namespaces, if they are limited for now.
    left_for_now: Option<u64>,
    /// The patterns that were left out, for each Alert.
    pub left_out: Vec<LeftOut>,
}

/// The patterns of an Alert that were left out because they would take too many steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The namespace of the Alert.
    pub namespace: String,
    /// The name of the Alert.
    pub name: String,
    /// The fields, such as `spec.inclusionList[3]`.
    pub fields: Vec<String>,
}

impl Default for PatternSearches {
    fn default() -> Self {
        Self::with_steps(ALERT_STEPS, NAMESPACE_STEPS)
    }
}

impl PatternSearches {
    /// Searches with fewer steps for each Alert and namespace. What needs more is left out.
    pub fn short(steps: u64) -> Self {
        Self::with_steps(steps, steps)
    }

    fn with_steps(alert_steps: u64, namespace_steps: u64) -> Self {
        Self {
            alert_steps,
            namespace_steps,
            namespace: String::new(),
            left_for_namespace: namespace_steps,
            left_for_now: None,
            left_out: Vec::new(),
        }
    }

    /// Searches that take only this number of steps for now. If they do not suffice,
    /// [`PatternSearches::must_go_on`] is true and the results so far count for nothing.
    pub fn for_now(steps: u64) -> Self {
        Self {
            left_for_now: Some(steps),
            ..Self::default()
        }
    }

    /// Whether the searches need more steps than they may take for now.
    pub fn must_go_on(&self) -> bool {
        self.left_for_now.is_some() && !self.left_out.is_empty()
    }

    /// The searches for the next Alert.
    pub(crate) fn of<'a>(&'a mut self, alert: &'a Alert, message: &'a str) -> AlertSearches<'a> {
        AlertSearches {
            left: self.alert_steps,
            all: self,
            alert,
            message,
        }
    }

    /// The fields that were left out of an Alert.
    pub fn fields_left_out(&self, alert: &Alert) -> Option<&[String]> {
        let is_it = |it: &&LeftOut| it.namespace == alert.namespace && it.name == alert.name;
        Some(&self.left_out.iter().rev().find(is_it)?.fields)
    }
}

/// The searches for one Alert.
pub(crate) struct AlertSearches<'a> {
    all: &'a mut PatternSearches,
    alert: &'a Alert,
    message: &'a str,
    left: u64,
}

impl AlertSearches<'_> {
    /// Searches with the patterns of a field; `None` without patterns.
    pub(crate) fn search(&mut self, field: &str, patterns: Option<&Patterns>) -> Option<Decision> {
        let patterns = patterns?;
        let all = &mut *self.all;
        if all.namespace != self.alert.namespace {
            all.namespace.clone_from(&self.alert.namespace);
            all.left_for_namespace = all.namespace_steps;
        }
        let may_take = self
            .left
            .min(all.left_for_namespace)
            .min(all.left_for_now.unwrap_or(u64::MAX));
        let mut steps = Steps::new(may_take);
        let search = patterns.search(self.message, &mut steps);
        let taken = may_take - steps.left();
        self.left -= taken;
        all.left_for_namespace -= taken;
        all.left_for_now = all.left_for_now.map(|left| left - taken);
        if search.decision == Decision::Undecided {
            let fields = search.undecided.iter();
            all.left_out.push(LeftOut {
                namespace: self.alert.namespace.clone(),
                name: self.alert.name.clone(),
                fields: fields.map(|at| format!("{field}[{at}]")).collect(),
            });
        }
        Some(search.decision)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_rules::testing::{alert, disorder};
    use tidings_rules::{Options, Rules};

    use super::*;

    const COSTLY: &str = "[ab]*a[ab]{900}c0";

    /// A message for which the pattern is costly.
    fn message() -> String {
        disorder(1, 100_000)
    }

    fn rules(namespaces: &[&str], patterns: usize) -> Rules {
        let list: Vec<_> = (0..patterns).map(|at| format!("{COSTLY}{at}")).collect();
        let objects: Vec<_> = namespaces
            .iter()
            .map(|namespace| {
                alert("a", "p")
                    .in_namespace(namespace)
                    .with("inclusionList", list.clone())
                    .with("exclusionList", json!([COSTLY, "b"]))
                    .object()
            })
            .collect();
        Rules::compile(&objects, &[], &Options::default())
    }

    #[test]
    fn a_namespace_takes_no_steps_of_another() {
        let (rules, message) = (rules(&["a", "b"], 40), message());
        let mut searches = PatternSearches::default();
        let mut used = Vec::new();
        for alert in rules.alerts() {
            let mut own = searches.of(alert, &message);
            let included = own.search("spec.inclusionList", alert.included.as_ref());
            assert_eq!(included, Some(Decision::Undecided));
            used.push(NAMESPACE_STEPS - searches.left_for_namespace);
        }
        assert_eq!(used[0], used[1]);
        assert!(0 < used[0] && used[0] <= ALERT_STEPS);
        assert_eq!(searches.left_out.len(), 2);
        assert_eq!(searches.left_out[0].fields.len(), 40);
        assert_eq!(searches.left_out[0].fields[7], "spec.inclusionList[7]");
    }

    #[test]
    fn all_alerts_of_a_namespace_share_its_steps() {
        let (rules, message) = (rules(&["a"], 40), message());
        let alert = rules.alerts().next().unwrap();
        let mut searches = PatternSearches::default();
        for _ in 0..1000 {
            searches
                .of(alert, &message)
                .search("spec.inclusionList", alert.included.as_ref());
            if searches.left_for_namespace < NAMESPACE_STEPS / 100 {
                return;
            }
        }
        panic!("{} steps are left", searches.left_for_namespace);
    }

    #[test]
    fn an_undecided_exclusion_is_left_out_and_named() {
        let (rules, message) = (rules(&["a"], 1), message());
        let alert = rules.alerts().next().unwrap();
        let mut searches = PatternSearches::default();
        let mut search = |message: &str| {
            let mut own = searches.of(alert, message);
            own.search("spec.exclusionList", alert.excluded.as_ref())
        };
        assert_eq!(
            search(&message),
            Some(Decision::Match),
            "of the other pattern"
        );
        assert_eq!(search(&message.replace('b', "a")), Some(Decision::NoMatch));
        let decision = search(&message.replace('b', "B"));
        assert_eq!(decision, Some(Decision::NoMatch));
        assert_eq!(searches.fields_left_out(alert), None);
    }

    #[test]
    fn searches_for_now_say_that_they_must_go_on() {
        let (rules, message) = (rules(&["a"], 1), message());
        let alert = rules.alerts().next().unwrap();
        for (steps, expected) in [(1_000, true), (ALERT_STEPS, true)] {
            let mut searches = PatternSearches::for_now(steps);
            searches
                .of(alert, &message)
                .search("spec.inclusionList", alert.included.as_ref());
            assert_eq!(searches.must_go_on(), expected);
        }
        let mut searches = PatternSearches::for_now(1_000_000);
        let mut own = searches.of(alert, "short");
        own.search("spec.inclusionList", alert.included.as_ref());
        assert!(!searches.must_go_on());
    }
}
