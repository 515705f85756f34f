//! Decides whether an Alert matches an event, and if not, why. Pure.

use tidings_core::bus::clusters::Clusters;
use tidings_core::model::flux;
use tidings_core::model::object_state::{self, ObjectState};
use tidings_core::model::origin;
pub use tidings_core::model::verdict::Verdict;
use tidings_core::{Event, ObjectLabels, object_labels};
use tidings_rules::pattern::Decision;
use tidings_rules::{Alert, EventSource, Family, Provider, Rules};

use crate::cluster_match::cluster_verdict;
use crate::pattern_searches::PatternSearches;

/// The verdict of an Alert on an event. `clusters` is what the hub knows of clusters. It allocates
/// no memory before it searches with patterns, because it runs for every candidate Alert.
pub fn verdict(
    alert: &Alert,
    event: &Event,
    rules: &Rules,
    clusters: &Clusters,
    searches: &mut PatternSearches,
) -> Verdict {
    if alert.suspended {
        return Verdict::AlertSuspended;
    }
    if let Some(verdict) = source_verdict(alert, event) {
        return verdict;
    }
    let cluster_verdict = cluster_verdict(alert, &event.cluster, clusters, rules.options());
    if let Some(verdict) = cluster_verdict {
        return verdict;
    }
    let mut searches = searches.of(alert, &event.message);
    match searches.search("spec.inclusionList", alert.included.as_ref()) {
        Some(Decision::NoMatch) => return Verdict::MessageNotIncluded,
        Some(Decision::Undecided) => return Verdict::PatternTooCostly,
        Some(Decision::Match) | None => {}
    }
    // An undecided exclusion is left out, as an invalid one is.
    if searches.search("spec.exclusionList", alert.excluded.as_ref()) == Some(Decision::Match) {
        return Verdict::MessageExcluded;
    }
    if rules.options().no_cross_namespace_refs
        && object(event).namespace != origin::plain(&alert.namespace)
    {
        return Verdict::CrossNamespaceRefused;
    }
    if !rules.may_use_provider(alert) {
        return Verdict::ProviderNotGranted;
    }
    // A missing Provider may be created soon, so its deliveries are planned and parked.
    rules
        .provider_of(alert)
        .map_or(Verdict::Matched, |provider| {
            provider_verdict(provider, event)
        })
}

/// Whether an event source names the object of the event, regardless of labels.
pub(crate) fn names(source: &EventSource, event: &Event) -> bool {
    let object = object(event);
    source.kind == object.kind
        && source
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
        && source.name.as_ref().is_none_or(|name| *name == object.name)
}

/// The involved object of an event; empty if the event has none.
pub(crate) fn object(event: &Event) -> &tidings_core::ObjectReference {
    static NO_OBJECT: std::sync::LazyLock<tidings_core::ObjectReference> =
        std::sync::LazyLock::new(Default::default);
    event.involved_object.as_ref().unwrap_or(&NO_OBJECT)
}

/// `None` if an event source matches; else the verdict of the source that comes closest.
fn source_verdict(alert: &Alert, event: &Event) -> Option<Verdict> {
    let mut closest = Verdict::NoEventSourceMatches;
    for source in alert.sources.iter().filter(|source| names(source, event)) {
        if !alert.severities.contains(&event.severity) {
            return Some(Verdict::BelowSeverity);
        }
        match labels_verdict(source, event.labels.as_ref()) {
            None => return None,
            // Unknown labels may match, so they are closer than labels that differ.
            Some(Verdict::LabelsDiffer) if closest == Verdict::LabelsUnknown => {}
            Some(verdict) => closest = verdict,
        }
    }
    Some(closest)
}

/// `None` if the labels match the source. An empty selector matches everything.
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

/// Whether the Provider's family handles the event. Reads the event's metadata, not the Alert's.
fn provider_verdict(provider: &Provider, event: &Event) -> Verdict {
    if provider.suspended {
        return Verdict::ProviderSuspended;
    }
    let is_update = flux::is_status_update(event);
    match provider.kind.family {
        Family::Generic => Verdict::Matched,
        Family::Message | Family::Incident | Family::ChangeRequest if is_update => {
            Verdict::NotACommitStatusProvider
        }
        Family::Message | Family::Incident => Verdict::Matched,
        Family::CommitStatus if is_update || concerns_commit(event, provider) => Verdict::Matched,
        Family::CommitStatus => Verdict::NoCommit,
        Family::ChangeRequest if has_annotation(event, "change_request") => Verdict::Matched,
        Family::ChangeRequest => Verdict::NoChangeRequest,
    }
}

/// Whether an event without `commit_status: update` concerns a commit. True for every failure (the
/// merged metadata may name a commit), for an event with the annotation `commit`, and for a state
/// that the Provider sets if the event has a git revision. The kind of the object does not matter:
/// whatever can turn a commit red can turn it green.
fn concerns_commit(event: &Event, provider: &Provider) -> bool {
    let is_set = match object_state::with(event, &provider.reason_states) {
        ObjectState::Failure => return true,
        ObjectState::Success => event.severity == "info",
        ObjectState::Pending => provider.commit_status.pending,
        ObjectState::None => false,
    };
    has_annotation(event, "commit")
        || is_set && revision(event).is_some_and(|revision| commit(revision).is_some())
}

fn has_annotation(event: &Event, key: &str) -> bool {
    flux::annotation(event, key).is_some_and(|value| !value.is_empty())
}

/// The git revision of an event. The revision of an OCI artifact's origin wins over the source's.
fn revision(event: &Event) -> Option<&str> {
    flux::controller_metadata(event, "originRevision")
        .or_else(|| flux::controller_metadata(event, "revision"))
}

/// The commit of a revision such as `main@sha1:<commit>`: 40 hexadecimal digits after the last `:`,
/// else after the last `/`.
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
        Kind::new("github", Family::CommitStatus),
        Kind::new("slack", Family::Message),
    ];
    const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

    /// Rules with one Alert that has these fields, and its Provider.
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

    fn verdict_of(rules: &Rules, event: &Event) -> Verdict {
        let mut searches = PatternSearches::default();
        verdict(
            rules.alert("apps", "a").unwrap(),
            event,
            rules,
            &Clusters::new(),
            &mut searches,
        )
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
    fn an_event_of_another_cluster_does_not_match() {
        let rules = rules("slack", json!({"clusters": ["us-*", "ap-1"]}));
        assert_eq!(verdict_of(&rules, &event(|_| ())), Verdict::OtherCluster);
        assert_eq!(
            verdict_of(&rules, &event(|event| event.cluster = "us-7".into())),
            Verdict::Matched
        );
    }

    #[test]
    fn unknown_labels_have_their_own_verdict() {
        let source =
            |labels: Value| json!({"kind": "Kustomization", "name": "*", "matchLabels": labels});
        let labeled = rules(
            "slack",
            json!({"eventSources": [source(json!({"a": "1"}))]}),
        );
        assert_eq!(verdict_of(&labeled, &event(|_| ())), Verdict::LabelsUnknown);
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
                verdict_of(&labeled, &with_labels(state, labels)),
                expected,
                "{state:?} {labels:?}"
            );
        }
        let either = rules(
            "slack",
            json!({"eventSources": [source(json!({"a": "1"})), source(json!({}))]}),
        );
        assert_eq!(
            verdict_of(&either, &event(|_| ())),
            Verdict::Matched,
            "an empty selector needs no labels"
        );
    }

    #[test]
    fn a_severity_mismatch_and_a_source_mismatch_have_different_verdicts() {
        let rules = rules("slack", json!({"eventSeverity": "error"}));
        assert_eq!(verdict_of(&rules, &event(|_| ())), Verdict::BelowSeverity);
        let other =
            event(|event| event.involved_object.get_or_insert_default().namespace = "other".into());
        assert_eq!(verdict_of(&rules, &other), Verdict::NoEventSourceMatches);
        assert_eq!(
            verdict_of(&rules, &Event::default()),
            Verdict::NoEventSourceMatches
        );
    }

    #[test]
    fn a_success_matches_a_commit_status_provider_if_its_revision_names_a_commit() {
        let kinds = ["Kustomization", "Terraform", "GitRepository", "App"];
        let sources: Vec<Value> = kinds
            .iter()
            .map(|kind| json!({"kind": kind, "name": "*"}))
            .collect();
        let fields = json!({"eventSources": sources});
        let rules = rules("github", fields.clone());
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
        for kind in kinds {
            assert_eq!(
                verdict_of(
                    &rules,
                    &success(kind, "ApplySucceed", "revision", &revision)
                ),
                Verdict::Matched,
                "{kind}"
            );
        }
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
                "DependencyNotReady",
                "revision",
                &revision,
                Verdict::NoCommit,
            ),
            (
                "RollbackSucceeded",
                "revision",
                &revision,
                Verdict::NoCommit,
            ),
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
                verdict_of(&rules, &success("Kustomization", reason, key, revision)),
                expected,
                "{reason} {key}"
            );
        }
        let extended = rules_with(
            fields,
            json!({"type": "github", "reasonStates": {"Deployed": "success"}}),
        );
        let deployed = success("App", "Deployed", "revision", &revision);
        assert_eq!(verdict_of(&rules, &deployed), Verdict::NoCommit);
        assert_eq!(verdict_of(&extended, &deployed), Verdict::Matched);
        let error = event(|event| event.severity = "error".into());
        assert_eq!(verdict_of(&rules, &error), Verdict::Matched);
        let pending = rules_with(
            json!({}),
            json!({"type": "github", "commitStatus": {"pending": true}}),
        );
        assert_eq!(
            verdict_of(
                &pending,
                &success("Kustomization", "Progressing", "revision", &revision)
            ),
            Verdict::Matched
        );
        assert_eq!(
            verdict_of(
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
