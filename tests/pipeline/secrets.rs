//! The data of a Secret is sent to its service only.

use serde_json::json;
use tidings_core::Message;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider, secret};

use crate::TIDINGS;

const TOKEN: &str = "t0k3n-that-nobody-may-see";
const HEADER: &str = "h34der-that-nobody-may-see";
const PASSWORD: &str = "p4ssw0rd-that-nobody-may-see";

#[tokio::test]
async fn secrets_in_a_response_are_in_no_log_metric_dead_letter_or_outcome() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Text(
        400,
        "no: t0k3n-that-nobody-may-see h34der-that-nobody-may-see p4ssw0rd-that-nobody-may-see \
         dDBrM24tdGhhdC1ub2JvZHktbWF5LXNlZQ==",
    ));
    let keys = json!({
        "token": TOKEN,
        "username": "me",
        "password": PASSWORD,
        "headers": format!("X-Key: {HEADER}"),
        "address": format!("{}?{TOKEN}", receiver.url()),
    });
    rig.rules().put([secret("key", keys)]);
    let types = [
        "generic",
        "generic-hmac",
        "slack",
        "discord",
        "webex",
        "zulip",
        "opsgenie",
        "alertmanager",
        "datadog",
        "otel",
    ];
    for name in types {
        let provider = provider(name, receiver.url())
            .with("type", name)
            .with("channel", "a/b");
        rig.rules().put([
            provider
                .with("username", "me")
                .with("secretRef", json!({"name": "key"})),
            alert(name, name),
        ]);
    }
    let up = rig.run(Role::up().args(["--log-level", "trace"])).await;

    up.post(&event("happened")).await.expect("ingest responds");
    let dead = eventually("each type has a dead letter", async || {
        let dead = rig.dead_letters().await;
        (dead.len() == types.len()).then_some(dead)
    })
    .await;

    let metrics = up.metrics().await;
    let outputs: Vec<(&str, String)> = vec![
        ("log", up.log().join("\n")),
        ("metrics", metrics),
        (
            "dead letters",
            dead.iter()
                .map(|dead| String::from_utf8_lossy(&dead.encode_to_vec()).into_owned())
                .collect(),
        ),
        ("outcomes", stored(&rig, "OUTCOMES").await),
        ("deliveries and events", stored(&rig, "EVENTS").await),
    ];
    for (output, text) in &outputs {
        assert!(text.len() > 50, "{output} are not empty");
        for value in [TOKEN, HEADER, PASSWORD] {
            let at = text.find(value).map(|at| &text[at.saturating_sub(300)..at]);
            assert_eq!(at, None, "{value} is in the {output}");
        }
    }
    assert!(
        receiver
            .received()
            .iter()
            .any(|request| request.header("x-key") == Some(HEADER)),
        "the service receives the secret"
    );
}

#[tokio::test]
async fn a_key_that_the_type_does_not_read_is_reported_and_delivers() {
    let receiver = Receiver::start().await;
    let keys = json!({
        "token": "key\n",
        "username": "me",
        "password": PASSWORD,
        "headers": "Host: elsewhere\n",
    });
    let hook = provider("hook", receiver.url())
        .with("type", "generic-hmac")
        .with("secretRef", json!({"name": "key"}));
    let rules = [hook, secret("key", keys), alert("all", "hook")];
    let (rig, up) = Rig::up(TIDINGS, rules).await;

    up.post(&event("signed")).await.expect("ingest responds");

    receiver.accepts("signed").await;
    rig.drained().await;
    for named in ["password", "the key token ends", "Host"] {
        up.logs_with("rule-problem", [("problem", named)]).await;
    }
    up.counts("tidings_rules_problems", "", 3.0).await;
    assert!(!up.log().join("\n").contains(PASSWORD));
}

#[tokio::test]
async fn a_line_break_at_the_end_of_a_key_is_not_sent() {
    let receiver = Receiver::start().await;
    let keys = json!({
        "address": format!("{}\n", receiver.url()),
        "username": "me\n",
        "password": "pw\r\n",
        "headers": "X-Scope-OrgID: |\n  team-a\n",
    });
    let types = ["alertmanager", "grafana", "zulip", "otel"];
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([secret("key", keys)]);
    for name in types {
        let provider = provider(name, "http://192.0.2.1")
            .with("type", name)
            .with("channel", "a/b")
            .with("secretRef", json!({"name": "key"}));
        rig.rules().put([provider, alert(name, name)]);
    }
    let up = rig.run(Role::up()).await;

    up.post(&event("happened")).await.expect("ingest responds");

    let received = receiver.receives(types.len()).await;
    for request in received {
        assert_eq!(request.header("authorization"), Some("Basic bWU6cHc="));
        assert_eq!(request.header("x-scope-orgid"), Some("team-a"));
    }
    rig.drained().await;
}

/// Every message of a stream with its subject, as text.
pub async fn stored(rig: &Rig, name: &str) -> String {
    let stream = rig
        .jetstream()
        .await
        .get_stream(name)
        .await
        .expect("the stream exists");
    let state = stream.cached_info().state.clone();
    let mut text = String::new();
    for sequence in state.first_sequence..=state.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            text.push_str(&message.subject);
            text.push_str(&String::from_utf8_lossy(&message.payload));
        }
    }
    text
}
