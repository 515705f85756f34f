//! What the condition Ready of an Alert or a Provider says. Pure, except that a Provider is made
//! ready as for an attempt.

use std::collections::HashMap;
use std::sync::Arc;

use tidings_rules::snapshot::RuleEntry;
use tidings_rules::template::{Escape, Program};
use tidings_rules::{
    Alert, Identity, Problem, ResolvedProvider, Rules, Severity, Template, Unresolved,
};

/// Tells what is wrong with a Provider in the eyes of its type, in a sentence without secrets.
pub type CheckProvider = dyn Fn(Arc<ResolvedProvider>) -> Result<(), String> + Send + Sync;

/// Longer messages are cut.
const LONGEST_MESSAGE_BYTES: usize = 1024;

/// The reasons of the condition Ready: a closed set. Of several that hold, the first one in this
/// order is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// `spec.type` is none of the known ones.
    UnknownType,
    /// `spec.template`, or what it names, can't be used.
    InvalidTemplate,
    /// Another field can't be used.
    InvalidSpec,
    /// There is no such Provider.
    ProviderNotFound,
    /// There is no such Secret.
    SecretNotFound,
    /// There is no such ConfigMap, or not this key in it.
    TemplateNotFound,
    /// What the Provider and its Secrets hold does not make a Provider of this type: a missing key,
    /// an address that is none.
    Misconfigured,
    /// A pattern of `inclusionList` or `exclusionList` is none, and matches nothing.
    InvalidPattern,
    /// No object can have such labels.
    InvalidLabels,
    /// In force, and does perhaps not what was meant.
    Doubtful,
    /// The Provider of the Alert is not ready.
    ProviderNotReady,
    /// `suspend: true`, and nothing is wrong.
    Suspended,
    /// Nothing is wrong.
    Initialized,
}

impl Reason {
    /// Whether the condition is True.
    pub fn is_ready(self) -> bool {
        self >= Self::Suspended
    }

    /// The reason as it is in the condition.
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
            Self::InvalidLabels => "InvalidLabels",
            Self::Doubtful => "Doubtful",
            Self::ProviderNotReady => "ProviderNotReady",
            Self::Suspended => "Suspended",
            Self::Initialized => "Initialized",
        }
    }

    /// The reason that stands for a problem.
    fn of(problem: &Problem) -> Self {
        let field = problem.field.as_deref().unwrap_or_default();
        let is_list =
            field.starts_with("spec.inclusionList") || field.starts_with("spec.exclusionList");
        match problem.severity {
            _ if field.starts_with("spec.template") => Self::InvalidTemplate,
            Severity::Error if field == "spec.type" => Self::UnknownType,
            Severity::Error => Self::InvalidSpec,
            Severity::Warning if field.starts_with("spec.providerRef") => Self::ProviderNotFound,
            Severity::Warning if is_list => Self::InvalidPattern,
            Severity::Warning if field.ends_with("matchLabels") => Self::InvalidLabels,
            Severity::Warning => Self::Doubtful,
        }
    }
}

/// What the condition Ready of one object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why it is True or False.
    pub reason: Reason,
    /// The same in a sentence, without secrets.
    pub message: String,
}

impl Finding {
    fn good(reason: Reason) -> Self {
        Self {
            reason,
            message: reason.as_str().to_owned(),
        }
    }

    /// Everything that is wrong, under the gravest reason; nothing where nothing is.
    fn of(mut troubles: Vec<(Reason, String)>, entry: &RuleEntry) -> Option<Self> {
        troubles.sort_by_key(|(reason, _)| *reason);
        let reason = troubles.first()?.0;
        let mut message = troubles
            .into_iter()
            .map(|(_, sentence)| sentence)
            .collect::<Vec<_>>()
            .join("; ");
        if entry.rejection.is_some() && entry.in_effect {
            message.push_str("; what was in force before stays in force");
        }
        Some(Self {
            reason,
            message: cut(&message, LONGEST_MESSAGE_BYTES),
        })
    }
}

/// Finds out about every Alert and Provider that somebody has written.
pub fn findings(rules: &Rules, check: &CheckProvider) -> HashMap<Identity, Finding> {
    let (alerts, providers): (Vec<_>, Vec<_>) = rules
        .entries()
        .iter()
        .partition(|entry| entry.identity.kind == "Alert");
    let mut findings: HashMap<_, _> = providers
        .into_iter()
        .map(|entry| (entry.identity.clone(), provider(rules, entry, check)))
        .collect();
    let alerts: Vec<_> = alerts
        .into_iter()
        .map(|entry| (entry.identity.clone(), alert(rules, entry, &findings)))
        .collect();
    findings.extend(alerts);
    findings
}

/// A Provider that is suspended is not made ready: what its Secrets lack may be why it is.
fn provider(rules: &Rules, entry: &RuleEntry, check: &CheckProvider) -> Finding {
    let Identity {
        namespace, name, ..
    } = &entry.identity;
    let mut troubles = problems(entry);
    let provider = rules.provider(namespace, name);
    troubles.extend(template(
        rules,
        namespace,
        provider.and_then(|provider| provider.template.as_ref()),
    ));
    let mut good = Reason::Initialized;
    if entry.rejection.is_none() {
        match rules.resolve(namespace, name) {
            Ok(resolved) => troubles.extend(
                check(resolved)
                    .err()
                    .map(|sentence| (Reason::Misconfigured, sentence)),
            ),
            Err(Unresolved::Missing(sentence)) => troubles.push((Reason::SecretNotFound, sentence)),
            Err(Unresolved::Invalid(sentence)) => troubles.push((Reason::Misconfigured, sentence)),
            Err(Unresolved::Suspended(_)) => good = Reason::Suspended,
        }
    }
    Finding::of(troubles, entry).unwrap_or_else(|| Finding::good(good))
}

fn alert(rules: &Rules, entry: &RuleEntry, findings: &HashMap<Identity, Finding>) -> Finding {
    let Identity {
        namespace, name, ..
    } = &entry.identity;
    let alert = rules.alert(namespace, name);
    let mut troubles = problems(entry);
    troubles.extend(template(
        rules,
        namespace,
        alert.and_then(|alert| alert.template.as_ref()),
    ));
    troubles.extend(alert.and_then(|alert| unready_provider(alert, findings)));
    let is_suspended = alert.is_some_and(|alert| alert.suspended);
    let good = if is_suspended {
        Reason::Suspended
    } else {
        Reason::Initialized
    };
    Finding::of(troubles, entry).unwrap_or_else(|| Finding::good(good))
}

fn problems(entry: &RuleEntry) -> Vec<(Reason, String)> {
    let sentence = |problem: &Problem| match &problem.field {
        Some(field) => format!("{field}: {}", problem.message),
        None => problem.message.clone(),
    };
    entry
        .problems
        .iter()
        .map(|problem| (Reason::of(problem), sentence(problem)))
        .collect()
}

/// What is wrong with a template in a ConfigMap; of one that is inline the rules have told it
/// already.
fn template(
    rules: &Rules,
    namespace: &str,
    template: Option<&Template>,
) -> Option<(Reason, String)> {
    let Some(reference @ Template::ConfigMap { name, key }) = template else {
        return None;
    };
    match rules.template(namespace, reference) {
        Err(unresolved) => Some((Reason::TemplateNotFound, unresolved.to_string())),
        Ok(text) => {
            let sentence = Program::compile(text, Escape::None).err()?;
            let place = format!("the key {key} in ConfigMap {namespace}/{name} for spec.template");
            Some((
                Reason::InvalidTemplate,
                format!("{place}: {sentence}; notifications go out in the standard form"),
            ))
        }
    }
}

/// Its notifications would go nowhere.
fn unready_provider(
    alert: &Alert,
    findings: &HashMap<Identity, Finding>,
) -> Option<(Reason, String)> {
    let identity = Identity {
        kind: "Provider".into(),
        namespace: alert.namespace.clone(),
        name: alert.provider.clone(),
    };
    let finding = findings
        .get(&identity)
        .filter(|finding| !finding.reason.is_ready())?;
    Some((
        Reason::ProviderNotReady,
        format!(
            "{identity} is not ready ({}): {}",
            finding.reason.as_str(),
            finding.message
        ),
    ))
}

/// At most so many bytes; an ellipsis stands for the rest.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidings_rules::testing;
    use tidings_rules::{Family, Kind, Kinds, Object, Options};

    use super::*;

    const KINDS: Kinds = &[Kind {
        name: "slack",
        family: Family::Message,
    }];

    fn alert(name: &str, more: Value) -> Object {
        testing::alert(name, "good").with_fields(more).object()
    }

    fn provider(name: &str, more: Value) -> Object {
        testing::provider(name, "slack").with_fields(more).object()
    }

    /// The reason and the message of each object; a type of Provider that needs the key token.
    fn found(objects: &[Object]) -> HashMap<String, (&'static str, String)> {
        let rules = Rules::compile(objects, KINDS, &Options::default());
        let check = |provider: Arc<ResolvedProvider>| match provider.secret.token() {
            None if provider.name == "keyless" => {
                Err("the Secret of spec.secretRef needs the key token".to_owned())
            }
            _ => Ok(()),
        };
        let findings = findings(&rules, &check);
        assert_eq!(findings.len(), rules.entries().len());
        findings
            .into_iter()
            .map(|(identity, Finding { reason, message })| {
                (identity.to_string(), (reason.as_str(), message))
            })
            .collect()
    }

    #[test]
    fn each_kind_of_trouble_has_its_reason_and_says_what_to_do() {
        let secret = |name: &str| json!({"secretRef": {"name": name}});
        let objects = [
            testing::secret("empty", json!({})).object(),
            provider("good", json!({})),
            provider(
                "asleep",
                json!({"suspend": true, "secretRef": {"name": "no"}}),
            ),
            provider("unknown", json!({"type": "pigeon"})),
            provider("slow", json!({"timeout": "long"})),
            provider("lost", secret("no")),
            provider("keyless", secret("empty")),
            provider("identity", json!({"serviceAccountName": "me"})),
            alert("good", json!({})),
            alert("asleep", json!({"suspend": true})),
            alert("on-asleep", json!({"providerRef": {"name": "asleep"}})),
            alert(
                "pattern",
                json!({"inclusionList": ["("], "exclusionList": ["a", "["]}),
            ),
            alert(
                "labels",
                json!({"eventSources": [{"kind": "K", "name": "*", "matchLabels": {"bad key": "a"}}]}),
            ),
            alert("orphan", json!({"providerRef": {"name": "no"}})),
            alert("on-lost", json!({"providerRef": {"name": "lost"}})),
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
                "garbled",
                json!({"template": {"configMapKeyRef": {"name": "texts", "key": "bad"}}}),
            ),
            alert("inline", json!({"template": {"inline": "{{ ("}})),
        ];
        let found = found(&objects);
        for (name, reason, part) in [
            ("Provider apps/good", "Initialized", "Initialized"),
            ("Provider apps/asleep", "Suspended", "Suspended"),
            (
                "Provider apps/unknown",
                "UnknownType",
                "\"pigeon\" is not supported; use one of slack",
            ),
            ("Provider apps/slow", "InvalidSpec", "spec.timeout: "),
            (
                "Provider apps/lost",
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
            ("Alert apps/asleep", "Suspended", "Suspended"),
            ("Alert apps/on-asleep", "Initialized", "Initialized"),
            (
                "Alert apps/pattern",
                "InvalidPattern",
                "spec.exclusionList[1]: the pattern",
            ),
            ("Alert apps/labels", "InvalidLabels", "bad key"),
            (
                "Alert apps/orphan",
                "ProviderNotFound",
                "Provider apps/no not found",
            ),
            (
                "Alert apps/on-lost",
                "ProviderNotReady",
                "Provider apps/lost is not ready (SecretNotFound): spec.secretRef: Secret",
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
                "Alert apps/garbled",
                "InvalidTemplate",
                "the key bad in ConfigMap apps/texts for spec.template: ",
            ),
            (
                "Alert apps/inline",
                "InvalidTemplate",
                "spec.template.inline: ",
            ),
        ] {
            let (is, message) = &found[name];
            assert!(
                *is == reason && message.contains(part),
                "{name}: {is}: {message}"
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
    fn only_what_is_well_or_asleep_is_ready() {
        let ready = [Reason::Initialized, Reason::Suspended].map(Reason::is_ready);
        let unready = [
            Reason::UnknownType,
            Reason::Doubtful,
            Reason::ProviderNotReady,
        ]
        .map(Reason::is_ready);
        assert_eq!((ready, unready), ([true; 2], [false; 3]));
    }
}
