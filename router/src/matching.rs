//! Whether an Alert means an event, and if not, why not.

use tidings_core::model::flux;
pub use tidings_core::model::verdict::Verdict;
use tidings_core::{Event, ObjectLabels, object_labels};
use tidings_rules::{Alert, EventSource, Family, Provider, Rules};

/// Decides about one Alert and one event, by nothing else than these and the rules. Allocates
/// nothing until the Provider's family matters.
pub fn verdict(alert: &Alert, event: &Event, rules: &Rules) -> Verdict {
    if alert.suspended {
        return Verdict::AlertSuspended;
    }
    if let Some(verdict) = source_verdict(alert, event) {
        return verdict;
    }
    if alert
        .clusters
        .as_ref()
        .is_some_and(|clusters| !clusters.is_match(&event.cluster))
    {
        return Verdict::OtherCluster;
    }
    if alert
        .included
        .as_ref()
        .is_some_and(|patterns| !patterns.is_match(&event.message))
    {
        return Verdict::MessageNotIncluded;
    }
    if alert
        .excluded
        .as_ref()
        .is_some_and(|patterns| patterns.is_match(&event.message))
    {
        return Verdict::MessageExcluded;
    }
    if rules.options().no_cross_namespace_refs && object(event).namespace != alert.namespace {
        return Verdict::CrossNamespaceRefused;
    }
    // A Provider that is not there may be about to be created: its deliveries wait for it.
    rules
        .provider(&alert.namespace, &alert.provider)
        .map_or(Verdict::Matched, |provider| {
            provider_verdict(provider, event)
        })
}

/// Whether a source names the object of the event, labels apart.
pub(crate) fn names(source: &EventSource, event: &Event) -> bool {
    let object = object(event);
    source.kind == object.kind
        && source
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
        && source.name.as_ref().is_none_or(|name| *name == object.name)
}

/// The object of an event; one without any is about nothing.
pub(crate) fn object(event: &Event) -> &tidings_core::ObjectReference {
    static NOTHING: std::sync::LazyLock<tidings_core::ObjectReference> =
        std::sync::LazyLock::new(Default::default);
    event.involved_object.as_ref().unwrap_or(&NOTHING)
}

/// Nothing where some source means the event; else the reason of the one that came nearest.
fn source_verdict(alert: &Alert, event: &Event) -> Option<Verdict> {
    let mut nearest = Verdict::NoEventSourceMatches;
    for source in alert.sources.iter().filter(|source| names(source, event)) {
        if !alert.severities.contains(&event.severity) {
            return Some(Verdict::BelowSeverity);
        }
        match labels_verdict(source, event.labels.as_ref()) {
            None => return None,
            // An object whose labels are unknown may have been meant: that is nearer than one that
            // was not.
            Some(Verdict::LabelsDiffer) if nearest == Verdict::LabelsUnknown => {}
            Some(verdict) => nearest = verdict,
        }
    }
    Some(nearest)
}

/// Nothing where the labels are those that the source asks for. An empty selector selects
/// everything.
fn labels_verdict(source: &EventSource, labels: Option<&ObjectLabels>) -> Option<Verdict> {
    if source.match_labels.is_empty() {
        return None;
    }
    let state = labels.map_or(object_labels::State::Unknown, ObjectLabels::state);
    match (state, labels) {
        (object_labels::State::Known, Some(labels)) => {
            let agree = source
                .match_labels
                .iter()
                .all(|(key, value)| labels.labels.get(key) == Some(value));
            (!agree).then_some(Verdict::LabelsDiffer)
        }
        (object_labels::State::Absent, _) => Some(Verdict::LabelsDiffer),
        _ => Some(Verdict::LabelsUnknown),
    }
}

/// What the Provider's family takes. Only what the event itself says counts here, not the Alert's
/// metadata.
fn provider_verdict(provider: &Provider, event: &Event) -> Verdict {
    if provider.suspended {
        return Verdict::ProviderSuspended;
    }
    let is_update = flux::controller_metadata(event, "commit_status") == Some("update");
    match provider.kind.family {
        Family::Generic => Verdict::Matched,
        Family::Message | Family::ChangeRequest if is_update => Verdict::NotACommitStatusProvider,
        Family::Message => Verdict::Matched,
        Family::CommitStatus if is_update || says_commit(event, provider.commit_status.pending) => {
            Verdict::Matched
        }
        Family::CommitStatus => Verdict::NoCommit,
        Family::ChangeRequest if has_annotation(event, "change_request") => Verdict::Matched,
        Family::ChangeRequest => Verdict::NoChangeRequest,
    }
}

/// Whether an event that is no update concerns a commit: every error does (the commit is then
/// found, or not, in the combined metadata), one with the user's `commit`, and a Kustomization's
/// success whose revision holds one; also its progress, where the Provider tells it as pending.
fn says_commit(event: &Event, tells_pending: bool) -> bool {
    let is_told = event.reason != "Progressing" || tells_pending;
    let is_success = event.severity == "info" && is_told && object(event).kind == "Kustomization";
    event.severity == "error"
        || has_annotation(event, "commit")
        || is_success && revision(event).is_some_and(|revision| commit(revision).is_some())
}

fn has_annotation(event: &Event, key: &str) -> bool {
    flux::annotation(event, key).is_some_and(|value| !value.is_empty())
}

/// The git revision of an event: that behind an OCI artifact goes before that of the source.
fn revision(event: &Event) -> Option<&str> {
    flux::controller_metadata(event, "originRevision")
        .or_else(|| flux::controller_metadata(event, "revision"))
}

/// The commit of a revision such as `main@sha1:<commit>`: 40 hexadecimal digits behind the last
/// `:`, else the last `/`.
fn commit(revision: &str) -> Option<&str> {
    let commit = match (revision.rsplit_once(':'), revision.rsplit_once('/')) {
        (Some((_, tail)), _) | (None, Some((_, tail))) => tail,
        (None, None) => revision,
    };
    (commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(commit)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidings_core::ObjectReference;
    use tidings_rules::testing::{self, alert};
    use tidings_rules::{Kind, Kinds, Options};

    use super::*;

    const KINDS: Kinds = &[
        Kind {
            name: "github",
            family: Family::CommitStatus,
        },
        Kind {
            name: "slack",
            family: Family::Message,
        },
    ];
    const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

    /// One Alert with these fields, and its Provider.
    fn rules(kind: &str, fields: Value) -> Rules {
        rules_with(fields, json!({"type": kind}))
    }

    fn rules_with(fields: Value, provider: Value) -> Rules {
        let objects = [
            alert("a", "p").with_fields(fields).object(),
            testing::provider("p", "slack")
                .with_fields(provider)
                .object(),
        ];
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        assert_eq!(rules.problems(), []);
        rules
    }

    fn event(fields: impl FnOnce(&mut Event)) -> Event {
        let mut event = Event {
            cluster: "eu-1".into(),
            severity: "info".into(),
            message: "text".into(),
            involved_object: Some(ObjectReference {
                api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
                kind: "Kustomization".into(),
                namespace: "apps".into(),
                name: "x".into(),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        fields(&mut event);
        event
    }

    fn judge(rules: &Rules, event: &Event) -> Verdict {
        verdict(rules.alert("apps", "a").unwrap(), event, rules)
    }

    fn with_labels(state: object_labels::State, labels: &[(&str, &str)]) -> Event {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        event(|event| {
            event.labels = Some(ObjectLabels {
                state: state.into(),
                labels,
            })
        })
    }

    #[test]
    fn an_event_of_another_cluster_is_not_meant() {
        let rules = rules("slack", json!({"clusters": ["us-*", "ap-1"]}));
        assert_eq!(judge(&rules, &event(|_| ())), Verdict::OtherCluster);
        assert_eq!(
            judge(&rules, &event(|event| event.cluster = "us-7".into())),
            Verdict::Matched
        );
    }

    #[test]
    fn unknown_labels_are_told_apart_from_others() {
        let source =
            |labels: Value| json!({"kind": "Kustomization", "name": "*", "matchLabels": labels});
        let asks = rules(
            "slack",
            json!({"eventSources": [source(json!({"a": "1"}))]}),
        );
        assert_eq!(judge(&asks, &event(|_| ())), Verdict::LabelsUnknown);
        for (state, labels, expected) in [
            (
                object_labels::State::Unknown,
                &[("a", "1")][..],
                Verdict::LabelsUnknown,
            ),
            (object_labels::State::Absent, &[], Verdict::LabelsDiffer),
            (
                object_labels::State::Known,
                &[("a", "2")],
                Verdict::LabelsDiffer,
            ),
            (
                object_labels::State::Known,
                &[("b", "1"), ("a", "1")],
                Verdict::Matched,
            ),
        ] {
            assert_eq!(
                judge(&asks, &with_labels(state, labels)),
                expected,
                "{state:?} {labels:?}"
            );
        }
        let either = rules(
            "slack",
            json!({"eventSources": [source(json!({"a": "1"})), source(json!({}))]}),
        );
        assert_eq!(
            judge(&either, &event(|_| ())),
            Verdict::Matched,
            "an empty selector needs no labels"
        );
    }

    #[test]
    fn a_severity_that_is_not_taken_is_told_apart_from_a_source_that_is_not_meant() {
        let rules = rules("slack", json!({"eventSeverity": "error"}));
        assert_eq!(judge(&rules, &event(|_| ())), Verdict::BelowSeverity);
        let other =
            event(|event| event.involved_object.get_or_insert_default().namespace = "other".into());
        assert_eq!(judge(&rules, &other), Verdict::NoEventSourceMatches);
        assert_eq!(
            judge(&rules, &Event::default()),
            Verdict::NoEventSourceMatches
        );
    }

    #[test]
    fn a_success_counts_for_a_commit_status_when_its_revision_holds_a_commit() {
        let rules = rules("github", json!({}));
        let success = |kind: &str, reason: &str, key: &str, revision: &str| {
            event(|event| {
                event.involved_object.get_or_insert_default().kind = kind.into();
                event.reason = reason.into();
                event.metadata.insert(
                    format!("kustomize.toolkit.fluxcd.io/{key}"),
                    revision.into(),
                );
            })
        };
        let revision = format!("main@sha1:{COMMIT}");
        for (reason, key, revision, expected) in [
            (
                "ReconciliationSucceeded",
                "revision",
                revision.as_str(),
                Verdict::Matched,
            ),
            (
                "ReconciliationSucceeded",
                "originRevision",
                &revision,
                Verdict::Matched,
            ),
            ("Progressing", "revision", &revision, Verdict::NoCommit),
            (
                "ReconciliationSucceeded",
                "revision",
                "latest@sha256:abc",
                Verdict::NoCommit,
            ),
            (
                "ReconciliationSucceeded",
                "commit",
                COMMIT,
                Verdict::NoCommit,
            ),
        ] {
            assert_eq!(
                judge(&rules, &success("Kustomization", reason, key, revision)),
                expected,
                "{reason} {key}"
            );
        }
        let error = event(|event| event.severity = "error".into());
        assert_eq!(judge(&rules, &error), Verdict::Matched);
        let pending = rules_with(
            json!({}),
            json!({"type": "github", "commitStatus": {"pending": true}}),
        );
        assert_eq!(
            judge(
                &pending,
                &success("Kustomization", "Progressing", "revision", &revision)
            ),
            Verdict::Matched
        );
        assert_eq!(
            judge(
                &pending,
                &success("Kustomization", "Progressing", "revision", "6.5.4")
            ),
            Verdict::NoCommit
        );
    }

    #[test]
    fn a_commit_is_forty_hexadecimal_digits() {
        let hash = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
        for (text, expected) in [
            (format!("main@sha1:{hash}"), Some(hash)),
            (format!("main/{hash}"), Some(hash)),
            (hash.to_owned(), Some(hash)),
            (format!("latest@sha256:{hash}{}", &hash[..24]), None),
            (format!("main/{hash}:x"), None),
            ("z".repeat(40), None),
            (String::new(), None),
        ] {
            assert_eq!(commit(&text), expected, "{text}");
        }
    }
}
