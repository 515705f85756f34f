//! Rules for fleets: what the hub knows of a cluster decides which Alerts see its events.

use serde_json::json;
use tidings_core::bus::clusters::ClusterRecords;
use tidings_core::bus::connect::connect;
use tidings_core::runtime::config::{Flag, Settings, Sources};
use tidings_core::wire::Cluster;
use tidings_rig::{
    Manifest, ONE_FOR_EACH_POST, Process, Receiver, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

/// The bucket of clusters. A router or worker has created it.
pub async fn clusters(rig: &Rig) -> ClusterRecords {
    let url = Flag {
        name: "--nats".into(),
        key: "nats.url".into(),
        value: rig.url().into(),
    };
    let sources = Sources {
        flags: vec![url],
        ..Sources::default()
    };
    let settings = Settings::load(&sources).expect("the address is valid");
    let bus = connect(&settings.nats, "test").await;
    ClusterRecords::open(&bus.expect("the server runs"))
        .await
        .expect("a role created the bucket")
}

pub fn cluster(name: &str, labels: &[(&str, &str)]) -> Cluster {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Cluster {
        name: name.into(),
        labels: labels.iter().map(pair).collect(),
        ..Cluster::default()
    }
}

/// Stores a cluster, whatever the hub knows of it.
pub async fn store(records: &ClusterRecords, cluster: &Cluster) {
    let (_, revision) = records.load(&cluster.name).await.expect("NATS answers");
    let stored = records.store(cluster, revision).await;
    assert!(stored.expect("NATS answers"), "nobody else changes it");
}

/// Posts events until one is delivered, since a change of a cluster takes effect soon after. Returns
/// the number of posts.
async fn post_until_received(process: &Process, receiver: &Receiver, text: &str) {
    let mut number = 0;
    eventually("an event is delivered", async || {
        number += 1;
        let response = process.post(&event(&format!("{text} {number}"))).await;
        assert_eq!(response.expect("ingest responds").status, 202);
        receiver
            .received()
            .iter()
            .any(|received| received.json()["message"].to_string().contains(text))
            .then_some(())
    })
    .await;
}

/// How often the router had this verdict.
async fn verdicts(process: &Process, verdict: &str) -> u64 {
    let counted = process.metric("tidings_router_verdicts_total", verdict);
    counted.await as u64
}

fn hook(receiver: &Receiver) -> Manifest {
    provider("hook", receiver.url())
}

fn selecting(labels: serde_json::Value) -> Manifest {
    alert("selecting", "hook").with("clusterSelector", json!({"matchLabels": labels}))
}

#[tokio::test]
async fn labels_of_the_hub_select_clusters_and_change_while_the_router_runs() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([hook(&receiver), selecting(json!({"env": "prod"}))]);
    let up = rig.run(Role::up().args(["--cluster", "eu-1"])).await;
    let records = clusters(&rig).await;

    // A label in a message is no label of the cluster.
    let mut forged = event("unknown cluster");
    forged["metadata"] = json!({"event.toolkit.fluxcd.io/env": "prod", "env": "prod"});
    up.post(&forged).await.expect("ingest responds");
    rig.routed().await;
    assert_eq!(verdicts(&up, "other-cluster").await, 1);

    store(&records, &cluster("eu-1", &[("env", "prod")])).await;
    post_until_received(&up, &receiver, "labeled").await;
    rig.drained().await;
    let received = receiver.received();
    let messages: Vec<_> = received
        .iter()
        .map(|it| it.json()["message"].clone())
        .collect();
    assert!(
        !messages.contains(&json!("unknown cluster")),
        "{messages:?}"
    );
    rig.leaves_deliveries(ONE_FOR_EACH_POST, "posts continue until one is delivered");
}

#[tokio::test]
async fn a_deleted_bucket_of_clusters_ends_no_restriction() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    let everything = alert("everything", "hook");
    rig.rules().put([hook(&receiver), everything]);
    let up = rig.run(Role::up().args(["--cluster", "eu-1"])).await;
    let records = clusters(&rig).await;
    let hidden = Cluster {
        visible_to: vec!["infra".into()],
        ..cluster("eu-1", &[])
    };
    store(&records, &hidden).await;
    let mut number = 0;
    eventually("the cluster is hidden from the namespace", async || {
        number += 1;
        up.post(&event(&format!("before {number}"))).await.ok()?;
        rig.routed().await;
        (verdicts(&up, "cluster-not-visible").await > 0).then_some(())
    })
    .await;
    rig.drained().await;

    let jetstream = rig.jetstream().await;
    let deleted = jetstream.delete_key_value("clusters").await;
    deleted.expect("the bucket exists");
    up.logs("clusters-lost").await;
    let (before, hidden) = (
        receiver.received().len(),
        verdicts(&up, "cluster-not-visible").await,
    );
    up.post(&event("after")).await.expect("ingest responds");
    rig.routed().await;

    assert_eq!(verdicts(&up, "cluster-not-visible").await, hidden + 1);
    assert_eq!(receiver.received().len(), before);
}

#[tokio::test]
async fn the_hub_can_confine_alerts_to_its_own_cluster() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([hook(&receiver), alert("all", "hook")]);
    let router = Role::router().args(["--cluster", "hub", "--local-cluster-only"]);
    let [hub, member] = ["hub", "member"].map(|name| Role::ingest().args(["--cluster", name]));
    let [router, hub, member, _worker] = rig.run_all([router, hub, member, Role::worker()]).await;

    member
        .post(&event("foreign"))
        .await
        .expect("ingest responds");
    hub.post(&event("own")).await.expect("ingest responds");

    let body = receiver.receives(1).await.remove(0).json();
    assert_eq!(body["message"], "own");
    rig.routed().await;
    assert_eq!(verdicts(&router, "not-the-local-cluster").await, 1);
    rig.drained().await;
    assert_eq!(receiver.received().len(), 1);
}
