//! The labels of the objects that events are about.

use serde_json::{Value, json};
use tidings_core::object_labels::State;
use tidings_rig::{KubeApiServer, Process, Receiver, Rig, Role, alert, eventually, provider};

use crate::TIDINGS;
use crate::events::{Cluster, stored};

/// An event about a ConfigMap.
fn event(namespace: &str, name: &str, message: &str) -> Value {
    json!({
        "involvedObject": {"kind": "ConfigMap", "apiVersion": "v1", "namespace": namespace, "name": name},
        "severity": "info", "reason": "Changed", "message": message,
    })
}

async fn post(ingest: &Process, event: &Value) {
    assert_eq!(
        ingest.post(event).await.expect("ingest answers").status,
        202
    );
}

async fn apply(server: &KubeApiServer, namespace: &str, name: &str, team: &str) {
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"team": team}}});
    server.apply(namespace, &manifest.to_string()).await;
}

async fn state_of(rig: &Rig, message: &str) -> State {
    let event = stored(rig)
        .await
        .into_iter()
        .find(|event| event.message == message)
        .expect("it was accepted");
    event.labels.map_or(State::Unknown, |labels| labels.state())
}

#[tokio::test]
async fn an_alert_that_asks_for_labels_takes_events_about_objects_that_have_them() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    let source = json!([{"kind": "ConfigMap", "name": "*", "matchLabels": {"team": "a"}}]);
    let alert = alert("a", "p")
        .with("eventSources", source)
        .in_namespace(&cluster.namespace);
    rig.rules().put([
        alert,
        provider("p", receiver.url()).in_namespace(&cluster.namespace),
    ]);
    apply(server, &cluster.namespace, "ours", "a").await;
    apply(server, &cluster.namespace, "theirs", "b").await;
    let up = rig
        .run(
            cluster
                .reached_by(Role::up())
                .args(["--label-kinds", "v1/ConfigMap"]),
        )
        .await;

    for (name, message) in [("ours", "one"), ("theirs", "two"), ("nobodys", "three")] {
        post(&up, &event(&cluster.namespace, name, message)).await;
    }
    receiver.accepts("one").await;
    eventually("the others differ", async || {
        (up.metric("tidings_router_verdicts_total", "labels-differ")
            .await
            == 2.0)
            .then_some(())
    })
    .await;
    assert_eq!(
        (state_of(&rig, "two").await, state_of(&rig, "three").await),
        (State::Known, State::Absent)
    );

    apply(server, &cluster.namespace, "theirs", "a").await;
    apply(server, &cluster.namespace, "nobodys", "a").await;
    eventually("a change is known", async || {
        let message = format!("again {}", rand::random::<u64>());
        post(&up, &event(&cluster.namespace, "theirs", &message)).await;
        let labels = stored(&rig)
            .await
            .into_iter()
            .find(|event| event.message == message)?
            .labels?
            .labels;
        (labels["team"] == "a").then_some(())
    })
    .await;
    post(&up, &event(&cluster.namespace, "nobodys", "four")).await;
    receiver.accepts("four").await;
    assert_eq!(
        receiver
            .accepted()
            .iter()
            .filter(|received| ["two", "three"].contains(&received.message().as_str()))
            .count(),
        0
    );
}

#[tokio::test]
async fn labels_that_can_not_be_read_are_unknown_and_hold_up_nobody() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    apply(server, &cluster.namespace, "ours", "a").await;
    let nobody = server
        .kubeconfig_for(&cluster.namespace, "nobody")
        .await
        .display()
        .to_string();
    let forbidden = rig
        .run(Role::ingest().args(["--kubeconfig", &nobody, "--label-kinds", "ConfigMap"]))
        .await;
    post(&forbidden, &event(&cluster.namespace, "ours", "forbidden")).await;
    assert_eq!(state_of(&rig, "forbidden").await, State::Unknown);
    assert_eq!(
        forbidden
            .metric("tidings_ingest_label_lookups_total", "unknown")
            .await,
        1.0
    );

    let missing = rig
        .run(
            cluster
                .reached_by(Role::ingest())
                .args(["--label-kinds", "Missing.example.com"]),
        )
        .await;
    let about = json!({"kind": "Missing", "apiVersion": "example.com/v1", "namespace": cluster.namespace, "name": "x"});
    post(
        &missing,
        &json!({"involvedObject": about, "message": "missing"}),
    )
    .await;
    assert_eq!(state_of(&rig, "missing").await, State::Unknown);
    assert_eq!(
        missing
            .metric("tidings_ingest_label_lookups_total", "unknown")
            .await,
        1.0
    );

    let without = rig
        .run(
            cluster
                .reached_by(Role::ingest())
                .env("TIDINGS_INGEST__LABELS", "false"),
        )
        .await;
    post(&without, &event(&cluster.namespace, "ours", "off")).await;
    assert_eq!(
        without
            .metric("tidings_ingest_label_lookups_total", "")
            .await,
        0.0
    );
}

#[tokio::test]
async fn an_api_server_that_hangs_keeps_no_event_from_being_taken() {
    let server = KubeApiServer::start().await;
    let cluster = Cluster::of(&server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    apply(&server, &cluster.namespace, "ours", "a").await;
    let ingest = rig
        .run(
            cluster
                .reached_by(Role::ingest())
                .args(["--label-kinds", "ConfigMap,Secret"]),
        )
        .await;
    eventually("the labels are known", async || {
        let message = format!("before {}", rand::random::<u64>());
        post(&ingest, &event(&cluster.namespace, "ours", &message)).await;
        (state_of(&rig, &message).await == State::Known).then_some(())
    })
    .await;
    server.freeze();
    post(&ingest, &event(&cluster.namespace, "ours", "remembered")).await;
    post(&ingest, &event(&cluster.namespace, "theirs", "never seen")).await;
    let mut secret = event(&cluster.namespace, "ours", "a kind never seen");
    secret["involvedObject"]["kind"] = json!("Secret");
    post(&ingest, &secret).await;
    let states = [
        state_of(&rig, "remembered").await,
        state_of(&rig, "never seen").await,
        state_of(&rig, "a kind never seen").await,
    ];
    assert_eq!(states, [State::Known, State::Unknown, State::Unknown]);
    server.thaw();
}
