//! An Alert, checked and compiled: which events are meant, and what is added to them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::check::Options;
use crate::glob::Globs;
use crate::pattern::Patterns;
use crate::resource::{AlertSpec, Report, SourceSpec, Version};
use crate::template::Template;

/// The longest name of an object, and of a namespace.
const LONGEST_NAME: usize = 253;
/// The same in v1beta1.
const LONGEST_NAME_V1BETA1: usize = 53;

/// A compiled Alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; UUIDv5 where the manifest has none.
    pub uid: String,
    /// Whether it is suspended.
    pub suspended: bool,
    /// The severities that are meant.
    pub severities: Severities,
    /// The objects that are meant; any of them.
    pub sources: Vec<Source>,
    /// One of these must be found in the message.
    pub included: Option<Patterns>,
    /// None of these may be found in the message.
    pub excluded: Option<Patterns>,
    /// The clusters that are meant; nothing: every one.
    pub clusters: Option<Globs>,
    /// The Provider, in the same namespace.
    pub provider: String,
    /// Takes the place of the Provider's channel, unless empty.
    pub channel: String,
    /// `spec.summary`; may be empty.
    pub summary: String,
    /// `spec.eventMetadata`.
    pub event_metadata: BTreeMap<String, String>,
    /// The text that is sent, where it is the user's own.
    pub template: Option<Template>,
    /// The manifest, with namespace and uid filled in.
    pub manifest: Value,
}

/// One entry of `eventSources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The exact kind.
    pub kind: String,
    /// The exact name; nothing: any.
    pub name: Option<String>,
    /// The exact namespace; nothing: any.
    pub namespace: Option<String>,
    /// Labels that the object must have.
    pub match_labels: BTreeMap<String, String>,
}

/// A set of severities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Severities(u8);

impl Severities {
    /// Every severity, also those that nobody has heard of.
    pub const ALL: Self = Self(0b1_1111);
    /// The words that a list may hold, in the order of their bits.
    pub(crate) const WORDS: [&'static str; 4] = ["trace", "info", "warn", "error"];

    /// The set of one word of a list.
    fn word(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .position(|known| *known == word)
            .map(|bit| Self(1 << bit))
    }

    /// What is at or above a threshold. `info` is the lowest, and takes all.
    fn threshold(word: &str) -> Option<Self> {
        match word {
            "info" => Some(Self::ALL),
            "warn" => Some(Self(0b1100)),
            "error" => Some(Self(0b1000)),
            _ => None,
        }
    }

    /// Whether an event of this severity is meant. Renderer count as they are written: `ERROR` is none
    /// that is known.
    pub fn takes(self, severity: &str) -> bool {
        let word = tidings_core::model::subject::severity_word(severity);
        let bit = Self::WORDS
            .iter()
            .position(|known| *known == word)
            .unwrap_or(Self::WORDS.len());
        self.0 & 1 << bit != 0
    }
}

impl Alert {
    /// Checks and compiles a manifest. Whether it is refused is in the report.
    pub fn compile(version: Version, options: &Options, report: &mut Report<'_>) -> Option<Self> {
        let spec = report.spec::<AlertSpec>()?;
        check_lengths(&spec, version, report);
        let identity = report.object.identity();
        let any_namespace = options.namespace_wildcard_for.contains(&identity.namespace);
        let source =
            |source: &SourceSpec| Source::compile(source, &identity.namespace, any_namespace);
        Some(Self {
            uid: uid(report),
            suspended: spec.suspend.unwrap_or_default(),
            severities: severities(spec.event_severity.as_ref(), version, report),
            sources: spec.event_sources.iter().map(source).collect(),
            included: patterns("spec.inclusionList", spec.inclusion_list, report),
            excluded: patterns("spec.exclusionList", spec.exclusion_list, report),
            clusters: spec.clusters.map(|globs| clusters(&globs, report)),
            provider: spec.provider_ref.name,
            channel: spec.channel.unwrap_or_default(),
            summary: spec.summary.unwrap_or_default(),
            event_metadata: spec.event_metadata.unwrap_or_default(),
            template: Template::compile(spec.template, report),
            manifest: manifest(report),
            namespace: identity.namespace,
            name: identity.name,
        })
    }
}

impl Source {
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

/// The uid of the manifest, else one made of kind, namespace and name.
pub(crate) fn uid(report: &Report<'_>) -> String {
    match report.object.text(&["metadata", "uid"]) {
        "" => report.object.identity().uid(),
        uid => uid.to_owned(),
    }
}

/// The manifest as an API server would show it to expressions: with namespace and uid, without its
/// book-keeping.
pub(crate) fn manifest(report: &Report<'_>) -> Value {
    let mut manifest = report.object.value.clone();
    let (namespace, uid) = (report.object.identity().namespace, uid(report));
    if let Some(metadata) = manifest["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.insert("namespace".to_owned(), namespace.into());
        metadata.insert("uid".to_owned(), uid.into());
    }
    manifest
}

fn check_lengths(spec: &AlertSpec, version: Version, report: &mut Report<'_>) {
    let longest = if version == Version::V1beta1 {
        LONGEST_NAME_V1BETA1
    } else {
        LONGEST_NAME
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
                "is empty; name a kind, such as Kustomization",
            );
        }
        if source.name.is_empty() {
            report.error(
                &field("name"),
                "is empty; name an object, or write '*' for every one",
            );
        }
        report.at_most(&field("name"), Some(&source.name), longest);
        report.at_most(&field("namespace"), source.namespace.as_deref(), longest);
        for (key, value) in source.match_labels.iter().flatten() {
            if !is_label(key, value) {
                report.warn(
                    &field("matchLabels"),
                    format!("no object can have the label {key}={value}"),
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
            report.error(FIELD, format!("\"{word}\" is none of info, warn and error"));
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
                        "as a list must hold one or more of trace, info, warn and error",
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

/// An empty list is no list; invalid patterns are left out, as in Flux.
fn patterns(field: &str, list: Option<Vec<String>>, report: &mut Report<'_>) -> Option<Patterns> {
    let list = list.filter(|list| !list.is_empty())?;
    let (patterns, invalid) = Patterns::compile(&list);
    for (position, sentence) in invalid {
        report.warn(
            &format!("{field}[{position}]"),
            format!("the pattern {sentence}; it matches nothing"),
        );
    }
    Some(patterns)
}

fn clusters(globs: &[String], report: &mut Report<'_>) -> Globs {
    if globs.is_empty() || globs.iter().any(String::is_empty) {
        report.error(
            "spec.clusters",
            "names no cluster; leave it out for every cluster",
        );
    }
    Globs::new(globs)
}

/// Whether Kubernetes would take such a label.
fn is_label(key: &str, value: &str) -> bool {
    let word = |text: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        text.len() <= 63
            && edge(text.bytes().next())
            && edge(text.bytes().last())
            && text.bytes().all(inner)
    };
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefixed = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(word));
    prefixed && word(name) && (value.is_empty() || word(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;

    fn compile(version: Version, spec: Value) -> (Option<Alert>, Vec<String>, bool) {
        let object = Object::new(
            json!({"kind": "Alert", "metadata": {"name": "a", "namespace": "apps"}, "spec": spec}),
        );
        let mut report = Report::new(&object);
        let options = Options {
            namespace_wildcard_for: vec!["apps".into()],
            ..Options::default()
        };
        let alert = Alert::compile(version, &options, &mut report);
        let refused = report.refusal().is_some();
        (
            alert,
            report.problems.iter().map(ToString::to_string).collect(),
            refused,
        )
    }

    fn with(fields: Value) -> Value {
        let mut spec = json!({"providerRef": {"name": "p"}, "eventSources": [{"kind": "Kustomization", "name": "*"}]});
        spec.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        spec
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
                .filter(|word| alert.severities.takes(word))
                .collect();
            assert_eq!(taken, takes, "{version:?} {severity}");
        }
    }

    #[test]
    fn a_source_is_in_the_alerts_namespace_unless_it_says_otherwise() {
        let sources = json!([{"kind": "A", "name": "*"}, {"kind": "A", "name": "a", "namespace": ""}, {"kind": "A", "name": "a", "namespace": "*"}]);
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
        let own = Source::compile(
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
    fn what_the_api_refuses_is_refused_with_its_field() {
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
                "spec.eventSources[0]",
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
            let (_, problems, refused) = compile(version, with(fields.clone()));
            assert!(
                refused && problems[0].starts_with(&format!("Alert apps/a: {field}: ")),
                "{fields}: {problems:?}"
            );
        }
        assert!(
            compile(Version::V1beta3, json!({"eventSources": []})).2,
            "providerRef"
        );
    }

    #[test]
    fn what_only_matches_nothing_is_told_and_stays_in_force() {
        let fields = json!({"inclusionList": ["(?!a)", "b"], "eventSources": [{"kind": "A", "name": "*", "matchLabels": {"bad key": "a"}}]});
        let (alert, problems, refused) = compile(Version::V1beta3, with(fields));
        assert!(!refused && alert.unwrap().included.unwrap().is_match("b"));
        assert_eq!(problems.len(), 2);
        assert!(
            problems[1].contains("spec.inclusionList[0]"),
            "{problems:?}"
        );
        assert!(!compile(Version::V1beta1, with(json!({"summary": "a".repeat(300)}))).2);
    }
}
