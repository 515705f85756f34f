//! `tidings test` with templates: renders the examples of docs/templates.md.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_rig::{alert, provider};

use crate::command::{text, tidings};

/// The fenced blocks of one language, in order.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    page.split(begin.as_str())
        .skip(1)
        .map(|rest| {
            rest.split("\n```")
                .next()
                .expect("a split yields at least one part")
        })
        .collect()
}

/// A folder with rules that use this template, and with the event.
fn folder(template: &str, event: &str) -> TempDir {
    let folder = TempDir::new().expect("the temporary folder is writable");
    let provider = provider("example", "https://hooks.example.com/x").with("type", "slack");
    let alert = alert("example", "example").with("template", json!({"inline": template}));
    let rules = folder.path().join("rules");
    fs::create_dir(&rules).expect("the folder is writable");
    for (file, rule) in [("provider.json", provider), ("alert.json", alert)] {
        fs::write(rules.join(file), rule.to_string()).expect("the folder is writable");
    }
    fs::write(folder.path().join("event.json"), event).expect("the folder is writable");
    folder
}

/// Runs `tidings test` and returns its report of the first delivery.
async fn first_delivery(folder: &Path) -> Value {
    let (rules, event) = (folder.join("rules"), folder.join("event.json"));
    let dashboard =
        "https://grafana.example.com/d/flux?var-namespace={{ namespace }}&var-name={{ name }}";
    let ended = tidings(&[
        "test",
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
        .unwrap_or_else(|| panic!("no request: {delivery}"));
    serde_json::from_str::<Value>(body).expect("requests to Slack are JSON")["attachments"][0]
        .clone()
}

#[tokio::test]
async fn the_examples_in_the_documentation_render_as_shown() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md"))
        .expect("docs/templates.md exists");
    let (events, templates, texts) = (
        blocks(&page, "json"),
        blocks(&page, "jinja"),
        blocks(&page, "text"),
    );
    assert_eq!((events.len(), templates.len()), (1, texts.len()));
    assert!(templates.len() >= 4, "{}", templates.len());
    for (template, expected) in templates.iter().zip(texts) {
        let delivery = first_delivery(folder(template, events[0]).path()).await;
        assert_eq!(delivery["template_error"], "", "{template}");
        assert_eq!(attachment(&delivery)["text"], expected, "{template}");
    }
}

#[tokio::test]
async fn a_failing_template_is_reported_and_the_standard_text_is_sent() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md"))
        .expect("docs/templates.md exists");
    let folder = folder("{{ metadata.no.such }}", blocks(&page, "json")[0]);

    let delivery = first_delivery(folder.path()).await;

    assert!(
        delivery["template_error"]
            .as_str()
            .is_some_and(|error| error.starts_with("line 1: ")),
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
    let shown = tidings(&["test", "--rules", text(&rules), "--event", text(&event)]).await;
    assert!(
        shown
            .stdout
            .contains(delivery["template_error"].as_str().unwrap()),
        "{shown:?}"
    );
}
