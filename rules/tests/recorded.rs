//! Compares the rules with recordings of notification-controller and of its CRDs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};
use tidings_rules::{Family, Kind, Kinds, Object, Options, Rules, Severity, pattern};

/// The provider types of the CRD.
const KINDS: Kinds = &[
    kind("slack", Family::Message),
    kind("discord", Family::Message),
    kind("msteams", Family::Message),
    kind("rocket", Family::Message),
    kind("generic", Family::Generic),
    kind("generic-hmac", Family::Generic),
    kind("github", Family::CommitStatus),
    kind("gitlab", Family::CommitStatus),
    kind("gitea", Family::CommitStatus),
    kind("giteapullrequestcomment", Family::ChangeRequest),
    kind("bitbucketserver", Family::CommitStatus),
    kind("bitbucket", Family::CommitStatus),
    kind("azuredevops", Family::CommitStatus),
    kind("googlechat", Family::Message),
    kind("googlepubsub", Family::Message),
    kind("webex", Family::Message),
    kind("sentry", Family::Message),
    kind("azureeventhub", Family::Message),
    kind("telegram", Family::Message),
    kind("lark", Family::Message),
    kind("matrix", Family::Message),
    kind("opsgenie", Family::Message),
    kind("alertmanager", Family::Message),
    kind("grafana", Family::Message),
    kind("githubdispatch", Family::Message),
    kind("githubpullrequestcomment", Family::ChangeRequest),
    kind("gitlabmergerequestcomment", Family::ChangeRequest),
    kind("pagerduty", Family::Message),
    kind("datadog", Family::Message),
    kind("nats", Family::Message),
    kind("zulip", Family::Message),
    kind("otel", Family::Message),
    kind("zoom", Family::Message),
    kind("incident.io", Family::Message),
];

/// Patterns that Go rejects. They are harmless here.
const MORE_THAN_GO: [&str; 4] = [
    "\\p{Script=Greek}",
    "\\p{Alphabetic}",
    "(a{100}){100}",
    "((a{10}){10}){11}",
];

const fn kind(name: &'static str, family: Family) -> Kind {
    Kind::new(name, family)
}

fn recorded(file: &str) -> Vec<Value> {
    let path = format!("{}/../tests/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn is_match(pattern: &pattern::Pattern, text: &str) -> bool {
    let mut steps = pattern::Steps::new(pattern::ALERT_STEPS);
    pattern.search(text, &mut steps) == pattern::Decision::Match
}

#[test]
fn every_pattern_matches_as_in_go() {
    let mut differing = Vec::new();
    for case in recorded("vectors/routing/open/regex.json") {
        let text = case["pattern"].as_str().unwrap();
        let compiled = pattern::compile(text);
        if compiled.is_ok() != case["valid"].as_bool().unwrap() && !MORE_THAN_GO.contains(&text) {
            differing.push(format!("{text:?}: {compiled:?}"));
        }
        let (Ok(regex), Some(expected)) = (compiled, case["match"].as_array()) else {
            continue;
        };
        for (message, expected) in case["messages"].as_array().unwrap().iter().zip(expected) {
            if json!(is_match(&regex, message.as_str().unwrap())) != *expected
                && case["valid"] == json!(true)
            {
                differing.push(format!("{text:?} on {message}: expected {expected}"));
            }
        }
    }
    assert_eq!(differing, Vec::<String>::new());
}

/// Intended differences: an empty namespace is that of the Alert, an empty expression counts as
/// absent, and a Provider needs a type.
fn is_intended_difference(name: &str) -> bool {
    [
        "alert-source-namespace-empty",
        "provider-expr-empty-slack",
        "provider-no-spec",
    ]
    .contains(&name)
}

#[test]
fn rules_and_crds_accept_and_reject_the_same_objects() {
    let mut differing = Vec::new();
    for case in recorded("kube/data/admission.json") {
        let mut object = Object::new(case["object"].clone());
        object.value["metadata"]["name"] = "case".into();
        if !object.is_rule() {
            continue;
        }
        let name = case["name"].as_str().unwrap();
        let rules = Rules::compile(&[object], KINDS, &Options::default());
        let rejected = rules
            .problems()
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        if (rejected == case["errors"].is_null()) != is_intended_difference(name) {
            differing.push(format!("{name}: {:?}", rules.problems()));
        }
    }
    assert_eq!(differing, Vec::<String>::new());
}
