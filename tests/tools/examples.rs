//! `examples/setups`: each folder is valid and does what its README says.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{text, tidings};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A set-up, the namespace and severity of an event, more arguments, and where it goes.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a [&'a str]);

/// The names of all set-ups.
fn setups() -> Vec<String> {
    let entries = fs::read_dir(project("examples/setups")).unwrap();
    let folders = entries.map(|entry| entry.unwrap());
    let mut names: Vec<String> = folders
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A copy of a set-up's manifests, with a private key in the place of the placeholder.
fn copy_of(setup: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let key = project("workers/src/notifier/googlepubsub/test-key.pem");
    let key = fs::read_to_string(key).unwrap();
    let key = json!(key).to_string();
    for entry in fs::read_dir(project("examples/setups").join(setup)).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let manifest = fs::read_to_string(&path).unwrap();
            let manifest = manifest.replace("your-private-key", &key);
            fs::write(folder.path().join(path.file_name().unwrap()), manifest).unwrap();
        }
    }
    folder
}

/// The pairs of Alert and Provider that an event leads to.
async fn routes(setup: &str, namespace: &str, severity: &str, more: &[&str]) -> Vec<String> {
    let folder = copy_of(setup);
    let event = fs::read_to_string(project("examples/event.json")).unwrap();
    let mut event: Value = serde_json::from_str(&event).unwrap();
    event["involvedObject"]["namespace"] = namespace.into();
    event["severity"] = severity.into();
    if severity == "error" {
        event["reason"] = "HealthCheckFailed".into();
    }
    let file = folder.path().join("event.txt");
    fs::write(&file, event.to_string()).unwrap();
    let test = ["test", "--output", "json", "--rules", text(folder.path())];
    let event = ["--event", text(&file)];
    let tested = tidings(&[&test[..], &event, more].concat()).await;
    let report = &tested.json()[0];
    let deliveries = report["deliveries"].as_array().unwrap();
    let route = |delivery: &Value| {
        assert_eq!(delivery["outcome"], "planned", "{setup}: {delivery}");
        assert_eq!(delivery["template_error"], "", "{setup}: {delivery}");
        format!(
            "{} {}",
            text_of(delivery, "alert"),
            text_of(delivery, "type")
        )
    };
    deliveries.iter().map(route).collect()
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

#[tokio::test]
async fn every_setup_passes_a_strict_check_and_is_listed() {
    let list = fs::read_to_string(project("examples/setups/README.md")).unwrap();
    let setups = setups();
    assert_eq!(setups.len(), 6);
    for setup in setups {
        let readme = project("examples/setups").join(&setup).join("README.md");
        assert!(readme.exists(), "{setup} has a README");
        assert!(list.contains(&format!("[{setup}]({setup})")), "{setup}");
        let folder = copy_of(&setup);
        let mut check = vec!["check", "--strict", "--rules", text(folder.path())];
        if setup == "tenants" {
            check.push("--no-cross-namespace-refs");
        }
        let checked = tidings(&check).await;
        assert_eq!(checked.status, Some(0), "{setup}: {checked:?}");
    }
}

#[tokio::test]
async fn the_events_of_each_setup_go_where_its_readme_says() {
    let prod: &[&str] = &["--cluster", "prod-eu", "--cluster-label", "env=prod"];
    let staging: &[&str] = &["--cluster", "staging", "--cluster-label", "env=staging"];
    let cases: [Case; 14] = [
        (
            "one-cluster",
            "flux-system",
            "info",
            &[],
            &["flux-system/everything slack"],
        ),
        (
            "one-cluster",
            "flux-system",
            "error",
            &[],
            &["flux-system/errors slack", "flux-system/everything slack"],
        ),
        ("three-clusters", "flux-system", "info", prod, &[]),
        (
            "three-clusters",
            "flux-system",
            "error",
            prod,
            &["flux-system/production-errors msteams"],
        ),
        (
            "three-clusters",
            "flux-system",
            "info",
            staging,
            &["flux-system/staging msteams"],
        ),
        ("tenants", "team-a", "info", &[], &["team-a/chat discord"]),
        (
            "tenants",
            "team-a",
            "error",
            &[],
            &["team-a/chat discord", "team-a/on-call opsgenie"],
        ),
        ("tenants", "team-b", "error", &[], &["team-b/chat discord"]),
        (
            "slack-by-severity",
            "apps",
            "info",
            &[],
            &["apps/infos slack"],
        ),
        (
            "slack-by-severity",
            "apps",
            "warn",
            &[],
            &["apps/warnings slack"],
        ),
        (
            "slack-by-severity",
            "apps",
            "error",
            &[],
            &["apps/errors slack"],
        ),
        (
            "pagerduty-in-production",
            "apps",
            "error",
            prod,
            &["apps/incidents pagerduty"],
        ),
        (
            "pagerduty-in-production",
            "apps",
            "error",
            staging,
            &["apps/other-clusters rocket"],
        ),
        (
            "github-app-statuses",
            "flux-system",
            "info",
            &[],
            &["flux-system/commit-statuses github"],
        ),
    ];
    for (setup, namespace, severity, more, expected) in cases {
        let actual = routes(setup, namespace, severity, more).await;
        assert_eq!(actual, expected, "{setup} {severity} {more:?}");
    }
}
