//! Rules for fleets: what the hub knows of a cluster decides which Alerts see its events.

use serde_json::json;
use tidings_core::bus::clusters::ClusterRecords;
use tidings_core::wire::Cluster;
use tidings_rig::{
    Forge, Manifest, ONE_FOR_EACH_POST, Process, Receiver, Rig, Role, alert, event, eventually,
    provider,
};

use crate::TIDINGS;
use crate::extensions::bus;
use crate::states::{COMMIT, reconciled, rig};

/// The bucket of clusters. A router or worker has created it.
pub async fn clusters(rig: &Rig) -> ClusterRecords {
    ClusterRecords::open(&bus(rig).await)
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
    assert!(stored.expect("NATS answers"), "no other process changes it");
}

/// Posts events until one is delivered, since a change of a cluster takes effect soon after.
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

/// Two members that report the same object and commit, with this Provider. Returns how many
/// conflicts the worker has counted, and the ids of the statuses.
async fn statuses_of_two_clusters(commit_status: serde_json::Value) -> (f64, Vec<String>) {
    let (forge, rig) = (Forge::start().await, rig().await);
    let provider = forge.provider("github").with("commitStatus", commit_status);
    rig.rules().put([provider, alert("commits", "forge")]);
    let [eu, us] = ["eu", "us"].map(|name| Role::ingest().args(["--cluster", name]));
    let roles = [eu, us, Role::router(), Role::worker()];
    let [eu, us, _router, worker] = rig.run_all(roles).await;
    for (second, member) in [(1, &eu), (2, &us), (3, &eu)] {
        let event = reconciled(COMMIT, second, second != 2);
        let response = member.post(&event).await.expect("ingest responds");
        assert_eq!(response.status, 202);
        rig.drained().await;
    }
    let conflicts = worker.metric("tidings_worker_state_conflicts_total", "github");
    let conflicts = conflicts.await;
    if conflicts > 0.0 {
        let logged = worker.logs("state-conflict").await;
        let conflict = logged.field("conflict");
        assert!(
            conflict.contains("commitStatus.id: qualified"),
            "{conflict}"
        );
        assert!(conflict.contains("eu and us"), "{conflict}");
        let outcomes = rig.outcomes().await;
        let published = outcomes
            .iter()
            .filter_map(|outcome| outcome.attempt.as_ref());
        let published = published.filter(|attempt| !attempt.conflict.is_empty());
        assert_eq!(published.count(), 2, "each write after the first");
    }
    let contents = forge.contents();
    let ids = contents.statuses.iter();
    let mut ids: Vec<_> = ids
        .map(|status| status.entry["context"].to_string())
        .collect();
    ids.dedup();
    (conflicts, ids)
}

#[tokio::test]
async fn two_clusters_that_write_one_status_are_a_conflict_that_names_the_qualified_id() {
    let (conflicts, ids) = statuses_of_two_clusters(json!({})).await;
    assert_eq!((conflicts, ids.len()), (2.0, 1), "{ids:?}");
}

#[tokio::test]
async fn qualified_ids_of_two_clusters_do_not_conflict() {
    let (conflicts, ids) = statuses_of_two_clusters(json!({"id": "qualified"})).await;
    assert_eq!((conflicts, ids.len()), (0.0, 2), "{ids:?}");
}

#[tokio::test]
async fn the_first_resolve_also_ends_an_incident_of_an_earlier_release() {
    for (kind, key) in [
        ("pagerduty", "dedup_key"),
        ("incident.io", "deduplication_key"),
    ] {
        let receiver = Receiver::start().await;
        let rig = Rig::start(TIDINGS).await;
        let secret = tidings_rig::secret("key", json!({"token": "hidden-token"}));
        let incidents = provider("incidents", receiver.url())
            .with("type", kind)
            .with("channel", "routing-key")
            .with("secretRef", json!({"name": "key"}));
        rig.rules()
            .put([secret, incidents, alert("all", "incidents")]);
        let up = rig.run(Role::up().args(["--cluster", "prod-eu"])).await;
        for (second, severity) in (1..).zip(["error", "info", "error", "info"]) {
            let mut event = event(&format!("at {second}"));
            event["timestamp"] = format!("2026-01-02T03:04:{second:02}Z").into();
            event["severity"] = severity.into();
            event["involvedObject"]["uid"] = "".into();
            up.post(&event).await.expect("ingest responds");
            rig.drained().await;
        }
        let bodies = receiver.accepted();
        let bodies: Vec<_> = bodies.iter().map(|request| request.json()).collect();
        let keys: Vec<_> = bodies
            .iter()
            .filter_map(|body| body[key].as_str())
            .collect();
        let (now, former) = ("prod-eu/Kustomization/apps/apps", "Kustomization/apps/apps");
        assert_eq!(keys, [now, former, now, now, now], "{kind}: {bodies:?}");
    }
}

#[tokio::test]
async fn a_template_reads_the_labels_of_the_cluster() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    let template =
        json!({"inline": "{{ cluster }} is {{ cluster_labels.env }}: {{ event.message }}"});
    let chat = provider("hook", receiver.url())
        .with("type", "rocket")
        .with("template", template);
    rig.rules().put([chat, selecting(json!({"env": "prod"}))]);
    let up = rig.run(Role::up().args(["--cluster", "eu-1"])).await;
    store(&clusters(&rig).await, &cluster("eu-1", &[("env", "prod")])).await;
    let mut number = 0;
    eventually("an event is delivered", async || {
        number += 1;
        up.post(&event(&format!("hello {number}"))).await.ok()?;
        let received = receiver.received();
        let body = received.first()?.json();
        let text = body["attachments"][0]["text"].to_string();
        assert!(text.contains("eu-1 is prod: hello"), "{text}");
        Some(())
    })
    .await;
    rig.leaves_deliveries(ONE_FOR_EACH_POST, "posts continue until one is delivered");
}
