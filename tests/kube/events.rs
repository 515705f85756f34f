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
    async fn warn(&self, note: &str) {
        self.happen(note, json!({})).await;
    }

    /// Creates the same Event with other fields.
    pub async fn happen(&self, note: &str, fields: Value) {
        let mut event = json!({
            "metadata": {"generateName": "api."},
            "involvedObject": {"kind": "Pod", "apiVersion": "v1", "namespace": self.namespace, "name": "api"},
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

    async fn warn_of_each(&self, notes: impl IntoIterator<Item = String>) {
        stream::iter(notes)
            .for_each_concurrent(32, |note| async move { self.warn(&note).await })
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

/// Waits until each of these is stored, and asserts that nothing else is.
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
pub async fn begins(process: &Process) {
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
    begins(&up).await;

    cluster
        .happen("not ready", json!({"reason": "Unhealthy"}))
        .await;
    cluster.happen("no Pod", json!({"involvedObject": {"kind": "Job", "name": "api", "namespace": cluster.namespace}})).await;
    cluster
        .happen(
            "Pulled the image",
            json!({"type": "Normal", "reason": "Pulled"}),
        )
        .await;
    let manifest = format!(
        "{{apiVersion: v1, kind: Event, metadata: {{name: by-hand, annotations: {{event.toolkit.fluxcd.io/team: a, other: b}}}},
          involvedObject: {{kind: Pod, apiVersion: v1, name: api, namespace: {}}}, type: Warning, reason: BackOff,
          message: '(combined from similar events): Back-off restarting', reportingComponent: kubelet,
          lastTimestamp: '2026-01-02T03:04:05Z'}}",
        cluster.namespace
    );
    server.apply(&cluster.namespace, &manifest).await;

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
    cluster.warn("before the first start").await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;

    tokio::join!(cluster.warn_of_each(numbered(0..200)), async {
        eventually("some Events are stored", async || {
            (messages(&rig).await.len() > 20).then_some(())
        })
        .await;
        ingest.kill().await;
    });
    cluster.warn_of_each(numbered(200..250)).await;
    ingest.restart().await;
    cluster.warn_of_each(numbered(250..300)).await;
    are_stored_once(&rig, numbered(0..300)).await;
}

#[tokio::test]
async fn events_of_a_killed_replica_are_not_repeated_after_the_dedupe_interval() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let soon = ["--dedupe-interval", "1s"];
    let _router = rig
        .run(Role::router().env("TIDINGS_INGEST__DEDUPE_INTERVAL", "1s"))
        .await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest()).args(soon)).await;
    begins(&ingest).await;
    tokio::join!(cluster.warn_of_each(numbered(0..300)), async {
        eventually("some Events are stored", async || {
            (messages(&rig).await.len() > 20).then_some(())
        })
        .await;
        ingest.kill().await;
    });
    // The Lease of the killed replica lasts longer than the dedupe interval.
    ingest.restart().await;
    cluster.warn_of_each(numbered(300..320)).await;
    are_stored_once(&rig, numbered(0..320)).await;
    assert!(
        ingest.metric(METRIC, "duplicate").await > 0.0,
        "some were stored after the saved cursor"
    );
}

#[tokio::test]
async fn a_cursor_ahead_of_the_storage_is_replaced_by_a_list() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;
    cluster.warn_of_each(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    assert!(ingest.terminate().await.success());
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let lease = leases.get("tidings-events").await.expect("it exists");
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
        .expect("it exists");

    cluster.warn_of_each(numbered(10..20)).await;
    ingest.restart().await;
    ingest.logs("event-cursor-invalid").await;
    cluster.warn_of_each(numbered(20..30)).await;
    are_stored_once(&rig, numbered(0..30)).await;
}

#[tokio::test]
async fn one_of_two_replicas_watches_and_the_other_takes_over() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let mut first = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&first).await;
    let mut second = rig.run(cluster.watcher(Role::ingest())).await;
    cluster.warn_of_each(numbered(0..20)).await;
    are_stored_once(&rig, numbered(0..20)).await;
    assert!(!watches(&second).await && second.metric(METRIC, "").await == 0.0);

    first.kill().await;
    cluster.warn_of_each(numbered(20..40)).await;
    begins(&second).await;
    are_stored_once(&rig, numbered(0..40)).await;

    first.restart().await;
    assert!(second.terminate().await.success());
    cluster.warn_of_each(numbered(40..60)).await;
    are_stored_once(&rig, numbered(0..60)).await;
    assert!(watches(&first).await);
    assert_eq!(
        first.metric(METRIC, "accepted").await,
        20.0,
        "the released Lease is taken over at the cursor"
    );
}

#[tokio::test]
async fn deleting_the_lease_loses_no_event() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;
    cluster.warn_of_each(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    leases
        .delete("tidings-events", &Default::default())
        .await
        .expect("it exists");
    ingest.logs("leadership-lost").await;
    cluster.warn_of_each(numbered(10..20)).await;
    are_stored_once(&rig, numbered(0..20)).await;
}

#[tokio::test]
async fn an_expired_watch_continues_from_a_list() {
    let mut server = KubeApiServer::start().await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let cluster = Cluster::of(&server).await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;
    cluster.warn_of_each(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;

    ingest.kill().await;
    cluster.warn_of_each(numbered(10..20)).await;
    server.compact().await;
    server.restart().await;
    ingest.restart().await;
    ingest.logs("event-watch-expired").await;
    cluster.warn_of_each(numbered(20..30)).await;
    are_stored_once(&rig, numbered(0..30)).await;
    assert_eq!(ingest.metric(METRIC, "accepted").await, 20.0);
}

#[tokio::test]
async fn after_a_restore_of_etcd_new_events_are_stored_and_old_ones_are_not_repeated() {
    let mut server = KubeApiServer::start().await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let cluster = Cluster::of(&server).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;
    cluster.warn_of_each(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    let snapshot = server.snapshot().await;
    cluster.warn_of_each(numbered(10..60)).await;
    are_stored_once(&rig, numbered(0..60)).await;

    server.restore(&snapshot).await;
    cluster.warn_of_each(numbered(60..70)).await;
    are_stored_once(&rig, numbered(0..70)).await;
}

#[tokio::test]
async fn a_burst_of_five_thousand_events_needs_one_watch() {
    let server = KubeApiServer::start().await;
    let cluster = Cluster::of(&server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;
    cluster.warn_of_each(numbered(0..5000)).await;
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
async fn while_the_bus_is_down_nothing_is_lost() {
    let cluster = Cluster::of(KubeApiServer::shared().await).await;
    let mut rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let mut ingest = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ingest).await;
    cluster.warn_of_each(numbered(0..10)).await;
    are_stored_once(&rig, numbered(0..10)).await;
    rig.nats().kill().await;
    cluster.warn_of_each(numbered(10..400)).await;
    // More than are in flight at a time, and their holder dies.
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
    begins(&ingest).await;
    cluster
        .happen("Back-off", json!({"metadata": {"name": "api.1"}}))
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
    cluster.warn("the end").await;
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
    assert_eq!(ingest.metric(METRIC, "repeated").await, 3.0);
}

#[tokio::test]
async fn events_about_objects_of_flux_are_ignored_by_default() {
    let server = KubeApiServer::shared().await;
    let cluster = Cluster::of(server).await;
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let about = json!({
        "involvedObject": {"kind": "Alert", "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "name": "x", "namespace": cluster.namespace},
        "reportingComponent": "some-controller", "source": {}, "reportingInstance": "a",
        "metadata": {"generateName": "x.", "annotations": {"notification.toolkit.fluxcd.io/revision": "main@sha1:abc"}},
    });
    let object = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": "Alert",
        "metadata": {"name": "x", "annotations": {"event.toolkit.fluxcd.io/team": "a"}},
        "spec": {"providerRef": {"name": "p"}, "eventSources": [{"kind": "Kustomization", "name": "*"}]},
    });
    server.apply(&cluster.namespace, &object.to_string()).await;
    let mut ignoring = rig.run(cluster.watcher(Role::ingest())).await;
    begins(&ignoring).await;
    cluster.happen("ignored", about.clone()).await;
    cluster.warn("stored").await;
    are_stored_once(&rig, ["stored".to_owned()]).await;
    // It saves its cursor at the end, so the ignored Event stays ignored.
    assert!(ignoring.terminate().await.success());

    let watching = cluster.watcher(Role::ingest()).args([
        "--watch-flux-objects",
        "--label-kinds",
        "Alert.notification.toolkit.fluxcd.io",
    ]);
    let watching = rig.run(watching).await;
    begins(&watching).await;
    cluster.happen("from the watch", about).await;
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
        "involvedObject": {"kind": "Alert", "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "name": "x", "namespace": cluster.namespace},
        "severity": "error", "reason": "BackOff", "message": "from the watch",
        "metadata": {"notification.toolkit.fluxcd.io/revision": "main@sha1:abc"},
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
async fn these_rights_are_enough_and_a_missing_one_is_logged() {
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
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]},
    ]);
    let role = |rules: &Value| {
        let metadata = json!({"name": format!("ingest-{}", cluster.namespace)});
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules})
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
        .logs_with("lease-unavailable", [("trouble", "forbidden")])
        .await;
    server
        .apply(&cluster.namespace, &role(&json!([rules[0]])).to_string())
        .await;
    ingest
        .logs_with("event-watch-failed", [("trouble", "forbidden")])
        .await;
    assert_eq!(ingest.readiness().await.status, 503);
    server
        .apply(&cluster.namespace, &role(&rules).to_string())
        .await;
    begins(&ingest).await;
    ingest.ready().await;
    let about = json!({"kind": "ConfigMap", "apiVersion": "v1", "namespace": cluster.namespace, "name": "none"});
    cluster
        .happen(
            "permitted",
            json!({"reason": cluster.namespace, "involvedObject": about}),
        )
        .await;
    are_stored_once(&rig, ["permitted".to_owned()]).await;
    assert_eq!(
        ingest
            .metric("tidings_ingest_label_lookups_total", "not-found")
            .await,
        1.0
    );
}
