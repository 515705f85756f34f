//! What the role operate may do, and that it is recorded.

use reqwest::Method;
use serde_json::{Value, json};
use tidings_rig::{Receiver, Reply, Rig, alert, event, eventually, provider};

use super::client::{Console, OPERATE, VIEW};
use crate::TIDINGS;
use crate::command::tidings;

/// Every action, with a body that would do something.
fn actions() -> [(&'static str, Value); 5] {
    [
        (
            "/api/actions/providers/pause",
            json!({"provider": "apps/hook"}),
        ),
        (
            "/api/actions/providers/resume",
            json!({"provider": "apps/hook"}),
        ),
        (
            "/api/actions/providers/test",
            json!({"provider": "apps/hook", "send": true}),
        ),
        ("/api/actions/dead/replay", json!({"filter": {}})),
        ("/api/actions/dead/drop", json!({"filter": {}})),
    ]
}

/// A console whose Provider `bad` makes dead letters.
async fn bed() -> (Console, Receiver, Receiver) {
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.answer_with(Reply::Status(404));
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        provider("hook", good.url()),
        provider("bad", bad.url()),
        alert("all", "hook"),
        alert("wrong", "bad"),
    ]);
    (Console::start_on(rig).await, good, bad)
}

/// Posts events, and waits for their dead letters.
async fn die(console: &Console, number: u64) {
    for number in 0..number {
        let event = event(&format!("event {number}"));
        console.up.post(&event).await.unwrap();
    }
    let path = "/api/dead";
    console
        .eventually(path, |page| (page["stored"] == number).then_some(()))
        .await;
    console.rig.drained().await;
}

async fn audit(console: &Console) -> Vec<Value> {
    let nats = console.rig.url();
    let ended = tidings(&["audit", "--nats", nats, "--output", "json"]).await;
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[tokio::test]
async fn no_action_works_without_the_role() {
    let (console, good, _bad) = bed().await;
    die(&console, 1).await;
    let received = good.count();
    for (path, body) in actions() {
        let answer = console.send(console.post(path, VIEW, &body)).await;
        let expected = (403, "role-not-allowed".to_owned());
        assert_eq!(answer.error(), expected, "{path}");
        let request = console.request(Method::POST, path).json(&body);
        assert_eq!(console.send(request).await.status, 401, "{path}");
        let elsewhere = console.post(path, OPERATE, &body);
        let elsewhere = elsewhere.header("origin", "http://evil.example.com");
        let answer = console.send(elsewhere).await;
        assert_eq!(answer.error(), (403, "cross-site".to_owned()), "{path}");
        // What a form of another site can send without being asked first.
        let form = console.request(Method::POST, path).bearer_auth(OPERATE);
        let form = form.header("content-type", "text/plain");
        let answer = console.send(form.body(body.to_string())).await;
        let expected = (400, "invalid-parameter".to_owned());
        assert_eq!(answer.error(), expected, "{path}");
        let read = console.request(Method::GET, path).bearer_auth(OPERATE);
        assert_eq!(console.send(read).await.status, 405, "{path}");
    }
    let other = console.post("/api/actions/other", VIEW, &json!({}));
    assert_eq!(console.send(other).await.status, 403);
    assert_eq!(audit(&console).await, Vec::<Value>::new());
    assert_eq!(console.json("/api/dead").await["stored"], 1);
    assert_eq!(good.count(), received);
    console
        .up
        .counts("tidings_console_requests_total", "not-allowed", 6.0)
        .await;
}

#[tokio::test]
async fn a_provider_is_paused_and_resumed_and_both_are_recorded() {
    let (console, good, _bad) = bed().await;
    let pause = json!({"provider": "apps/hook", "reason": "an upgrade"});
    console.act("/api/actions/providers/pause", &pause).await;
    console.up.post(&event("an event")).await.unwrap();
    let path = "/api/deliveries?provider=apps/hook";
    let waits = console
        .eventually(path, |answer| {
            answer["deliveries"]
                .get(0)
                .map(|row| row["waitsFor"].clone())
        })
        .await;
    assert_eq!(waits, "circuit");
    assert_eq!(good.count(), 0);
    let resume = json!({"provider": "apps/hook"});
    let resumed = console.act("/api/actions/providers/resume", &resume).await;
    assert_eq!(resumed, json!({"woken": 1, "left": 0}));
    good.accepts("an event").await;
    let unknown = console.post(
        "/api/actions/providers/pause",
        OPERATE,
        &json!({"provider": "apps/nobody"}),
    );
    assert_eq!(console.send(unknown).await.status, 404);

    let recorded = audit(&console).await;
    let named: Vec<_> = recorded
        .iter()
        .map(|record| [&record["action"], &record["target"], &record["who"]])
        .collect();
    let hook = json!("apps/hook");
    let bob = json!("bob");
    assert_eq!(
        named,
        [
            [&json!("provider-pause"), &hook, &bob],
            [&json!("provider-resume"), &hook, &bob],
        ]
    );
    for record in &recorded {
        assert_eq!(
            (&record["from"], &record["via"]),
            (&json!("127.0.0.1"), &json!("console"))
        );
        assert!(record["storedAt"].is_string());
    }
    assert_eq!(recorded[0]["detail"], "bob: an upgrade");
    console
        .up
        .logs_with(
            "console-action",
            [("action", "provider-pause"), ("who", "bob")],
        )
        .await;
}

#[tokio::test]
async fn dead_letters_are_replayed_and_dropped_singly_or_by_filter() {
    let (console, _good, bad) = bed().await;
    die(&console, 4).await;
    let count = console.json("/api/dead/count?provider=apps/bad").await;
    assert_eq!(count, json!({"count": 4, "upTo": 4, "next": null}));
    let other = console.json("/api/dead/count?provider=apps/hook").await;
    assert_eq!(other["count"], 0);

    let single = json!({"sequences": [2]});
    let dropped = console.act("/api/actions/dead/drop", &single).await;
    assert_eq!(dropped["done"], 1);
    let again = console.post("/api/actions/dead/drop", OPERATE, &single);
    assert_eq!(console.send(again).await.status, 404);

    bad.answer_with(Reply::Status(200));
    let before = bad.count();
    let filter = json!({"filter": {"provider": "apps/bad"}, "upTo": 3});
    let replayed = console.act("/api/actions/dead/replay", &filter).await;
    assert_eq!(replayed, json!({"done": 2, "next": null}));
    eventually("both are delivered", async || {
        (bad.count() == before + 2).then_some(())
    })
    .await;
    assert_eq!(console.json("/api/dead").await["stored"], 1);
    let rest = json!({"filter": {"reason": "not-found"}});
    let dropped = console.act("/api/actions/dead/drop", &rest).await;
    assert_eq!(dropped["done"], 1);
    console.rig.drained().await;

    let recorded = audit(&console).await;
    let counted: Vec<_> = recorded
        .iter()
        .map(|record| (record["action"].as_str().unwrap(), record["count"].clone()))
        .collect();
    assert_eq!(
        counted,
        [
            ("dead-drop", json!(1)),
            ("dead-replay", json!(2)),
            ("dead-drop", json!(1)),
        ]
    );
    for body in [
        json!({"filter": {"provider": "bad"}}),
        json!({"filter": {"other": "x"}}),
        json!({"sequences": []}),
        json!({}),
    ] {
        let answer = console.post("/api/actions/dead/drop", OPERATE, &body);
        assert_eq!(console.send(answer).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn a_test_message_is_shown_before_it_is_sent() {
    let (console, good, _bad) = bed().await;
    let path = "/api/actions/providers/test";
    let preview = json!({"provider": "apps/hook", "message": "hello"});
    let shown = console.act(path, &preview).await;
    let body = shown["requests"][0]["body"].as_str().unwrap();
    assert!(body.contains("hello"), "{shown}");
    assert_eq!(good.count(), 0);
    assert_eq!(audit(&console).await, Vec::<Value>::new());
    let send = json!({"provider": "apps/hook", "message": "hello", "send": true});
    let sent = console.act(path, &send).await;
    good.accepts("hello").await;
    console.rig.drained().await;
    let event = sent["eventId"].as_str().unwrap();
    let trace = console
        .eventually(&format!("/api/trace?event={event}"), |trace| {
            let delivery = &trace["events"][0]["deliveries"][0];
            (delivery["state"] == "delivered").then(|| delivery.clone())
        })
        .await;
    assert_eq!(trace["provider"], "apps/hook");
    assert_eq!(audit(&console).await[0]["action"], "provider-test");
}

#[tokio::test]
async fn what_a_tool_does_is_recorded() {
    let (console, _good, _bad) = bed().await;
    die(&console, 2).await;
    let nats = console.rig.url();
    for arguments in [
        &[
            "dead",
            "drop",
            "--nats",
            nats,
            "--provider",
            "apps/bad",
            "--yes",
        ][..],
        &["providers", "pause", "--nats", nats, "apps/hook"],
        &["providers", "resume", "--nats", nats, "apps/hook"],
    ] {
        tidings(arguments).await.lines();
    }
    let recorded = audit(&console).await;
    let actions: Vec<_> = recorded
        .iter()
        .map(|record| record["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["dead-drop", "provider-pause", "provider-resume"]);
    assert_eq!(recorded[0]["target"], "provider=apps/bad");
    assert_eq!(recorded[0]["count"], 2);
    for record in &recorded {
        assert_eq!(record["via"], "tool");
        assert!(!record["who"].as_str().unwrap().is_empty());
    }
}
