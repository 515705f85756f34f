//! `tidings test` with templates: the examples of docs/templates.md, rendered.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{text, tidings};

/// The fenced blocks of one language, in their order.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    page.split(begin.as_str())
        .skip(1)
        .map(|rest| {
            rest.split("\n```")
                .next()
                .expect("a split has a first part")
        })
        .collect()
}

/// A folder with rules that have this template, and the event.
fn folder(template: &str, event: &str) -> TempDir {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let object = |kind: &str, spec: Value| {
        let metadata = json!({"name": "example", "namespace": "apps"});
        json!({"apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let sources = json!([{"kind": "Kustomization", "name": "*"}]);
    let spec = json!({"providerRef": {"name": "example"}, "eventSources": sources, "template": {"inline": template}});
    let provider = object(
        "Provider",
        json!({"type": "slack", "address": "https://hooks.example.com/x"}),
    );
    let rules = json!([provider, object("Alert", spec)]);
    fs::create_dir(folder.path().join("rules")).expect("the folder is writable");
    for (position, rule) in rules.as_array().expect("it is a list").iter().enumerate() {
        fs::write(
            folder.path().join(format!("rules/{position}.json")),
            rule.to_string(),
        )
        .expect("the folder is writable");
    }
    fs::write(folder.path().join("event.json"), event).expect("the folder is writable");
    folder
}

/// The first delivery's report.
async fn tested(folder: &Path) -> Value {
    let (rules, event) = (folder.join("rules"), folder.join("event.json"));
    let dashboard =
        "https://grafana.example.com/d/flux?var-namespace={{ namespace }}&var-name={{ name }}";
    let ended = tidings(&[
        "test",
        "--dry-run",
        "--output=json",
        "--cluster=prod-eu",
        "--dashboard-link",
        dashboard,
        "--rules",
        text(&rules),
        "--event",
        text(&event),
    ])
    .await;
    ended.json()[0]["deliveries"][0].clone()
}

fn attachment(delivery: &Value) -> Value {
    let body = delivery["requests"][0]["body"]
        .as_str()
        .unwrap_or_else(|| panic!("one request: {delivery}"));
    serde_json::from_str::<Value>(body).expect("Slack gets JSON")["attachments"][0].clone()
}

#[tokio::test]
async fn the_examples_of_the_documentation_are_rendered_as_it_says() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md"))
        .expect("the page is there");
    let (events, templates, texts) = (
        blocks(&page, "json"),
        blocks(&page, "jinja"),
        blocks(&page, "text"),
    );
    assert_eq!((events.len(), templates.len()), (1, texts.len()));
    assert!(templates.len() >= 4, "{}", templates.len());
    for (template, expected) in templates.iter().zip(texts) {
        let delivery = tested(folder(template, events[0]).path()).await;
        assert_eq!(delivery["template_error"], "", "{template}");
        assert_eq!(attachment(&delivery)["text"], expected, "{template}");
    }
}

#[tokio::test]
async fn a_template_that_cant_be_used_is_told_beside_the_standard_form() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md"))
        .expect("the page is there");
    let folder = folder("{{ metadata.nobody.home }}", blocks(&page, "json")[0]);

    let delivery = tested(folder.path()).await;

    assert!(
        delivery["template_error"]
            .as_str()
            .is_some_and(|sentence| sentence.starts_with("line 1: ")),
        "{delivery}"
    );
    assert!(
        attachment(&delivery)["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("Health check failed after 30s"))
    );
    let (rules, event) = (
        folder.path().join("rules"),
        folder.path().join("event.json"),
    );
    let shown = tidings(&[
        "test",
        "--dry-run",
        "--rules",
        text(&rules),
        "--event",
        text(&event),
    ])
    .await;
    assert!(
        shown
            .stdout
            .contains("The template failed and the standard text is used: line 1: "),
        "{shown:?}"
    );
}
