//! `docs/guides`: the manifests of each page are valid, and the list names each page.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{text, tidings};

/// The pages, without the list of them.
fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides");
    let entries = fs::read_dir(folder).unwrap();
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| page.file_name().unwrap() != "README.md");
    pages.sort();
    pages
}

/// The rules in the YAML blocks of a page: Alerts, Providers and Secrets.
fn rules_of(page: &Path) -> Vec<String> {
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    let documents = blocks.flat_map(|block| block.split("```").next().unwrap().split("---\n"));
    let is_rule = |document: &&str| {
        ["Alert", "Provider", "Secret"]
            .iter()
            .any(|kind| document.contains(&format!("\nkind: {kind}\n")))
    };
    documents.filter(is_rule).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_manifests_of_each_guide_pass_a_strict_check() {
    assert_eq!(pages().len(), 5);
    for page in pages() {
        let rules = rules_of(&page);
        assert!(rules.len() >= 2, "{page:?} has a Provider and an Alert");
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("rules.yaml"), rules.join("---\n")).unwrap();
        let checked = tidings(&["check", "--strict", "--rules", text(folder.path())]).await;
        assert_eq!(checked.status, Some(0), "{page:?}: {checked:?}");
    }
}

#[tokio::test]
async fn the_list_of_guides_names_each_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(list.contains(&format!("({name})")), "{name}");
    }
}

/// A guide, the kind and the severity of an event, more arguments, and the Alerts that deliver it.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a [&'a str]);

#[tokio::test]
async fn an_event_goes_where_each_guide_says() {
    let cases: [Case; 9] = [
        ("chat", "Kustomization", "error", &[], &["errors"]),
        ("chat", "HelmRelease", "info", &[], &["deployments"]),
        ("chat", "GitRepository", "info", &[], &[]),
        ("promotion", "HelmRelease", "info", &[], &[]),
        (
            "promotion",
            "HelmRelease",
            "info",
            &["--cluster", "staging"],
            &["promote"],
        ),
        ("incidents", "HelmRelease", "error", &[], &["production"]),
        ("incidents", "GitRepository", "error", &[], &[]),
        ("alertmanager", "Kustomization", "error", &[], &["failures"]),
        ("alertmanager", "Kustomization", "info", &[], &[]),
    ];
    for (guide, kind, severity, more, expected) in cases {
        let event = json!({
            "involvedObject": {"kind": kind, "namespace": "apps", "name": "webapp"},
            "severity": severity,
            "reason": if severity == "error" { "HealthCheckFailed" } else { "UpgradeSucceeded" },
            "message": "Helm upgrade succeeded for release apps/webapp.v2",
            "timestamp": "2026-03-14T09:26:53Z",
            "reportingController": "helm-controller",
        });
        let alerts = alerts_of(guide, &event, more).await;
        assert_eq!(alerts, expected, "{guide}: {event}");
    }
}

#[tokio::test]
async fn only_an_object_with_the_annotation_gets_a_comment() {
    let revision = "main@sha1:8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
    let mut event = json!({
        "involvedObject": {"kind": "Kustomization", "namespace": "previews", "name": "preview-42"},
        "severity": "info", "reason": "ReconciliationSucceeded", "message": "done",
        "metadata": {"kustomize.toolkit.fluxcd.io/revision": revision},
        "timestamp": "2026-03-14T09:26:53Z", "reportingController": "kustomize-controller",
    });
    let guide = "pull-request-comments";
    assert!(alerts_of(guide, &event, &[]).await.is_empty());
    event["metadata"]["event.toolkit.fluxcd.io/change_request"] = "42".into();
    assert_eq!(alerts_of(guide, &event, &[]).await, ["comments"]);
}

/// The names of the Alerts of a guide that deliver an event.
async fn alerts_of(guide: &str, event: &Value, more: &[&str]) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/guides/{guide}.md"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("event.txt");
    fs::write(&file, event.to_string()).unwrap();
    let rules = rules_of(&page).join("---\n");
    fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    let test = ["test", "--output", "json", "--rules", text(folder.path())];
    let tested = tidings(&[&test[..], &["--event", text(&file)], more].concat()).await;
    let deliveries = tested.json()[0]["deliveries"].clone();
    let planned = deliveries.as_array().unwrap().iter();
    let planned = planned.filter(|delivery| delivery["outcome"] == "planned");
    planned
        .map(|delivery| {
            let (_, name) = delivery["alert"].as_str().unwrap().split_once('/').unwrap();
            name.to_owned()
        })
        .collect()
}
