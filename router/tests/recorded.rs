//! Compares the router with 242 recorded decisions of notification-controller.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidings_core::bus::clusters::Clusters;
use tidings_core::{Event, ObjectLabels, ObjectReference, object_labels};
use tidings_router::{PlanContext, Verdict, explain, plan};
use tidings_rules::{Family, Kind, Kinds, Object, Options, Rules, Unresolved};

const KINDS: Kinds = &[
    kind("slack", Family::Message),
    kind("discord", Family::Message),
    kind("msteams", Family::Message),
    kind("generic", Family::Generic),
    kind("generic-hmac", Family::Generic),
    kind("github", Family::CommitStatus),
    kind("gitlab", Family::CommitStatus),
    kind("gitea", Family::CommitStatus),
    kind("bitbucketserver", Family::CommitStatus),
    kind("bitbucket", Family::CommitStatus),
    kind("azuredevops", Family::CommitStatus),
    kind("giteapullrequestcomment", Family::ChangeRequest),
    kind("githubpullrequestcomment", Family::ChangeRequest),
    kind("gitlabmergerequestcomment", Family::ChangeRequest),
    kind("googlechat", Family::Message),
    kind("alertmanager", Family::Message),
    kind("grafana", Family::Message),
    kind("githubdispatch", Family::Message),
    kind("pagerduty", Family::Message),
    kind("zoom", Family::Message),
];

/// Cases that the worker rejects when it builds the notifier: an address, a token, an expression.
const REJECTED_BY_WORKERS: [&str; 8] = [
    "provider-address-missing",
    "provider-hmac-without-token",
    "hmac-secret-extra-token-empty",
    "hmac-secret-extra-address-blank",
    "provider-github-without-token",
    "git-custom-expr-missing-key",
    "git-custom-expr-syntax-error",
    "git-expr-not-evaluated-when-dropped",
];

const fn kind(name: &'static str, family: Family) -> Kind {
    Kind {
        keys: &["address", "headers", "proxy", "token"],
        ..Kind::new(name, family)
    }
}

fn recorded() -> Vec<Value> {
    let path = format!(
        "{}/../tests/vectors/routing/open/routing.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The expected reason: the recorded one, except where Tidings differs on purpose. Empty means that
/// the Alert matches.
fn expected_reason<'a>(case: &str, alert: &str, recorded: &'a str) -> &'a str {
    let defaulted = [
        "severity-alert-absent-event-info",
        "labels-empty-map-object-missing",
    ];
    let success = case.starts_with("git-") && case.ends_with("-no-commit-key-info");
    let matches = success
        || case == "git-expr-not-evaluated-when-dropped"
        || case == "plain-mixed-providers" && alert == "apps/git";
    if defaulted.contains(&case) || matches {
        ""
    } else {
        recorded
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The event as ingest would store it.
fn event(case: &Value) -> Event {
    let (event, object) = (&case["event"], &case["event"]["involvedObject"]);
    let group =
        tidings_core::model::flux::api_group(object["apiVersion"].as_str().unwrap_or_default())
            .to_owned();
    let is_kept = |key: &str| {
        let own = key.strip_prefix(&format!("{group}/"));
        let dropped = own.is_some_and(|key| ["checksum", "digest", "token"].contains(&key));
        !dropped && (own.is_some() || key.starts_with("event.toolkit.fluxcd.io/"))
    };
    let metadata = event["metadata"].as_object().into_iter().flatten();
    Event {
        id: "e".to_owned(),
        cluster: "default".to_owned(),
        involved_object: Some(ObjectReference {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            ..ObjectReference::default()
        }),
        severity: text(&event["severity"]),
        message: text(&event["message"]),
        reason: text(&event["reason"]),
        metadata: metadata
            .filter(|(key, _)| is_kept(key))
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
        labels: Some(labels(case)),
        ..Event::default()
    }
}

/// The result of looking up the object's labels.
fn labels(case: &Value) -> ObjectLabels {
    let involved = &case["event"]["involvedObject"];
    let is_involved = |object: &&Value| {
        let same = |own: &Value, key: &str| text(own) == text(&involved[key]);
        same(&object["apiVersion"], "apiVersion")
            && same(&object["kind"], "kind")
            && same(&object["metadata"]["namespace"], "namespace")
            && same(&object["metadata"]["name"], "name")
    };
    match case["objects"]
        .as_array()
        .into_iter()
        .flatten()
        .find(is_involved)
    {
        None => ObjectLabels {
            state: object_labels::State::Absent.into(),
            ..ObjectLabels::default()
        },
        Some(object) => ObjectLabels {
            state: object_labels::State::Known.into(),
            labels: object["metadata"]["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
        },
    }
}

fn rules(case: &Value) -> Rules {
    let lists = ["alerts", "providers", "secrets"]
        .map(|key| case[key].as_array().cloned().unwrap_or_default());
    let objects: Vec<_> = lists.into_iter().flatten().map(Object::new).collect();
    let no_cross_namespace_refs = case["flags"]["noCrossNamespaceRefs"] == json!(true);
    Rules::compile(
        &objects,
        KINDS,
        &Options {
            no_cross_namespace_refs,
            ..Options::default()
        },
    )
}

/// The verdicts that correspond to a recorded reason.
fn verdicts(reason: &str) -> &'static [Verdict] {
    match reason {
        "" => &[Verdict::Matched],
        "alert-suspended" => &[Verdict::AlertSuspended],
        "no-event-source-matches" => &[
            Verdict::NoEventSourceMatches,
            Verdict::BelowSeverity,
            Verdict::LabelsDiffer,
        ],
        "message-not-included" => &[Verdict::MessageNotIncluded],
        "message-excluded" => &[Verdict::MessageExcluded],
        "provider-suspended" => &[Verdict::ProviderSuspended],
        "commit-status-update-for-non-git-provider" => &[Verdict::NotACommitStatusProvider],
        "commit-status-provider-without-commit-metadata" => &[Verdict::NoCommit],
        "change-request-provider-without-change-request-metadata" => &[Verdict::NoChangeRequest],
        "error" => &[Verdict::Matched, Verdict::CrossNamespaceRefused],
        _ => &[],
    }
}

/// The differences from the recording for one Alert.
fn differences(
    case: &Value,
    name: &str,
    rules: &Rules,
    explanation: &tidings_router::AlertExplanation,
) -> Vec<String> {
    let (expect, alert) = (&case["expect"], &explanation.alert);
    let reason = expected_reason(
        name,
        alert,
        expect["dropped"][alert]["reason"]
            .as_str()
            .unwrap_or_default(),
    );
    let mut differences = Vec::new();
    if !verdicts(reason).contains(&explanation.verdict) {
        differences.push(format!(
            "{name} {alert}: {:?} for {reason:?}: {}",
            explanation.verdict, explanation.detail
        ));
    }
    let Some(delivery) = &explanation.delivery else {
        return differences;
    };
    if let Some(metadata) = expect["metadata"].get(alert) {
        let metadata: BTreeMap<String, String> = serde_json::from_value(metadata.clone()).unwrap();
        if delivery.metadata != metadata {
            differences.push(format!(
                "{name} {alert}: metadata {:?} for {metadata:?}",
                delivery.metadata
            ));
        }
    }
    let provider = delivery.provider.as_ref().unwrap();
    let resolved = rules.resolve(&provider.namespace, &provider.name);
    let is_error = reason == "error" && !REJECTED_BY_WORKERS.contains(&name);
    if resolved.is_err() != is_error {
        differences.push(format!(
            "{name} {alert}: resolved to {resolved:?} for {reason:?}"
        ));
    }
    differences
}

#[test]
fn every_recorded_case_gives_the_same_result() {
    let mut found = Vec::new();
    for case in recorded() {
        let name = case["name"].as_str().unwrap();
        let (rules, event) = (rules(&case), event(&case));
        let explanations = explain(&rules, &event, &Clusters::new(), PlanContext::default());
        assert_eq!(
            explanations.len(),
            case["alerts"].as_array().unwrap().len(),
            "{name}"
        );
        for explanation in &explanations {
            found.extend(differences(&case, name, &rules, explanation));
        }
        let explained: Vec<_> = explanations
            .into_iter()
            .filter_map(|explanation| explanation.delivery)
            .collect();
        assert_eq!(
            plan(&rules, &event, &Clusters::new(), PlanContext::default()).deliveries,
            explained,
            "{name}"
        );
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_delivery_is_planned_for_a_missing_provider() {
    let alert = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
        "kind": "Alert",
        "metadata": {"name": "a", "namespace": "apps"},
        "spec": {
            "providerRef": {"name": "missing"},
            "eventSources": [{"kind": "Kustomization", "name": "*"}],
            "channel": "c",
        },
    });
    let object = json!({"kind": "Kustomization", "namespace": "apps", "name": "x"});
    let case = json!({"alerts": [alert], "event": {"involvedObject": object}});
    let (rules, event) = (rules(&case), event(&case));
    let plan = plan(
        &rules,
        &event,
        &Clusters::new(),
        PlanContext {
            event_sequence: 7,
            generation: 2,
            ..PlanContext::default()
        },
    );
    let provider = plan.deliveries[0].provider.clone().unwrap();
    assert_eq!(
        (provider.r#type.as_str(), provider.pool.as_str()),
        ("", "default")
    );
    assert_eq!(
        (
            plan.deliveries[0].event_sequence,
            plan.deliveries[0].generation
        ),
        (7, 2)
    );
    assert_eq!(
        (
            plan.deliveries[0].channel.as_str(),
            plan.deliveries[0].alert.clone().unwrap().manifest.as_str()
        ),
        ("sha256:2e7d2c03", ""),
        "an unknown type may have a secret channel"
    );
    assert!(matches!(
        rules.resolve("apps", "missing"),
        Err(Unresolved::Missing(_))
    ));
}
