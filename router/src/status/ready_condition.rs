//! Computes the condition Ready of Alerts and Providers. Pure, except that checking a Provider
//! builds its notifier, as for an attempt.

use std::collections::HashMap;

use tidings_core::model::text::cut_bytes;
use tidings_rules::snapshot::RuleEntry;
use tidings_rules::verify::{self, Finding, Subject};
use tidings_rules::{Alert, Identity, Problem, Rules, Severity, TypeChecks};

use crate::costly_patterns::CostlyOf;

/// The longest message of a condition; longer ones are cut.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The reasons of the condition Ready. If several apply, the first in this order is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// `spec.type` is not supported.
    UnknownType,
    /// The template is invalid.
    InvalidTemplate,
    /// Another field is invalid.
    InvalidSpec,
    /// The Provider does not exist.
    ProviderNotFound,
    /// The Secret does not exist.
    SecretNotFound,
    /// The ConfigMap of the template, or its key, does not exist.
    TemplateNotFound,
    /// The type rejects the Provider or its Secrets, for example for a missing key.
    Misconfigured,
    /// A pattern of `inclusionList` or `exclusionList` is invalid and matches nothing.
    InvalidPattern,
    /// A pattern was too costly for a message of the last hour and had no effect.
    PatternTooCostly,
    /// No object can have such labels.
    InvalidLabels,
    /// In effect, but probably not as the author intended.
    Doubtful,
    /// The Provider of the Alert is not ready.
    ProviderNotReady,
    /// Suspended, without problems.
    Suspended,
    /// Without problems. The message may name keys of the Secret that have no effect.
    Initialized,
}

impl Reason {
    /// Whether the condition is True.
    pub fn is_ready(self) -> bool {
        self >= Self::Suspended
    }

    /// The reason in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "UnknownType",
            Self::InvalidTemplate => "InvalidTemplate",
            Self::InvalidSpec => "InvalidSpec",
            Self::ProviderNotFound => "ProviderNotFound",
            Self::SecretNotFound => "SecretNotFound",
            Self::TemplateNotFound => "TemplateNotFound",
            Self::Misconfigured => "Misconfigured",
            Self::InvalidPattern => "InvalidPattern",
            Self::PatternTooCostly => "PatternTooCostly",
            Self::InvalidLabels => "InvalidLabels",
            Self::Doubtful => "Doubtful",
            Self::ProviderNotReady => "ProviderNotReady",
            Self::Suspended => "Suspended",
            Self::Initialized => "Initialized",
        }
    }

    /// The reason for a finding.
    fn of_finding(subject: Subject) -> Self {
        match subject {
            Subject::MissingSecret => Self::SecretNotFound,
            Subject::MissingTemplate => Self::TemplateNotFound,
            Subject::Template => Self::InvalidTemplate,
            Subject::Configuration => Self::Misconfigured,
        }
    }

    /// The reason for a problem.
    fn of(problem: &Problem) -> Self {
        let field = problem.field.as_deref().unwrap_or_default();
        let is_list =
            field.starts_with("spec.inclusionList") || field.starts_with("spec.exclusionList");
        match problem.severity {
            _ if field.starts_with("spec.template") => Self::InvalidTemplate,
            Severity::Error if field == "spec.type" => Self::UnknownType,
            Severity::Fault if field.starts_with("spec.providerRef") => Self::ProviderNotFound,
            Severity::Fault if is_list => Self::InvalidPattern,
            Severity::Fault if field.ends_with("matchLabels") => Self::InvalidLabels,
            Severity::Error | Severity::Fault => Self::InvalidSpec,
            Severity::Warning if field == "spec.secretRef" => Self::Initialized,
            Severity::Warning => Self::Doubtful,
        }
    }
}

/// The condition Ready of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyCondition {
    /// Why it is True or False.
    pub reason: Reason,
    /// The explanation, without secrets.
    pub message: String,
}

impl ReadyCondition {
    fn without_problems(reason: Reason) -> Self {
        Self {
            reason,
            message: reason.as_str().to_owned(),
        }
    }

    /// All problems, under the most severe reason; `None` without problems.
    fn of(mut problems_found: Vec<(Reason, String)>, entry: &RuleEntry) -> Option<Self> {
        problems_found.sort_by_key(|(reason, _)| *reason);
        let reason = problems_found.first()?.0;
        let mut message = problems_found
            .into_iter()
            .map(|(_, sentence)| sentence)
            .collect::<Vec<_>>()
            .join("; ");
        if entry.rejection.is_some() && entry.in_effect {
            message.push_str("; the previous version stays in effect");
        }
        Some(Self {
            reason,
            message: cut_bytes(&message, MAX_MESSAGE_BYTES),
        })
    }
}

/// The conditions of all Alerts and Providers.
pub fn ready_conditions(
    rules: &Rules,
    checks: &dyn TypeChecks,
    costly: &CostlyOf<'_>,
) -> HashMap<Identity, ReadyCondition> {
    let mut findings: HashMap<Identity, Vec<Finding>> = HashMap::new();
    for finding in verify::findings(rules, checks) {
        let of_object = findings.entry(finding.identity.clone()).or_default();
        of_object.push(finding);
    }
    let mut found = |entry: &RuleEntry| {
        let findings = findings.remove(&entry.identity).unwrap_or_default();
        problems(entry, &findings)
    };
    let (alerts, providers): (Vec<_>, Vec<_>) = rules
        .entries()
        .iter()
        .partition(|entry| entry.identity.kind == "Alert");
    let mut conditions: HashMap<_, _> = providers
        .into_iter()
        .map(|entry| (entry.identity.clone(), provider(rules, entry, found(entry))))
        .collect();
    let alerts: Vec<_> = alerts
        .into_iter()
        .map(|entry| {
            let condition = alert(rules, entry, found(entry), &conditions, costly);
            (entry.identity.clone(), condition)
        })
        .collect();
    conditions.extend(alerts);
    conditions
}

fn provider(
    rules: &Rules,
    entry: &RuleEntry,
    problems_found: Vec<(Reason, String)>,
) -> ReadyCondition {
    let Identity {
        namespace, name, ..
    } = &entry.identity;
    let is_suspended = rules
        .provider(namespace, name)
        .is_some_and(|provider| provider.suspended);
    let reason = without_problems(is_suspended && entry.rejection.is_none());
    ReadyCondition::of(problems_found, entry)
        .filter(|condition| condition.reason <= reason)
        .unwrap_or_else(|| ReadyCondition::without_problems(reason))
}

fn alert(
    rules: &Rules,
    entry: &RuleEntry,
    mut problems_found: Vec<(Reason, String)>,
    conditions: &HashMap<Identity, ReadyCondition>,
    costly: &CostlyOf<'_>,
) -> ReadyCondition {
    let Identity {
        namespace, name, ..
    } = &entry.identity;
    let alert = rules.alert(namespace, name);
    let granted = alert.filter(|alert| rules.may_use_provider(alert));
    problems_found.extend(granted.and_then(|alert| unready_provider(alert, conditions)));
    let too_costly = alert.and_then(|alert| costly.explain(alert));
    problems_found.extend(too_costly.map(|why| (Reason::PatternTooCostly, why)));
    let reason = without_problems(alert.is_some_and(|alert| alert.suspended));
    ReadyCondition::of(problems_found, entry)
        .unwrap_or_else(|| ReadyCondition::without_problems(reason))
}

fn without_problems(is_suspended: bool) -> Reason {
    match is_suspended {
        true => Reason::Suspended,
        false => Reason::Initialized,
    }
}

/// The problems of an object by itself, and what was found about it.
fn problems(entry: &RuleEntry, findings: &[Finding]) -> Vec<(Reason, String)> {
    let sentence = |problem: &Problem| match &problem.field {
        Some(field) => format!("{field}: {}", problem.message),
        None => problem.message.clone(),
    };
    let own = entry
        .problems
        .iter()
        .map(|it| (Reason::of(it), sentence(it)));
    let found = findings
        .iter()
        .map(|it| (Reason::of_finding(it.subject), sentence(&it.problem)));
    own.chain(found).collect()
}

/// The problem of an Alert whose Provider is not ready, so that its deliveries would fail.
fn unready_provider(
    alert: &Alert,
    conditions: &HashMap<Identity, ReadyCondition>,
) -> Option<(Reason, String)> {
    let identity = Identity {
        kind: "Provider".into(),
        namespace: alert.provider_namespace.clone(),
        name: alert.provider.clone(),
    };
    let condition = conditions
        .get(&identity)
        .filter(|condition| !condition.reason.is_ready())?;
    Some((
        Reason::ProviderNotReady,
        format!(
            "{identity} is not ready ({}): {}",
            condition.reason.as_str(),
            condition.message
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tidings_rules::template::{Escape, Program};
    use tidings_rules::testing;
    use tidings_rules::{Family, Kind, Kinds, Object, Options, ResolvedProvider, RulesOrigin};

    use super::*;
    use crate::costly_patterns::CostlyPatterns;
    use crate::pattern_searches::LeftOut;

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    fn alert(name: &str, more: Value) -> Object {
        testing::alert(name, "good").with_fields(more).object()
    }

    fn provider(name: &str, more: Value) -> Object {
        testing::provider(name, "slack").with_fields(more).object()
    }

    /// A type that rejects the Provider `keyless`.
    struct Checks;

    impl TypeChecks for Checks {
        fn check_provider(&self, provider: Arc<ResolvedProvider>) -> Result<(), String> {
            match provider.secret.token() {
                None if provider.name == "keyless" => {
                    Err("the Secret of spec.secretRef needs the key token".to_owned())
                }
                _ => Ok(()),
            }
        }

        fn check_channel(&self, _: Arc<ResolvedProvider>, _: &str) -> Result<(), String> {
            Ok(())
        }

        fn check_expression(
            &self,
            _: &str,
            _: &Value,
            _: &BTreeMap<String, String>,
        ) -> Result<(), String> {
            Ok(())
        }

        fn check_template(
            &self,
            source: &str,
            escape: Escape,
            _: &BTreeMap<String, String>,
        ) -> Vec<String> {
            Program::compile(source, escape).err().into_iter().collect()
        }
    }

    /// The reason and message of each object.
    fn found(objects: &[Object]) -> HashMap<String, (&'static str, String)> {
        let rules = Rules::compile(objects, KINDS, &Options::default());
        let costly = CostlyPatterns::default();
        let conditions = ready_conditions(&rules, &Checks, &costly.of_origin(&RulesOrigin::Hub));
        assert_eq!(conditions.len(), rules.entries().len());
        conditions
            .into_iter()
            .map(|(identity, ReadyCondition { reason, message })| {
                (identity.to_string(), (reason.as_str(), message))
            })
            .collect()
    }

    #[test]
    fn a_key_without_effect_is_named_and_its_provider_is_ready() {
        let unread = json!({"secretRef": {"name": "s"}});
        let mut suspended = unread.clone();
        suspended["suspend"] = true.into();
        let objects = [
            testing::secret("s", json!({"unread": "x"})).object(),
            provider("p", unread),
            provider("suspended", suspended),
        ];
        let found = found(&objects);
        let (reason, message) = &found["Provider apps/p"];
        assert_eq!(*reason, "Initialized");
        assert!(message.contains("the key unread"), "{message}");
        assert_eq!(found["Provider apps/suspended"].0, "Suspended");
    }

    #[test]
    fn each_problem_has_its_reason_and_message() {
        let secret = |name: &str| json!({"secretRef": {"name": name}});
        let invalid_labels = json!({"kind": "K", "name": "*", "matchLabels": {"bad key": "a"}});
        let objects = [
            testing::secret("empty", json!({})).object(),
            provider("good", json!({})),
            provider(
                "suspended",
                json!({"suspend": true, "secretRef": {"name": "no"}}),
            ),
            provider("unknown", json!({"type": "unknown-type"})),
            provider("slow", json!({"timeout": "long"})),
            provider("no-secret", secret("no")),
            provider("keyless", secret("empty")),
            provider("identity", json!({"serviceAccountName": "me"})),
            alert("good", json!({})),
            alert("suspended", json!({"suspend": true})),
            alert(
                "on-suspended",
                json!({"providerRef": {"name": "suspended"}}),
            ),
            alert(
                "pattern",
                json!({"inclusionList": ["("], "exclusionList": ["a", "["]}),
            ),
            alert("labels", json!({"eventSources": [invalid_labels]})),
            alert("no-provider", json!({"providerRef": {"name": "no"}})),
            alert(
                "on-no-secret",
                json!({"providerRef": {"name": "no-secret"}}),
            ),
            alert(
                "empty",
                json!({"eventSources": [{"kind": "K", "name": ""}], "inclusionList": ["("]}),
            ),
            alert(
                "template",
                json!({"template": {"configMapKeyRef": {"name": "no", "key": "k"}}}),
            ),
            testing::config_map("texts", json!({"bad": "{{ ("})).object(),
            alert(
                "bad-template",
                json!({"template": {"configMapKeyRef": {"name": "texts", "key": "bad"}}}),
            ),
            alert("inline", json!({"template": {"inline": "{{ ("}})),
        ];
        let found = found(&objects);
        for (name, reason, part) in [
            ("Provider apps/good", "Initialized", "Initialized"),
            ("Provider apps/suspended", "Suspended", "Suspended"),
            (
                "Provider apps/unknown",
                "UnknownType",
                "\"unknown-type\" is not supported; use one of slack",
            ),
            ("Provider apps/slow", "InvalidSpec", "spec.timeout: "),
            (
                "Provider apps/no-secret",
                "SecretNotFound",
                "spec.secretRef: Secret apps/no not found",
            ),
            (
                "Provider apps/keyless",
                "Misconfigured",
                "needs the key token",
            ),
            (
                "Provider apps/identity",
                "Misconfigured",
                "workload identity",
            ),
            ("Alert apps/good", "Initialized", "Initialized"),
            ("Alert apps/suspended", "Suspended", "Suspended"),
            ("Alert apps/on-suspended", "Initialized", "Initialized"),
            (
                "Alert apps/pattern",
                "InvalidPattern",
                "spec.exclusionList[1]: the pattern",
            ),
            ("Alert apps/labels", "InvalidLabels", "bad key"),
            (
                "Alert apps/no-provider",
                "ProviderNotFound",
                "Provider apps/no not found",
            ),
            (
                "Alert apps/on-no-secret",
                "ProviderNotReady",
                "Provider apps/no-secret is not ready (SecretNotFound): spec.secretRef: Secret",
            ),
            (
                "Alert apps/empty",
                "InvalidSpec",
                "spec.eventSources[0].name: is empty",
            ),
            (
                "Alert apps/template",
                "TemplateNotFound",
                "ConfigMap apps/no",
            ),
            (
                "Alert apps/bad-template",
                "InvalidTemplate",
                "spec.template.configMapKeyRef: key bad of ConfigMap apps/texts: ",
            ),
            (
                "Alert apps/inline",
                "InvalidTemplate",
                "spec.template.inline: ",
            ),
        ] {
            let (actual, message) = &found[name];
            assert!(
                *actual == reason && message.contains(part),
                "{name}: {actual}: {message}"
            );
        }
        let all = &found["Alert apps/empty"].1;
        assert!(
            all.starts_with("spec.eventSources[0].name") && all.contains("; spec.inclusionList[0]"),
            "{all}"
        );
        assert!(
            found["Alert apps/pattern"]
                .1
                .contains("spec.inclusionList[0]"),
            "both lists are named"
        );
    }

    #[test]
    fn only_initialized_and_suspended_objects_are_ready() {
        let ready = [Reason::Initialized, Reason::Suspended].map(Reason::is_ready);
        let unready = [
            Reason::UnknownType,
            Reason::Doubtful,
            Reason::ProviderNotReady,
        ]
        .map(Reason::is_ready);
        assert_eq!((ready, unready), ([true; 2], [false; 3]));
    }

    #[test]
    fn a_costly_pattern_is_shown_until_the_patterns_change() {
        let rules = |pattern: &str| {
            let objects = [
                alert("a", json!({"inclusionList": [pattern]})),
                provider("good", json!({})),
            ];
            Rules::compile(&objects, KINDS, &Options::default())
        };
        let (costly, before) = (CostlyPatterns::default(), rules("a"));
        let left_out = LeftOut {
            namespace: "apps".into(),
            name: "a".into(),
            fields: vec!["spec.inclusionList[0]".into()],
        };
        costly.record(&before, &left_out, 400_000);
        let condition = |rules: &Rules| {
            let costly = costly.of_origin(&RulesOrigin::Hub);
            let mut conditions = ready_conditions(rules, &Checks, &costly);
            let identity = rules.entries()[0].identity.clone();
            let condition = conditions.remove(&identity).unwrap();
            (condition.reason.as_str(), condition.message)
        };
        let (reason, message) = condition(&before);
        assert_eq!(reason, "PatternTooCostly");
        assert!(message.starts_with("spec.inclusionList[0] "), "{message}");
        assert_eq!(condition(&rules("b")).0, "Initialized");
    }
}
