//! A channel that is a credential, such as PagerDuty's routing key, is sent to its service only.

use serde_json::{Value, json};
use tidings_rig::{
    Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider, secret,
};
use tokio::process::Command;

use crate::TIDINGS;
use crate::secrets::stored;

const KEYS: [&str; 3] = [
    "r0uting-key-of-the-secret",
    "r0uting-key-of-the-provider",
    "r0uting-key-of-the-alert",
];

/// The output of `tidings providers …` on the rig's bus.
async fn providers(rig: &Rig, arguments: &[&str]) -> String {
    let mut command = Command::new(TIDINGS);
    let command = command.arg("providers").args(arguments);
    let ended = command.args(["--nats", rig.url()]).output().await;
    let ended = ended.expect("the tool can be started");
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

fn on_call(name: &str, receiver: &Receiver) -> Manifest {
    provider(name, receiver.url())
        .with("type", "pagerduty")
        .that_retries_soon()
}

/// Services that repeat these keys, in this order.
async fn start_services() -> [Receiver; 3] {
    [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ]
}

fn answer(services: &[Receiver; 3], status: u16) {
    for (service, key) in services.iter().zip(KEYS) {
        service.answer_with(Reply::Text(status, key));
    }
}

/// Providers with the key in the Secret, in the Provider and in the Alert. Each has channels that
/// do not apply.
fn put_rules(rig: &Rig, [by_secret, by_provider, by_alert]: &[Receiver; 3]) {
    rig.rules().put([
        secret("key", json!({"routingKey": format!("{}\n", KEYS[0])})),
        on_call("by-secret", by_secret)
            .with("secretRef", json!({"name": "key"}))
            .with("channel", KEYS[1]),
        on_call("by-provider", by_provider).with("channel", KEYS[1]),
        on_call("by-alert", by_alert).with("channel", KEYS[1]),
        alert("a", "by-secret").with("channel", KEYS[2]),
        alert("b", "by-provider"),
        alert("c", "by-alert").with("channel", KEYS[2]),
    ]);
}

fn failed(second: usize) -> Value {
    let mut event = event(&format!("failed at {second}"));
    event["severity"] = "error".into();
    event["involvedObject"]["uid"] = format!("uid-{second}").into();
    event
}

/// Everything that users can see.
async fn outputs(rig: &Rig, up: &Process) -> Vec<(&'static str, String)> {
    let mut outputs = vec![
        ("log", up.log().join("\n")),
        ("metrics", up.metrics().await),
        (
            "circuits as text",
            providers(rig, &["circuits", "--output", "text"]).await,
        ),
        (
            "circuits as JSON",
            providers(rig, &["circuits", "--output", "jsonl"]).await,
        ),
    ];
    for stream in ["DELIVERIES", "OUTCOMES", "DEAD", "KV_limits", "KV_latest"] {
        outputs.push((stream, stored(rig, stream).await));
    }
    outputs
}

fn assert_hidden(outputs: &[(&str, String)]) {
    for (output, text) in outputs {
        for key in KEYS {
            let at = text.find(key).map(|at| &text[at.saturating_sub(300)..at]);
            assert_eq!(at, None, "{key} is in the {output}");
        }
    }
}

#[tokio::test]
async fn a_routing_key_is_in_no_metric_circuit_message_or_log() {
    let (rig, services) = (Rig::start(TIDINGS).await, start_services().await);
    put_rules(&rig, &services);
    answer(&services, 503);
    let up = rig.run(Role::up().args(["--log-level", "trace"])).await;
    for second in 0..10 {
        up.post(&failed(second)).await.expect("ingest responds");
    }
    eventually("each destination has an open circuit", async || {
        let circuits = providers(&rig, &["circuits", "--output", "jsonl"]).await;
        (circuits.matches("\"open\"").count() == 3).then_some(())
    })
    .await;
    assert_hidden(&outputs(&rig, &up).await);
    let channel = "channel=\"sha256:";
    assert!(
        up.metrics().await.contains(channel),
        "circuits are distinct"
    );

    answer(&services, 400);
    for name in ["by-secret", "by-provider", "by-alert"] {
        providers(&rig, &["resume", &format!("apps/{name}")]).await;
    }
    eventually("every delivery is dead", async || {
        (rig.dead_letters().await.len() == 30).then_some(())
    })
    .await;
    assert_hidden(&outputs(&rig, &up).await);

    for (service, key) in services.iter().zip(KEYS) {
        let received = service.received();
        assert!(received.len() >= 10, "each delivery is attempted");
        assert!(received.iter().all(|one| one.json()["routing_key"] == key));
    }
}

#[tokio::test]
async fn a_delivery_uses_the_channel_that_its_alert_has_now() {
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    rig.rules()
        .put([alert("all", "on-call").with("channel", "old-key")]);
    let up = rig.run(Role::up()).await;
    up.post(&failed(1)).await.expect("ingest responds");
    rig.routed().await;

    rig.rules().put([
        alert("all", "on-call").with("channel", "new-key"),
        on_call("on-call", &receiver).with("channel", "other"),
    ]);

    let received = receiver.receives(1).await;
    assert_eq!(received[0].json()["routing_key"], "new-key");
    rig.drained().await;
}
