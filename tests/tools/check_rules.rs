//! `tidings check`: the problems that it reports, and its exit status.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_rig::{Manifest, alert, config_map, provider, secret};
use tidings_rules::testing;

use crate::command::{Ended, text, tidings, tidings_with};

/// Checks a folder with these objects, one in each file.
async fn check<const N: usize>(rules: [Manifest; N], arguments: &[&str]) -> Ended {
    let folder = TempDir::new().expect("the temporary folder is writable");
    for (number, rule) in rules.into_iter().enumerate() {
        fs::write(
            folder.path().join(format!("{number}.json")),
            rule.to_string(),
        )
        .expect("the folder is writable");
    }
    let fixed = ["check", "--rules", text(folder.path()), "--output=json"];
    tidings(&[&fixed[..], arguments].concat()).await
}

/// The object, the field and the severity of each problem.
fn problems(ended: &Ended) -> Vec<(String, String, String)> {
    let report: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems = report["problems"].as_array().expect("a list of problems");
    problems
        .iter()
        .map(|it| {
            assert!(it["file"].is_string() && it["line"].is_u64(), "{it}");
            (
                text(&it["object"]),
                text(&it["field"]),
                text(&it["severity"]),
            )
        })
        .collect()
}

fn hook() -> Manifest {
    provider("hook", "http://127.0.0.1:9/")
}

/// The field and the object of the only problem of these rules, which is an error.
async fn only_error<const N: usize>(rules: [Manifest; N]) -> (String, String) {
    let ended = check(rules, &[]).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let mut problems = problems(&ended);
    assert_eq!(problems.len(), 1, "{ended:?}");
    let (object, field, severity) = problems.remove(0);
    assert_eq!(severity, "error");
    (object, field)
}

#[tokio::test]
async fn a_notice_needs_a_provider_that_can_send_it() {
    let variables = [
        ("TIDINGS_WATCHDOG__PROVIDER", "apps/none"),
        ("TIDINGS_FALLBACK__PROVIDER", "apps/hook"),
    ];
    let folder = TempDir::new().expect("the temporary folder is writable");
    let rule = folder.path().join("hook.json");
    fs::write(rule, hook().to_string()).expect("the folder is writable");
    let arguments = ["check", "--rules", text(folder.path()), "--output=json"];
    let ended = tidings_with(&variables, &arguments).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("the output is JSON");
    assert_eq!(report["errors"], 1, "{report}");
    let problem = &report["problems"][0];
    assert_eq!(problem["object"], "Provider apps/none");
    assert_eq!(problem["field"], "watchdog.provider");
}

#[tokio::test]
async fn rules_without_problems_pass_strict_checks() {
    let ended = check([hook(), alert("all", "hook")], &["--strict"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let report = &ended.json()[0];
    assert_eq!(
        (&report["alerts"], &report["providers"], &report["problems"]),
        (&json!(1), &json!(1), &json!([]))
    );
}

#[tokio::test]
async fn what_cannot_work_is_an_error_with_its_object_and_field() {
    let typed = |kind: &str| testing::provider("p", kind);
    let at = |manifest: Manifest, address: &str| manifest.with("address", address);
    let reference = |manifest: Manifest| manifest.with("secretRef", json!({"name": "s"}));
    let templated = |inline: &str| alert("a", "hook").with("template", json!({"inline": inline}));
    let token = || secret("s", json!({"token": "t"}));
    let provider_at = |field: &str| ("Provider apps/p".to_owned(), field.to_owned());
    let alert_at = |field: &str| ("Alert apps/a".to_owned(), field.to_owned());

    assert_eq!(only_error([typed("slak")]).await, provider_at("spec.type"));
    assert_eq!(
        only_error([reference(typed("slack"))]).await,
        provider_at("spec.secretRef")
    );
    assert_eq!(
        only_error([at(typed("github"), "https://github.com/acme/fleet")])
            .await
            .0,
        "Provider apps/p",
        "the token is missing"
    );
    for address in ["https://github.com", "https://github.com/acme", "github"] {
        let ended = only_error([reference(at(typed("github"), address)), token()]).await;
        assert_eq!(ended, provider_at("spec.address"), "{address}");
    }
    assert_eq!(
        only_error([at(typed("slack"), "not an address")]).await.0,
        "Provider apps/p"
    );
    assert_eq!(
        only_error([alert("a", "hook")]).await,
        alert_at("spec.providerRef.name")
    );
    assert_eq!(
        only_error([hook(), templated("{{ event.mesage }}")]).await,
        alert_at("spec.template.inline")
    );
    assert_eq!(
        only_error([hook(), templated("{{ event.message")]).await,
        alert_at("spec.template.inline")
    );
    let texts = json!({"configMapKeyRef": {"name": "texts", "key": "k"}});
    let by_reference = || alert("a", "hook").with("template", texts.clone());
    let field = alert_at("spec.template.configMapKeyRef");
    assert_eq!(only_error([hook(), by_reference()]).await, field);
    let text = |text: &str| config_map("texts", json!({"k": text}));
    assert_eq!(
        only_error([hook(), by_reference(), text("{{ clustr }}")]).await,
        field
    );
    let link = json!({"targetURL": "https://h/{{ nam }}"});
    let status = reference(at(typed("github"), "https://github.com/acme/fleet"));
    assert_eq!(
        only_error([status.with("commitStatus", link), token()]).await,
        provider_at("spec.commitStatus.targetURL")
    );
    assert_eq!(
        only_error([hook(), alert("a", "hook").with("eventSeverty", "error")]).await,
        alert_at("spec.eventSeverty")
    );
    assert_eq!(
        only_error([
            hook(),
            alert("a", "hook").with("inclusionList", json!(["("]))
        ])
        .await,
        alert_at("spec.inclusionList[0]")
    );
    assert_eq!(
        only_error([hook(), alert("a", "hook").set("/kind", "Alerts")]).await,
        ("Alerts apps/a".to_owned(), "kind".to_owned())
    );
}

#[tokio::test]
async fn an_expression_or_a_channel_that_cannot_work_is_an_error() {
    let reference = json!({"name": "s"});
    let typed = |kind: &str| testing::provider("p", kind).with("secretRef", reference.clone());
    let token = || secret("s", json!({"token": "t"}));
    let provider_at = |field: &str| ("Provider apps/p".to_owned(), field.to_owned());
    let status = || typed("github").with("address", "https://github.com/acme/fleet");
    for source in [
        "event.foo.bar +",
        "evnt.involvedObject.name",
        "1",
        "foo(event)",
        &format!("['aaaaaaaaaaaaaaaa']{}[0]", ".map(x, x + x)".repeat(40)),
    ] {
        let found = only_error([status().with("commitStatusExpr", source), token()]).await;
        assert_eq!(found, provider_at("spec.commitStatusExpr"), "{source}");
    }
    let telegram = || typed("telegram");
    let found = only_error([telegram(), token()]).await;
    assert_eq!(found, provider_at("spec.channel"));
    let given = alert("a", "p").with("channel", "@team");
    assert_eq!(
        check([telegram(), token(), given], &[]).await.status,
        Some(0)
    );
    let hook = testing::provider("p", "generic").with("address", "http://169.254.169.254/latest");
    assert_eq!(only_error([hook]).await, provider_at("spec.address"));
    let gitlab = typed("gitlab").with("address", "https://gitlab.com/group");
    assert_eq!(
        only_error([gitlab, token()]).await,
        provider_at("spec.address")
    );
    let pagerduty = typed("pagerduty").with("address", "https://events.pagerduty.com");
    let found = only_error([pagerduty, secret("s", json!({"routingKey": ""}))]).await;
    assert_eq!(found, provider_at("spec.secretRef"));
    let zulip = testing::provider("p", "zulip").with("address", "https://zulip.example.com");
    let found = only_error([zulip, alert("a", "p").with("channel", "notopic")]).await;
    assert_eq!(
        found,
        ("Alert apps/a".to_owned(), "spec.channel".to_owned())
    );
}

#[tokio::test]
async fn all_problems_of_a_rejected_alert_are_reported() {
    let alert = alert("a", "gone")
        .with("eventSeverty", "error")
        .with("suspend", "no")
        .with("exclusionList", json!([".*"]));
    let ended = check([alert], &[]).await;
    let fields: Vec<_> = problems(&ended)
        .into_iter()
        .map(|(_, field, _)| field)
        .collect();
    assert_eq!(
        fields,
        [
            "spec.eventSeverty",
            "spec.suspend",
            "spec.exclusionList[0]",
            "spec.providerRef.name"
        ]
    );
}

#[tokio::test]
async fn a_doubtful_rule_is_a_warning_that_fails_strict_checks() {
    let source = json!([{"kind": "kustomization", "name": "app-*", "namespace": "*"}]);
    let rules = || {
        [
            hook(),
            alert("a", "hook").with("eventSources", source.clone()),
        ]
    };
    let ended = check(rules(), &[]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let fields = ["kind", "name", "namespace"].map(|name| {
        let field = format!("spec.eventSources[0].{name}");
        ("Alert apps/a".to_owned(), field, "warning".to_owned())
    });
    assert_eq!(problems(&ended), fields);
    assert_eq!(check(rules(), &["--strict"]).await.status, Some(1));
}

#[tokio::test]
async fn an_error_never_shows_a_secret() {
    let address = json!({"address": "s3cret://hooks.example/s3cret"});
    let provider = testing::provider("p", "slack").with("secretRef", json!({"name": "s"}));
    let ended = check([provider, secret("s", address)], &[]).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(!ended.stdout.contains("s3cret"), "{ended:?}");
}

#[tokio::test]
async fn a_restriction_that_is_ignored_is_an_error() {
    let alert_at = |field: &str| ("Alert apps/a".to_owned(), field.to_owned());
    let key = json!({"tidings.io/clusters": "prod"});
    for (rule, field) in [
        (
            alert("a", "hook").with("clusters", Value::Null),
            "spec.clusters",
        ),
        (
            alert("a", "hook").set("/metadata/annotations", key.clone()),
            "metadata.annotations[tidings.io/clusters]",
        ),
        (
            alert("a", "hook").set("/metadata/labels", key.clone()),
            "metadata.labels[tidings.io/clusters]",
        ),
    ] {
        assert_eq!(only_error([hook(), rule]).await, alert_at(field));
    }
}

#[tokio::test]
async fn an_empty_folder_fails_strict_checks_and_is_named() {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let check = ["check", "--output=json", "--rules", text(folder.path())];
    for (arguments, status, severity) in [(&[][..], 0, "warning"), (&["--strict"], 1, "error")] {
        let ended = tidings(&[&check[..], arguments].concat()).await;
        assert_eq!(ended.status, Some(status), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).expect("the output is JSON");
        let problem = &report["problems"][0];
        assert_eq!(problem["severity"], severity);
        assert_eq!(problem["file"], text(folder.path()));
    }
}

#[tokio::test]
async fn a_missing_folder_is_an_error_that_names_it_and_the_fix() {
    for command in ["check", "test"] {
        let mut arguments = vec![command, "--rules", "/nowhere"];
        if command == "test" {
            arguments.extend(["--event", "examples/event.json"]);
        }
        let ended = tidings(&arguments).await;
        assert_eq!(ended.status, Some(2), "{ended:?}");
        ended.assert_error_names(&["/nowhere", "--rules"]);
        assert!(!ended.stderr.contains("last good"), "{ended:?}");
    }
    let ended = tidings(&["check"]).await;
    assert_eq!(ended.status, Some(2));
    ended.assert_error_names(&["--rules"]);
}
