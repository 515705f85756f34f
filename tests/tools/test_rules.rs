//! `tidings test`: what it sends, its exit status, and the flags that change matching.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_rig::{Manifest, Receiver, alert, provider};

use crate::command::{Ended, text, tidings};

/// A folder with rules and an event about a Kustomization in the namespace `apps`.
fn folder<const N: usize>(rules: [Manifest; N]) -> TempDir {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let write = |name: &str, text: String| {
        fs::write(folder.path().join(name), text).expect("the folder is writable");
    };
    fs::create_dir(folder.path().join("rules")).expect("the folder is writable");
    for (number, rule) in rules.into_iter().enumerate() {
        write(&format!("rules/{number}.json"), rule.to_string());
    }
    let event = json!({
        "involvedObject": {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            "kind": "Kustomization", "name": "apps", "namespace": "apps",
        },
        "severity": "info", "reason": "Tested", "message": "a test",
        "timestamp": "2026-01-02T03:04:05Z", "reportingController": "kustomize-controller",
    });
    write("event.json", event.to_string());
    folder
}

async fn test(folder: &Path, arguments: &[&str]) -> Ended {
    let (rules, event) = (folder.join("rules"), folder.join("event.json"));
    let fixed = ["test", "--output=json", "--event", text(&event)];
    let rules = ["--rules", text(&rules)];
    tidings(&[&fixed[..], &rules, arguments].concat()).await
}

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[tokio::test]
async fn nothing_is_sent_without_send() {
    let receiver = Receiver::start().await;
    let folder = folder([provider("hook", receiver.url()), alert("all", "hook")]);
    for arguments in [&[][..], &["--dry-run"]] {
        let ended = test(folder.path(), arguments).await;
        assert_eq!(ended.status, Some(0), "{ended:?}");
        let delivery = &report(&ended)["deliveries"][0];
        assert_eq!(delivery["outcome"], "planned");
        assert_eq!(delivery["requests"][0]["method"], "POST");
    }
    assert!(receiver.received().is_empty(), "a dry run sends nothing");

    let ended = test(folder.path(), &["--send"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(report(&ended)["deliveries"][0]["outcome"], "delivered");
    receiver.accepts("a test").await;

    let both = test(folder.path(), &["--send", "--dry-run"]).await;
    assert_eq!(both.status, Some(2), "{both:?}");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn a_rejected_rule_or_an_invalid_delivery_fails() {
    let hook = || provider("hook", "http://127.0.0.1:1/");
    let unknown_type = hook().with("type", "pigeon");
    let bad_certificate = hook().with("certSecretRef", json!({"name": "tls"}));
    let certificate = tidings_rig::secret("tls", json!({"ca.crt": "not a certificate"}));
    let metadata_service = provider("hook", "http://169.254.169.254/latest");
    let bad_alert = || alert("bad", "hook").with("eventSeverity", "fatal");
    for (what, folder, has_problem, outcome) in [
        (
            "an unknown type",
            folder([unknown_type, alert("all", "hook")]),
            true,
            "invalid",
        ),
        (
            "an invalid Alert beside a valid one",
            folder([hook(), alert("all", "hook"), bad_alert()]),
            true,
            "planned",
        ),
        (
            "no Provider",
            folder([alert("all", "hook")]),
            true,
            "invalid",
        ),
        (
            "an invalid certificate",
            folder([bad_certificate, certificate, alert("all", "hook")]),
            false,
            "invalid",
        ),
        (
            "an address that workers refuse",
            folder([metadata_service, alert("all", "hook")]),
            false,
            "invalid",
        ),
    ] {
        let ended = test(folder.path(), &[]).await;
        assert_eq!(ended.status, Some(1), "{what}: {ended:?}");
        let report = report(&ended);
        let problems = report["problems"].as_array().expect("problems are listed");
        let is_error = |problem: &Value| problem["severity"] == "error";
        assert_eq!(
            problems.iter().any(is_error),
            has_problem,
            "{what}: {report}"
        );
        assert_eq!(
            report["deliveries"][0]["outcome"], outcome,
            "{what}: {report}"
        );
    }
}

#[tokio::test]
async fn flags_and_settings_change_matching_as_in_up() {
    let everywhere = json!([{"kind": "Kustomization", "name": "*", "namespace": "*"}]);
    let elsewhere = json!([{"kind": "Kustomization", "name": "*", "namespace": "apps"}]);
    let in_team = |manifest: Manifest| manifest.set("/metadata/namespace", "team");
    let folder = folder([
        in_team(provider("hook", "http://127.0.0.1:1/")),
        in_team(alert("all", "hook")).with("eventSources", everywhere),
        in_team(alert("apps", "hook")).with("eventSources", elsewhere),
    ]);
    let config = folder.path().join("settings.yaml");
    fs::write(
        &config,
        "cluster: from-file\nrules:\n  namespace_wildcard_for: [team]\n",
    )
    .expect("the folder is writable");
    for (arguments, expected, cluster) in [
        (&[][..], &["team/apps"][..], "default"),
        (
            &["--namespace-wildcard-for", "team", "--cluster", "prod"],
            &["team/all", "team/apps"],
            "prod",
        ),
        (
            &["--config", text(&config)],
            &["team/all", "team/apps"],
            "from-file",
        ),
        (&["--no-cross-namespace-refs"], &[], "default"),
    ] {
        let report = report(&test(folder.path(), arguments).await);
        let deliveries = report["deliveries"].as_array().expect("a list");
        let mut alerts: Vec<_> = deliveries
            .iter()
            .filter_map(|delivery| delivery["alert"].as_str())
            .collect();
        alerts.sort_unstable();
        assert_eq!(alerts, expected, "{arguments:?}: {report}");
        assert_eq!(report["event"]["cluster"], cluster, "{arguments:?}");
    }
    let event = folder.path().join("event.json");
    tidings(&["test", "--event", text(&event)])
        .await
        .assert_error_names(&["--rules"]);
}

#[tokio::test]
async fn cluster_labels_are_given_as_a_flag() {
    let prod = json!({"matchLabels": {"env": "prod"}});
    let folder = folder([
        provider("hook", "http://127.0.0.1:1/"),
        alert("prod", "hook").with("clusterSelector", prod),
    ]);
    for (arguments, verdict) in [
        (
            &["--cluster", "eu", "--cluster-label", "env=prod"][..],
            "matched",
        ),
        (
            &["--cluster", "eu", "--cluster-label", "env=dev"],
            "other-cluster",
        ),
        (&["--cluster", "eu"], "other-cluster"),
        (
            &[
                "--cluster",
                "eu",
                "--cluster-label",
                "env=prod",
                "--local-cluster-only",
            ],
            "not-the-local-cluster",
        ),
    ] {
        let report = report(&test(folder.path(), arguments).await);
        assert_eq!(
            report["alerts"][0]["verdict"], verdict,
            "{arguments:?}: {report}"
        );
    }
}
