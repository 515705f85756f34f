//! The tester: what the rules decide about an event, and the messages.

use serde_json::{Value, json};
use tidings_rig::{Receiver, Rig, alert, event, eventually, provider, secret};

use super::client::{Console, VIEW};
use crate::TIDINGS;

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
const TOKEN: &str = "s3cr3t-of-the-forge";

async fn bed() -> (Console, Receiver) {
    let receiver = Receiver::start().await;
    let of_type =
        |name: &str, kind: &str| provider(name, receiver.url()).with("type", kind.to_owned());
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        of_type("chat", "slack"),
        of_type("teams", "msteams"),
        of_type("disc", "discord"),
        of_type("forge", "gitea")
            .with("address", format!("{}/acme/deploy", host(receiver.url())))
            .with("secretRef", json!({"name": "forge"})),
        secret("forge", json!({"token": TOKEN})),
        alert("to-chat", "chat"),
        alert("to-teams", "teams"),
        alert("to-discord", "disc"),
        alert("to-forge", "forge"),
        alert("of-errors", "chat").with("eventSeverity", "error"),
        alert("of-others", "chat").with(
            "eventSources",
            json!([{"kind": "HelmRelease", "name": "other"}]),
        ),
    ]);
    (Console::start_on(rig).await, receiver)
}

/// The address without its path.
fn host(url: &str) -> &str {
    url.trim_end_matches("/hook")
}

async fn tried(console: &Console, body: &Value) -> Value {
    let answer = console.send(console.post("/api/tester", VIEW, body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut items = list.as_array().into_iter().flatten();
    let found = items.find(|item| item["alert"] == name);
    found.unwrap_or_else(|| panic!("{name}: {list}"))
}

#[tokio::test]
async fn an_event_is_tried_with_todays_rules_and_nothing_is_sent() {
    let (console, receiver) = bed().await;
    let mut event = event("all is well");
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
    let result = tried(&console, &json!({"event": event})).await;
    assert_eq!(
        named(&result["alerts"], "apps/of-errors")["verdict"],
        "below-severity"
    );
    assert_eq!(result["otherAlerts"], 1);
    let deliveries = &result["deliveries"];
    assert_eq!(deliveries.as_array().map(Vec::len), Some(4), "{result}");
    let body = |alert: &str| -> Value {
        let requests = named(deliveries, alert)["requests"].as_array().unwrap();
        let last = requests.last().unwrap()["body"].as_str().unwrap();
        serde_json::from_str(last).unwrap()
    };
    assert_eq!(
        body("apps/to-chat")["attachments"][0]["text"],
        "all is well"
    );
    let card = body("apps/to-teams").to_string();
    assert!(card.contains("all is well"), "{card}");
    let discord = body("apps/to-discord").to_string();
    assert!(discord.contains("all is well"), "{discord}");
    let status = body("apps/to-forge");
    assert_eq!(status["state"], "success", "{status}");
    assert!(!result.to_string().contains(TOKEN) && !result.to_string().contains("127.0.0.1"));
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn a_stored_event_is_tried_by_its_id() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let console = Console::start_on(rig).await;
    console.up.post(&event("an event")).await.unwrap();
    receiver.accepts("an event").await;
    console.rig.drained().await;
    let trace = console
        .json("/api/trace?object=Kustomization/apps/apps")
        .await;
    let id = &trace["events"][0]["id"];
    let before = receiver.count();
    let result = tried(&console, &json!({"id": id})).await;
    assert_eq!(&result["event"]["id"], id);
    assert_eq!(
        named(&result["deliveries"], "apps/all")["outcome"],
        "planned"
    );
    assert_eq!(receiver.count(), before);
    for (body, status) in [
        (json!({"id": "0123456789abcdef"}), 404),
        (json!({"id": "x"}), 400),
        (json!({}), 400),
        (json!({"event": {"involvedObject": 1}}), 400),
        (json!({"event": {}, "more": 1}), 400),
        (json!({"event": {"message": "x".repeat(300_000)}}), 400),
    ] {
        let answer = console.send(console.post("/api/tester", VIEW, &body)).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    eventually("the permit is free again", async || {
        let answer = console.get("/api/trace?commit=0123456").await;
        (answer.status == 200).then_some(())
    })
    .await;
}
