//! A compiled Alert: which events it selects, and what it adds to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::cluster_selector::ClusterSelector;
use crate::doubt;
use crate::options::Options;
use crate::pattern::{Allowance, Patterns, Refusal};
use crate::report::Report;
use crate::resource::{AlertSpec, SourceSpec, Version};
use crate::severities::Severities;
use crate::template::Template;
use tidings_core::model::glob::Globs;

/// The maximum length of the name and of the namespace of an object.
const MAX_NAME_LENGTH: usize = 253;
/// The maximum length in v1beta1.
const MAX_NAME_LENGTH_V1BETA1: usize = 53;

/// A compiled Alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The namespace of the Alert. Where rules come from several sources, it may be qualified with
    /// the source, as [`origin`](tidings_core::model::origin) says; so are those of Providers.
    pub namespace: String,
    /// The name of the Alert.
    pub name: String,
    /// The member of the fleet that the Alert lives in. It sees events of this cluster only.
    pub member: Option<Arc<str>>,
    /// The uid, or a UUIDv5 if the manifest has none.
    pub uid: String,
    /// `spec.suspend`; defaults to false.
    pub suspended: bool,
    /// The selected severities.
    pub severities: Severities,
    /// The selected objects. An event must match at least one entry.
    pub sources: Vec<EventSource>,
    /// The message of an event must match one of these patterns.
    pub included: Option<Patterns>,
    /// The message of an event must match none of these patterns.
    pub excluded: Option<Patterns>,
    /// The selected clusters; all clusters if `None`.
    pub clusters: Option<Globs>,
    /// Selects clusters by their labels, in addition to `clusters`; all clusters if `None`.
    pub cluster_selector: Option<ClusterSelector>,
    /// The name of the Provider.
    pub provider: String,
    /// The namespace of the Provider. Another one than that of the Alert needs a ProviderGrant;
    /// [`Rules::provider_of`](crate::Rules::provider_of) checks it.
    pub provider_namespace: String,
    /// Overrides the channel of the Provider, unless empty.
    pub channel: String,
    /// `spec.summary`; may be empty.
    pub summary: String,
    /// `spec.eventMetadata`.
    pub event_metadata: BTreeMap<String, String>,
    /// Overrides the template of the Provider.
    pub template: Option<Template>,
    /// The manifest as JSON, with namespace and uid filled in.
    pub manifest: Box<str>,
}

/// One entry of `eventSources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSource {
    /// The kind of the object.
    pub kind: String,
    /// The name of the object; any name if `None`.
    pub name: Option<String>,
    /// The namespace of the object; any namespace if `None`.
    pub namespace: Option<String>,
    /// The labels that the object must have.
    pub match_labels: BTreeMap<String, String>,
}

impl Alert {
    /// Compiles a manifest. Problems go to the report; an error in it rejects the Alert.
    pub fn compile(version: Version, options: &Options, report: &mut Report<'_>) -> Option<Self> {
        let spec = report.spec::<AlertSpec>()?;
        check_lengths(&spec, version, report);
        doubt::check(&spec, options, report);
        let identity = report.object.identity();
        let any_namespace = options.namespace_wildcard_for.contains(&identity.namespace);
        let mut allowance = Allowance::default();
        let mut patterns = |field, list| patterns(field, list, &mut allowance, report);
        let (included, excluded) = (
            patterns("spec.inclusionList", spec.inclusion_list),
            patterns("spec.exclusionList", spec.exclusion_list),
        );
        let source =
            |source: &SourceSpec| EventSource::compile(source, &identity.namespace, any_namespace);
        Some(Self {
            member: None,
            uid: report.uid(),
            suspended: spec.suspend.unwrap_or_default(),
            severities: severities(spec.event_severity.as_ref(), version, report),
            sources: spec.event_sources.iter().map(source).collect(),
            included,
            excluded,
            clusters: spec.clusters.map(|globs| clusters(&globs, report)),
            cluster_selector: spec
                .cluster_selector
                .map(|selector| ClusterSelector::compile(&selector, report)),
            provider_namespace: provider_namespace(
                spec.provider_ref.namespace,
                &identity.namespace,
                report,
            ),
            provider: spec.provider_ref.name,
            channel: spec.channel.unwrap_or_default(),
            summary: spec.summary.unwrap_or_default(),
            event_metadata: spec.event_metadata.unwrap_or_default(),
            template: Template::compile(spec.template, report),
            manifest: report.manifest().to_string().into(),
            namespace: identity.namespace,
            name: identity.name,
        })
    }
}

impl EventSource {
    fn compile(spec: &SourceSpec, own_namespace: &str, any_namespace: bool) -> Self {
        let namespace = match spec.namespace.as_deref().unwrap_or_default() {
            "" => Some(own_namespace.to_owned()),
            "*" if any_namespace => None,
            namespace => Some(namespace.to_owned()),
        };
        Self {
            kind: spec.kind.clone(),
            name: Some(spec.name.clone()).filter(|name| name != "*"),
            namespace,
            match_labels: spec.match_labels.clone().unwrap_or_default(),
        }
    }
}

fn check_lengths(spec: &AlertSpec, version: Version, report: &mut Report<'_>) {
    let max_length = if version == Version::V1beta1 {
        MAX_NAME_LENGTH_V1BETA1
    } else {
        MAX_NAME_LENGTH
    };
    if version > Version::V1beta1 {
        report.at_most("spec.summary", spec.summary.as_deref(), 255);
    }
    report.at_most("spec.channel", spec.channel.as_deref(), 2048);
    for (position, source) in spec.event_sources.iter().enumerate() {
        let field = |name: &str| format!("spec.eventSources[{position}].{name}");
        if source.kind.is_empty() {
            report.error(
                &field("kind"),
                "is empty; set a kind, such as Kustomization",
            );
        }
        if source.name.is_empty() {
            report.error(
                &field("name"),
                "is empty; set the name of an object, or '*' for all objects",
            );
        }
        report.at_most(&field("name"), Some(&source.name), max_length);
        report.at_most(&field("namespace"), source.namespace.as_deref(), max_length);
        for (key, value) in source.match_labels.iter().flatten() {
            if !is_label(key, value) {
                report.fault(
                    &field("matchLabels"),
                    format!("the label {key}={value} is invalid and matches no object; correct it"),
                );
            }
        }
    }
}

fn severities(field: Option<&Value>, version: Version, report: &mut Report<'_>) -> Severities {
    const FIELD: &str = "spec.eventSeverity";
    match field {
        None => Severities::threshold(version.default_severity()).unwrap_or(Severities::ALL),
        Some(Value::String(word)) => Severities::threshold(word).unwrap_or_else(|| {
            report.error(
                FIELD,
                format!("\"{word}\" is not supported; use info, warn or error"),
            );
            Severities::ALL
        }),
        Some(Value::Array(words)) => {
            let set = words.iter().try_fold(0, |set, word| {
                Some(set | Severities::word(word.as_str()?)?.0)
            });
            set.filter(|set| *set != 0)
                .map(Severities)
                .unwrap_or_else(|| {
                    report.error(
                        FIELD,
                        "the list must contain one or more of trace, info, warn and error",
                    );
                    Severities::ALL
                })
        }
        Some(_) => {
            report.error(
                FIELD,
                "must be info, warn or error, or a list of severities",
            );
            Severities::ALL
        }
    }
}

/// An empty list selects all events, and invalid patterns are ignored, as in Flux. So they do not
/// reject the Alert.
fn patterns(
    field: &str,
    list: Option<Vec<String>>,
    allowance: &mut Allowance,
    report: &mut Report<'_>,
) -> Option<Patterns> {
    let list = list.filter(|list| !list.is_empty())?;
    let (patterns, refused) = Patterns::check(&list, allowance);
    for (position, refusal) in refused {
        let field = format!("{field}[{position}]");
        match refusal {
            Refusal::Invalid(message) => {
                let message = format!("the pattern {message}; it matches no event");
                report.fault(&field, message);
            }
            Refusal::OverLimit(message) => report.error(&field, message),
        }
    }
    Some(patterns)
}

fn provider_namespace(given: Option<String>, own: &str, report: &mut Report<'_>) -> String {
    const FIELD: &str = "spec.providerRef.namespace";
    report.at_most(FIELD, given.as_deref(), 63);
    if given.as_ref().is_some_and(String::is_empty) {
        report.error(FIELD, "is empty; set a namespace, or remove the field");
    }
    given.unwrap_or_else(|| own.to_owned())
}

fn clusters(globs: &[String], report: &mut Report<'_>) -> Globs {
    if globs.is_empty() || globs.iter().any(String::is_empty) {
        report.error(
            "spec.clusters",
            "must list names, such as prod-*; remove it to select all clusters",
        );
    }
    Globs::new(globs)
}

/// Whether the label is valid in Kubernetes.
pub fn is_label(key: &str, value: &str) -> bool {
    is_label_key(key) && (value.is_empty() || is_label_word(value))
}

/// Whether the key is that of a label in Kubernetes.
pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_label_word);
    prefix.is_none_or(is_prefix) && is_label_word(name)
}

fn is_label_word(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pattern::{ALERT_STEPS, Decision, Steps};
    use crate::testing::alert;

    fn compile(version: Version, spec: Value) -> (Option<Alert>, Vec<String>, bool) {
        let object = alert("a", "p").set("/spec", spec).object();
        let mut report = Report::new(&object);
        let options = Options {
            namespace_wildcard_for: vec!["apps".into()],
            ..Options::default()
        };
        let alert = Alert::compile(version, &options, &mut report);
        let rejected = report.rejection().is_some();
        (
            alert,
            report.problems.iter().map(ToString::to_string).collect(),
            rejected,
        )
    }

    fn with(fields: Value) -> Value {
        alert("a", "p").with_fields(fields).value()["spec"].take()
    }

    #[test]
    fn severities_are_a_threshold_or_an_exact_set() {
        let all = ["", "trace", "info", "Info", "warning", "warn", "error"];
        for (version, severity, takes) in [
            (Version::V1beta1, Value::Null, vec!["error"]),
            (Version::V1beta2, Value::Null, all.to_vec()),
            (Version::V1beta3, json!("info"), all.to_vec()),
            (
                Version::V1beta3,
                json!("warn"),
                vec!["warning", "warn", "error"],
            ),
            (Version::V1beta3, json!("error"), vec!["error"]),
            (
                Version::V1beta3,
                json!(["trace", "error"]),
                vec!["trace", "error"],
            ),
        ] {
            let alert = compile(version, with(json!({"eventSeverity": severity})))
                .0
                .unwrap();
            let taken: Vec<_> = all
                .into_iter()
                .filter(|word| alert.severities.contains(word))
                .collect();
            assert_eq!(taken, takes, "{version:?} {severity}");
        }
    }

    #[test]
    fn a_source_defaults_to_the_namespace_of_the_alert() {
        let sources = json!([
            {"kind": "A", "name": "*"},
            {"kind": "A", "name": "a", "namespace": ""},
            {"kind": "A", "name": "a", "namespace": "*"},
        ]);
        let alert = compile(Version::V1beta3, with(json!({"eventSources": sources})))
            .0
            .unwrap();
        let found: Vec<_> = alert
            .sources
            .iter()
            .map(|source| (source.namespace.as_deref(), source.name.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                (Some("apps"), None),
                (Some("apps"), Some("a")),
                (None, Some("a"))
            ]
        );
        let own = EventSource::compile(
            &SourceSpec {
                api_version: None,
                kind: "A".into(),
                name: "a".into(),
                namespace: Some("*".into()),
                match_labels: None,
            },
            "x",
            false,
        );
        assert_eq!(own.namespace.as_deref(), Some("*"));
    }

    #[test]
    fn an_invalid_field_rejects_the_alert() {
        let long = "a".repeat(54);
        for (version, fields, field) in [
            (
                Version::V1beta3,
                json!({"eventSeverity": "trace"}),
                "spec.eventSeverity",
            ),
            (
                Version::V1beta3,
                json!({"eventSeverity": []}),
                "spec.eventSeverity",
            ),
            (
                Version::V1beta3,
                json!({"eventSeverity": ["Info"]}),
                "spec.eventSeverity",
            ),
            (
                Version::V1beta3,
                json!({"summary": "a".repeat(256)}),
                "spec.summary",
            ),
            (
                Version::V1beta3,
                json!({"eventSources": [{"kind": "A", "name": ""}]}),
                "spec.eventSources[0].name",
            ),
            (
                Version::V1beta3,
                json!({"eventSources": [{"kind": "A"}]}),
                "spec.eventSources[0].name",
            ),
            (
                Version::V1beta3,
                json!({"eventSources": [{"kind": "A", "name": "a".repeat(254)}]}),
                "spec.eventSources[0].name",
            ),
            (
                Version::V1beta1,
                json!({"eventSources": [{"kind": "A", "name": long}]}),
                "spec.eventSources[0].name",
            ),
            (
                Version::V1beta3,
                json!({"inclusionList": "a"}),
                "spec.inclusionList",
            ),
            (
                Version::V1beta3,
                json!({"inclusionList": [7]}),
                "spec.inclusionList[0]",
            ),
            (Version::V1beta3, json!({"suspend": "no"}), "spec.suspend"),
            (Version::V1beta3, json!({"clusters": []}), "spec.clusters"),
            (Version::V1beta3, json!({"template": {}}), "spec.template"),
        ] {
            let (_, problems, rejected) = compile(version, with(fields.clone()));
            assert!(
                rejected && problems[0].starts_with(&format!("Alert apps/a: {field}: ")),
                "{fields}: {problems:?}"
            );
        }
        assert!(
            compile(Version::V1beta3, json!({"eventSources": []})).2,
            "providerRef"
        );
    }

    #[test]
    fn a_pattern_or_label_that_matches_nothing_is_only_a_warning() {
        let sources = json!([{"kind": "A", "name": "*", "matchLabels": {"bad key": "a"}}]);
        let fields = json!({"inclusionList": ["(?!a)", "b"], "eventSources": sources});
        let (alert, problems, rejected) = compile(Version::V1beta3, with(fields));
        assert!(
            !rejected && {
                let included = alert.unwrap().included.unwrap();
                let found = included.search("b", &mut Steps::new(ALERT_STEPS));
                found.decision == Decision::Match
            }
        );
        assert_eq!(problems.len(), 2);
        assert!(
            problems[1].contains("spec.inclusionList[0]"),
            "{problems:?}"
        );
        assert!(!compile(Version::V1beta1, with(json!({"summary": "a".repeat(300)}))).2);
    }
}
