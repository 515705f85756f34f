//! Kubernetes Events as a source.

use futures::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidings_core::Message;
use tidings_rig::{KubeApiServer, Process, Receiver, Rig, Role, alert, eventually, provider};

use crate::TIDINGS;

const METRIC: &str = "tidings_ingest_kubernetes_events_total";

/// A namespace of a cluster whose Events are watched.
pub struct Cluster {
    pub namespace: String,
    kubeconfig: String,
    client: Client,
}

impl Cluster {
    pub async fn of(server: &KubeApiServer) -> Self {
        let kubeconfig = server.kubeconfig().display().to_string();
        Self {
            namespace: server.namespace().await,
            kubeconfig,
            client: server.client().await,
        }
    }

    /// A role with access to the cluster, and with its Lease in the namespace.
    pub fn with_access(&self, role: Role) -> Role {
        role.args(["--kubeconfig", &self.kubeconfig])
            .env("TIDINGS_KUBERNETES__NAMESPACE", &self.namespace)
    }

    fn watcher(&self, role: Role) -> Role {
        self.with_access(role)
            .args(["--watch-events", "--event-namespaces", &self.namespace])
    }

    fn events(&self) -> Api<Event> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a warning about the Pod `api`, like the kubelet.
    async fn create_warning(&self, note: &str) {
        self.create_event(note, json!({})).await;
    }

    /// Creates the same Event with other fields.
    pub async fn create_event(&self, note: &str, fields: Value) {
        let mut event = json!({
            "metadata": {"generateName": "api."},
            "involvedObject": {
                "kind": "Pod", "apiVersion": "v1", "namespace": self.namespace, "name": "api",
            },
            "type": "Warning", "reason": "BackOff", "message": note, "count": 1,
            "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z",
            "source": {"component": "kubelet", "host": "node-1"},
        });
        let fields = fields
            .as_object()
            .expect("the fields are an object")
            .clone();
        event
            .as_object_mut()
            .expect("the Event is an object")
            .extend(fields);
        let event = serde_json::from_value(event).expect("the Event is valid");
        eventually("the API server accepts the Event", async || {
            self.events()
                .create(&PostParams::default(), &event)
                .await
                .ok()
        })
        .await;
    }

    async fn create_warnings(&self, notes: impl IntoIterator<Item = String>) {
        stream::iter(notes)
            .for_each_concurrent(32, |note| async move { self.create_warning(&note).await })
            .await;
    }
}

/// All events in EVENTS, oldest first.
pub async fn stored(rig: &Rig) -> Vec<tidings_core::Event> {
    let Ok(stream) = rig.jetstream().await.get_stream("EVENTS").await else {
        return Vec::new();
    };
    let Ok(info) = stream.get_info().await else {
        return Vec::new();
    };
    let mut events = Vec::new();
    for sequence in info.state.first_sequence..=info.state.last_sequence {
        let Ok(message) = stream.direct_get(sequence).await else {
            return Vec::new();
        };
        events.push(tidings_core::Event::decode(message.payload).expect("EVENTS holds events"));
    }
    events
}

async fn messages(rig: &Rig) -> Vec<String> {
    stored(rig)
        .await
        .into_iter()
        .map(|event| event.message)
        .collect()
}

/// Waits until each of these is stored, and asserts that no other event is.
async fn are_stored_once(rig: &Rig, notes: impl IntoIterator<Item = String>) {
    let mut expected: Vec<String> = notes.into_iter().collect();
    expected.sort();
    let mut missing = Vec::new();
    let wait = eventually("every Event is stored", async || {
        let mut found = messages(rig).await;
        found.sort();
        missing = expected
            .iter()
            .filter(|note| found.binary_search(note).is_err())
            .cloned()
            .collect();
        missing.is_empty().then_some(found)
    });
    let found = tokio::time::timeout(tidings_rig::PATIENCE / 2, wait)
        .await
        .ok();
    assert_eq!(found, Some(expected), "missing: {missing:?}");
    rig.routed().await;
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| format!("event {number}"))
}

async fn watches(process: &Process) -> bool {
    process
        .metric("tidings_ingest_kubernetes_events_watched", "")
        .await
        > 0.0
}

/// Waits until a replica watches and has saved its cursor.
pub async fn starts_watching(process: &Process) {
    eventually("a replica watches", async || {
        watches(process).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_created_with_kubectl_is_delivered() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    let source = json!([{"kind": "Pod", "name": "*"}]);
    let alert = alert("a", "p")
        .with("eventSources", source)
        .in_namespace(&cluster.namespace);
    rig.rules().put([
        alert,
        provider("p", receiver.url()).in_namespace(&cluster.namespace),
    ]);
    let up = rig
        .run(cluster.watcher(Role::up()).args([
            "--event-kinds",
            "Pod",
            "--event-reasons",
            "!Unhealthy",
        ]))
        .await;
    starts_watching(&up).await;

    cluster
        .create_event("not ready", json!({"reason": "Unhealthy"}))
        .await;
    let job = json!({"kind": "Job", "name": "api", "namespace": cluster.namespace});
    cluster
        .create_event("no Pod", json!({"involvedObject": job}))
        .await;
    cluster
        .create_event(
            "Pulled the image",
            json!({"type": "Normal", "reason": "Pulled"}),
        )
        .await;
    let annotations = json!({"event.toolkit.fluxcd.io/team": "a", "other": "b"});
    let pod = json!({
        "kind": "Pod", "apiVersion": "v1", "name": "api", "namespace": cluster.namespace,
    });
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "by-hand", "annotations": annotations},
        "involvedObject": pod,
        "type": "Warning",
        "reason": "BackOff",
        "message": "(combined from similar events): Back-off restarting",
        "reportingComponent": "kubelet",
        "lastTimestamp": "2026-01-02T03:04:05Z",
    });
    server
        .apply(&cluster.namespace, &manifest.to_string())
        .await;

    let received = receiver.receives(1).await;
    let event = received[0].json();
    for (field, expected) in [
        ("/message", json!("Back-off restarting")),
        ("/severity", json!("error")),
        ("/reason", json!("BackOff")),
        ("/timestamp", json!("2026-01-02T03:04:05Z")),
        ("/reportingController", json!("kubelet")),
        ("/metadata", json!({"team": "a"})),
        ("/involvedObject/kind", json!("Pod")),
        ("/involvedObject/name", json!("api")),
        ("/involvedObject/namespace", json!(cluster.namespace)),
    ] {
        assert_eq!(event.pointer(field), Some(&expected), "{field} in {event}");
    }
    assert_eq!(
        messages(&rig).await,
        ["Back-off restarting"],
        "no other Event is stored"
    );
}

#[tokio::test]
async fn after_a_kill_the_watch_continues_without_gap_or_duplicate() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    cluster.create_warning("before the first start").await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;

    tokio::join!(cluster.create_warnings(numbered(0..200)), async {
        eventually("some Events are stored", async || {
            (messages(&rig).await.len() > 20).then_some(())
        })
        .await;
        ingest.kill().await;
    });
    cluster.create_warnings(numbered(200..250)).await;
    ingest.restart().await;
    cluster.create_warnings(numbered(250..300)).await;
    are_stored_once(&rig, numbered(0..300)).await;
}

#[tokio::test]
async fn events_of_a_killed_replica_are_not_stored_again_after_the_dedupe_interval() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let soon = ["--dedupe-interval", "1s"];
    let _router = rig
        .run(Role::router().env("TIDINGS_INGEST__DEDUPE_INTERVAL", "1s"))
        .await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest()).args(soon)).await;
    starts_watching(&ingest).await;
    tokio::join!(cluster.create_warnings(numbered(0..300)), async {
        eventually("some Events are stored", async || {
            (messages(&rig).await.len() > 20).then_some(())
        })
        .await;
        ingest.kill().await;
    });
    // The Lease of the killed replica lasts longer than the dedupe interval.
    ingest.restart().await;
    cluster.create_warnings(numbered(300..320)).await;
    are_stored_once(&rig, numbered(0..320)).await;
    // Some were stored after the saved cursor.
    ingest.counts_any(METRIC, "duplicate").await;
}

#[tokio::test]
async fn a_cursor_ahead_of_the_storage_is_replaced_by_a_list() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster.create_warnings(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    assert!(ingest.terminate().await.success());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let lease = leases
        .get("tidings-events")
        .await
        .expect("the Lease exists");
    let annotation = &lease
        .metadata
        .annotations
        .expect("the Lease has annotations")["tidings/events-cursor"];
    let mut cursor: Value = serde_json::from_str(annotation).expect("the cursor is JSON");
    cursor["resourceVersion"] = json!(9_000_000_000_u64);
    let patch = json!({"metadata": {"annotations": {"tidings/events-cursor": cursor.to_string()}}});
    leases
        .patch(
            "tidings-events",
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .expect("the Lease exists");

    cluster.create_warnings(numbered(10..20)).await;
    ingest.restart().await;
    ingest.logs("event-cursor-invalid").await;
    cluster.create_warnings(numbered(20..30)).await;
    are_stored_once(&rig, numbered(0..30)).await;
}

#[tokio::test]
async fn one_of_two_replicas_watches_and_the_other_takes_over() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let mut first = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&first).await;
    let mut second = rig.run(cluster.watcher(Role::ingest())).await;
    cluster.create_warnings(numbered(0..20)).await;
    are_stored_once(&rig, numbered(0..20)).await;
    assert!(!watches(&second).await && second.metric(METRIC, "").await == 0.0);

    first.kill().await;
    cluster.create_warnings(numbered(20..40)).await;
    starts_watching(&second).await;
    are_stored_once(&rig, numbered(0..40)).await;

    first.restart().await;
    assert!(second.terminate().await.success());
    cluster.create_warnings(numbered(40..60)).await;
    are_stored_once(&rig, numbered(0..60)).await;
    assert!(watches(&first).await);
    // The released Lease is taken over at the cursor.
    first.counts(METRIC, "accepted", 20.0).await;
}

#[tokio::test]
async fn deleting_the_lease_loses_no_event() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster.create_warnings(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    leases
        .delete("tidings-events", &Default::default())
        .await
        .expect("the Lease exists");
    ingest.logs("leadership-lost").await;
    cluster.create_warnings(numbered(10..20)).await;
    are_stored_once(&rig, numbered(0..20)).await;
}

#[tokio::test]
async fn an_expired_watch_continues_from_a_list() {
    let mut server = KubeApiServer::start().await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let cluster = Cluster::of(&server).await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster.create_warnings(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;

    ingest.kill().await;
    cluster.create_warnings(numbered(10..20)).await;
    server.compact().await;
    server.restart().await;
    ingest.restart().await;
    ingest.logs("event-watch-expired").await;
    cluster.create_warnings(numbered(20..30)).await;
    are_stored_once(&rig, numbered(0..30)).await;
    ingest.counts(METRIC, "accepted", 20.0).await;
}

#[tokio::test]
async fn after_a_restore_of_etcd_new_events_are_stored_and_old_ones_are_not_stored_again() {
    let mut server = KubeApiServer::start().await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let cluster = Cluster::of(&server).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster.create_warnings(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    let snapshot = server.snapshot().await;
    cluster.create_warnings(numbered(10..60)).await;
    are_stored_once(&rig, numbered(0..60)).await;

    server.restore(&snapshot).await;
    cluster.create_warnings(numbered(60..70)).await;
    are_stored_once(&rig, numbered(0..70)).await;
}

#[tokio::test]
async fn a_burst_of_five_thousand_events_needs_one_watch() {
    let server = KubeApiServer::start().await;
    let cluster = Cluster::of(&server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster.create_warnings(numbered(0..5000)).await;
    eventually("every Event is counted", async || {
        (ingest.metric(METRIC, "accepted").await >= 5000.0).then_some(())
    })
    .await;
    are_stored_once(&rig, numbered(0..5000)).await;
    let metrics = server
        .kubectl(&["get", "--raw", "/metrics"])
        .await
        .expect_success();
    let requests = |verb: &str| -> f64 {
        let (verb, resource) = (format!("verb=\"{verb}\""), "resource=\"events\"");
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"));
        let selected = lines.filter(|line| line.contains(&verb) && line.contains(resource));
        selected
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    assert!(
        requests("LIST") + requests("WATCH") < 10.0,
        "{} lists, {} watches",
        requests("LIST"),
        requests("WATCH")
    );
}

#[tokio::test]
async fn events_during_an_outage_of_the_bus_are_not_lost() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let mut rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster.create_warnings(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    rig.nats().kill().await;
    cluster.create_warnings(numbered(10..400)).await;
    // Stops the watcher while more Events than it can hold are not stored.
    ingest.kill().await;
    rig.nats().restart().await;
    ingest.restart().await;
    are_stored_once(&rig, numbered(0..400)).await;
}

#[tokio::test]
async fn a_repeated_event_is_stored_once_an_interval() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ingest).await;
    cluster
        .create_event("Back-off", json!({"metadata": {"name": "api.1"}}))
        .await;
    for (count, last) in [
        (2, "03:04:15"),
        (3, "03:09:00"),
        (4, "03:09:10"),
        (5, "03:12:00"),
        (6, "03:14:10"),
    ] {
        let patch = json!({"count": count, "lastTimestamp": format!("2026-01-02T{last}Z")});
        cluster
            .events()
            .patch("api.1", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("the count can be changed");
    }
    cluster.create_warning("the end").await;
    eventually("the last Event is stored", async || {
        messages(&rig)
            .await
            .contains(&"the end".to_owned())
            .then_some(())
    })
    .await;
    let times: Vec<i64> = stored(&rig)
        .await
        .iter()
        .filter_map(|event| Some(event.timestamp?.seconds - 1_767_323_045))
        .collect();
    assert_eq!(times, [0, 305, 605, 0]);
    ingest.counts(METRIC, "repeated", 3.0).await;
}

#[tokio::test]
async fn events_about_objects_of_flux_are_ignored_by_default() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let involved = json!({
        "kind": "Alert",
        "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
        "name": "x",
        "namespace": cluster.namespace,
    });
    let revision = json!({"notification.toolkit.fluxcd.io/revision": "main@sha1:abc"});
    let about = json!({
        "involvedObject": involved,
        "reportingComponent": "some-controller", "source": {}, "reportingInstance": "a",
        "metadata": {"generateName": "x.", "annotations": revision},
    });
    let object = alert("x", "p").in_namespace(&cluster.namespace).set(
        "/metadata/annotations",
        json!({"event.toolkit.fluxcd.io/team": "a"}),
    );
    server.apply(&cluster.namespace, &object.to_string()).await;
    let mut ignoring = rig.run(cluster.watcher(Role::ingest())).await;
    starts_watching(&ignoring).await;
    cluster.create_event("ignored", about.clone()).await;
    cluster.create_warning("stored").await;
    are_stored_once(&rig, ["stored".to_owned()]).await;
    // It saves its cursor when it terminates, so the ignored Event stays ignored.
    assert!(ignoring.terminate().await.success());

    let watching = cluster.watcher(Role::ingest()).args([
        "--watch-flux-objects",
        "--label-kinds",
        "Alert.notification.toolkit.fluxcd.io",
    ]);
    let watching = rig.run(watching).await;
    starts_watching(&watching).await;
    cluster.create_event("from the watch", about).await;
    are_stored_once(&rig, ["stored".to_owned(), "from the watch".to_owned()]).await;
    let event = stored(&rig).await.pop().expect("the event is stored");
    let keys: Vec<&str> = event.metadata.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "event.toolkit.fluxcd.io/team",
            "notification.toolkit.fluxcd.io/revision"
        ]
    );
    let posted = json!({
        "involvedObject": involved,
        "severity": "error", "reason": "BackOff", "message": "from the watch",
        "metadata": revision,
    });
    assert_eq!(
        watching
            .post(&posted)
            .await
            .expect("ingest responds")
            .status,
        429,
        "Flux's own copy is a duplicate"
    );
}

#[tokio::test]
async fn ingest_needs_only_these_rights_and_logs_missing_ones() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let kubeconfig = server
        .kubeconfig_for(&cluster.namespace, "ingest")
        .await
        .display()
        .to_string();
    let rules = json!([
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update"],
        },
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
    ]);
    let role = |rules: &Value| {
        let metadata = json!({"name": format!("ingest-{}", cluster.namespace)});
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": metadata,
            "rules": rules,
        })
    };
    server
        .apply(&cluster.namespace, &role(&json!([])).to_string())
        .await;
    let name = format!("ingest-{}", cluster.namespace);
    let account = format!("--serviceaccount={}:ingest", cluster.namespace);
    server
        .kubectl(&[
            "create",
            "clusterrolebinding",
            &name,
            "--clusterrole",
            &name,
            &account,
        ])
        .await
        .expect_success();
    let ingest = rig.spawn(
        Role::ingest()
            .args([
                "--watch-events",
                "--event-reasons",
                &cluster.namespace,
                "--label-kinds",
                "ConfigMap",
                "--kubeconfig",
                &kubeconfig,
            ])
            .env("TIDINGS_KUBERNETES__NAMESPACE", &cluster.namespace),
    );
    ingest
        .logs_with("lease-unavailable", [("error", "forbidden")])
        .await;
    server
        .apply(&cluster.namespace, &role(&json!([rules[0]])).to_string())
        .await;
    ingest
        .logs_with("event-watch-failed", [("error", "forbidden")])
        .await;
    assert_eq!(ingest.readiness().await.status, 503);
    server
        .apply(&cluster.namespace, &role(&rules).to_string())
        .await;
    starts_watching(&ingest).await;
    ingest.ready().await;
    let about = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "namespace": cluster.namespace, "name": "none",
    });
    cluster
        .create_event(
            "permitted",
            json!({"reason": cluster.namespace, "involvedObject": about}),
        )
        .await;
    are_stored_once(&rig, ["permitted".to_owned()]).await;
    ingest
        .counts("tidings_ingest_label_lookups_total", "not-found", 1.0)
        .await;
}
