//! Labels of the objects that events are about.

use serde_json::{Value, json};
use tidings_core::object_labels::State;
use tidings_rig::{
    KubeApiServer, Process, Receiver, Rig, Role, alert, config_map, eventually, provider,
};

use crate::TIDINGS;
use crate::events::{Cluster, stored};

/// An event about a ConfigMap.
fn event(namespace: &str, name: &str, message: &str) -> Value {
    json!({
        "involvedObject": {
            "kind": "ConfigMap", "apiVersion": "v1", "namespace": namespace, "name": name,
        },
        "severity": "info", "reason": "Changed", "message": message,
    })
}

async fn post(ingest: &Process, event: &Value) {
    assert_eq!(
        ingest.post(event).await.expect("ingest responds").status,
        202
    );
}

async fn apply(server: &KubeApiServer, namespace: &str, name: &str, team: &str) {
    let manifest = config_map(name, json!({}))
        .set("/metadata/labels/team", team)
        .in_namespace(namespace);
    server.apply(namespace, &manifest.to_string()).await;
}

async fn state_of(rig: &Rig, message: &str) -> State {
    let event = stored(rig)
        .await
        .into_iter()
        .find(|event| event.message == message)
        .expect("the event was accepted");
    event.labels.map_or(State::Unknown, |labels| labels.state())
}

#[tokio::test]
async fn an_alert_with_match_labels_matches_objects_with_these_labels() {
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
    apply(server, &cluster.namespace, "labeled", "a").await;
    apply(server, &cluster.namespace, "other", "b").await;
    let up = rig
        .run(
            cluster
                .with_access(Role::up())
                .args(["--label-kinds", "v1/ConfigMap"]),
        )
        .await;

    for (name, message) in [("labeled", "one"), ("other", "two"), ("missing", "three")] {
        post(&up, &event(&cluster.namespace, name, message)).await;
    }
    receiver.accepts("one").await;
    eventually("the labels of the others differ", async || {
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

    apply(server, &cluster.namespace, "other", "a").await;
    apply(server, &cluster.namespace, "missing", "a").await;
    eventually("the change is read", async || {
        let message = format!("again {}", rand::random::<u64>());
        post(&up, &event(&cluster.namespace, "other", &message)).await;
        let labels = stored(&rig)
            .await
            .into_iter()
            .find(|event| event.message == message)?
            .labels?
            .labels;
        (labels["team"] == "a").then_some(())
    })
    .await;
    post(&up, &event(&cluster.namespace, "missing", "four")).await;
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
async fn a_name_from_an_event_reads_no_other_object() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let rig = Rig::start(TIDINGS).await;
    apply(server, &cluster.namespace, "labeled", "a").await;
    let arguments = ["--label-kinds", "v1/ConfigMap"];
    let up = rig
        .run(cluster.with_access(Role::up()).args(arguments))
        .await;

    for name in [
        "labeled?watch=true",
        "labeled#",
        "../configmaps/labeled",
        "%6cabeled",
    ] {
        post(&up, &event(&cluster.namespace, name, name)).await;
        assert_eq!(state_of(&rig, name).await, State::Absent, "{name}");
    }
    let elsewhere = format!("{0}/configmaps/labeled?", cluster.namespace);
    post(&up, &event(&elsewhere, "x", "namespace")).await;
    assert_eq!(state_of(&rig, "namespace").await, State::Absent);
    post(&up, &event(&cluster.namespace, "labeled", "found")).await;
    assert_eq!(state_of(&rig, "found").await, State::Known);
    rig.drained().await;
}

#[tokio::test]
async fn labels_that_cannot_be_read_are_unknown() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    apply(server, &cluster.namespace, "labeled", "a").await;
    let unprivileged = server
        .kubeconfig_for(&cluster.namespace, "unprivileged")
        .await
        .display()
        .to_string();
    let forbidden = rig
        .run(Role::ingest().args(["--kubeconfig", &unprivileged, "--label-kinds", "ConfigMap"]))
        .await;
    post(
        &forbidden,
        &event(&cluster.namespace, "labeled", "forbidden"),
    )
    .await;
    assert_eq!(state_of(&rig, "forbidden").await, State::Unknown);
    forbidden
        .counts("tidings_ingest_label_lookups_total", "unknown", 1.0)
        .await;

    let missing = rig
        .run(
            cluster
                .with_access(Role::ingest())
                .args(["--label-kinds", "Missing.example.com"]),
        )
        .await;
    let about = json!({
        "kind": "Missing",
        "apiVersion": "example.com/v1",
        "namespace": cluster.namespace,
        "name": "x",
    });
    post(
        &missing,
        &json!({"involvedObject": about, "message": "missing"}),
    )
    .await;
    assert_eq!(state_of(&rig, "missing").await, State::Unknown);
    missing
        .counts("tidings_ingest_label_lookups_total", "unknown", 1.0)
        .await;

    let without = rig
        .run(
            cluster
                .with_access(Role::ingest())
                .env("TIDINGS_INGEST__LABELS", "false"),
        )
        .await;
    post(&without, &event(&cluster.namespace, "labeled", "off")).await;
    assert_eq!(
        without
            .metric("tidings_ingest_label_lookups_total", "")
            .await,
        0.0
    );
}

#[tokio::test]
async fn events_are_accepted_while_the_api_server_hangs() {
    let server = KubeApiServer::start().await;
    let cluster = Cluster::of(&server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    apply(&server, &cluster.namespace, "labeled", "a").await;
    let ingest = rig
        .run(
            cluster
                .with_access(Role::ingest())
                .args(["--label-kinds", "ConfigMap,Secret"]),
        )
        .await;
    eventually("the labels are read", async || {
        let message = format!("before {}", rand::random::<u64>());
        post(&ingest, &event(&cluster.namespace, "labeled", &message)).await;
        (state_of(&rig, &message).await == State::Known).then_some(())
    })
    .await;
    server.freeze();
    post(&ingest, &event(&cluster.namespace, "labeled", "cached")).await;
    post(&ingest, &event(&cluster.namespace, "other", "not cached")).await;
    let mut secret = event(&cluster.namespace, "labeled", "a kind not cached");
    secret["involvedObject"]["kind"] = json!("Secret");
    post(&ingest, &secret).await;
    let states = [
        state_of(&rig, "cached").await,
        state_of(&rig, "not cached").await,
        state_of(&rig, "a kind not cached").await,
    ];
    assert_eq!(states, [State::Known, State::Unknown, State::Unknown]);
    server.thaw();
}
