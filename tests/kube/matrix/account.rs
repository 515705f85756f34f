//! The Kubernetes Events of a run, and the rules for them.

use std::array::from_fn;
use std::ops::Range;

use kube::Client;
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Receiver, Reply, Rig, Role, eventually};

use crate::TIDINGS;
use crate::bed::{Bed, FLUX_FINALIZER, provider, with_finalizers};
use crate::events::{Cluster, starts_watching};

/// Events while `up` runs, while a role has a fail point, and while there is no leader.
const EARLY: Range<usize> = 0..2;
const LATE: Range<usize> = 2..5;
const LEADERLESS: Range<usize> = 5..7;
/// All of them.
pub(super) const ALL: Range<usize> = EARLY.start..LEADERLESS.end;
/// At fail points of a count, a second Event about the Pod of this Event is created.
pub(super) const AGAIN: usize = 2;

/// A namespace with its Events. Each Event is about its own Pod. It goes to the Provider `good`,
/// and by an Alert with the Pod's name to `bad`, which rejects it.
pub struct Account<'a> {
    pub(super) bed: Bed<'a>,
    cluster: Cluster,
    pub(super) client: Client,
    pub(super) good: Receiver,
    _bad: Receiver,
    /// Every Event as (note, Pod).
    pub(super) created: Vec<(String, String)>,
}

impl<'a> Account<'a> {
    /// Creates a namespace with its rules.
    pub async fn open(server: &'a KubeApiServer) -> Self {
        let cluster = Cluster::of(server).await;
        let bed = Bed {
            rig: Rig::start(TIDINGS).await,
            server,
            namespace: cluster.namespace.clone(),
        };
        let [good, bad] = [Receiver::start().await, Receiver::start().await];
        bad.answer_with(Reply::Status(400));
        let unused = json!({"address": "http://unused.invalid"});
        bed.apply([
            provider("good", json!({"address": good.url()})),
            provider("bad", json!({"address": bad.url()})),
            alert("all", "good", "*"),
            with_finalizers(provider("leaving", unused), &[FLUX_FINALIZER]),
            with_finalizers(alert("leaving", "good", "none"), &[FLUX_FINALIZER]),
        ])
        .await;
        bed.apply(from_fn::<_, { ALL.end }, _>(|number| {
            alert(&pod(number), "bad", &pod(number))
        }))
        .await;
        Self {
            client: server.client().await,
            bed,
            cluster,
            good,
            _bad: bad,
            created: Vec::new(),
        }
    }

    /// Starts a process for this namespace.
    pub fn spawn(&self, name: &str, fail_point: Option<String>) -> Process {
        let namespace = &self.bed.namespace;
        let role = match name {
            "up" => self.bed.role(Role::up()),
            "router" => self.bed.role(Role::router()),
            "worker" => self.bed.role(Role::worker()),
            _ => Role::ingest().in_cluster(&self.bed.server.kubeconfig()),
        };
        let watches = matches!(name, "up" | "ingest");
        let role = if watches {
            role.args(["--watch-events", "--event-namespaces", namespace])
        } else {
            role
        };
        let role = role.env("TIDINGS_KUBERNETES__NAMESPACE", namespace);
        self.bed.rig.spawn(
            fail_point
                .into_iter()
                .fold(role, |role, point| role.env("FAIL_POINT", &point)),
        )
    }

    /// Waits until `up` watches Events and has written the first statuses. Then creates the first
    /// Events, and waits until they are delivered.
    pub async fn create_early(&mut self, up: &Process) {
        up.ready().await;
        starts_watching(up).await;
        self.is("Alert", "all", "True", "Initialized").await;
        self.create(EARLY).await;
        self.good.receives(EARLY.len()).await;
    }

    /// Causes every kind of side effect: Events, changed and new rules, deletions.
    pub async fn create_late(&mut self) {
        self.create(LATE).await;
        let mut changed = alert("all", "good", "*");
        changed["spec"]["summary"] = json!("changed");
        self.bed
            .apply([changed, alert("orphan", "absent", "none")])
            .await;
        self.bed
            .kubectl("delete --wait=false provider/leaving alert/leaving")
            .await;
    }

    /// Waits for the Event about a dead letter, and causes another dead letter of the same Alert.
    pub async fn create_again(&mut self) {
        eventually("a dead letter has an Event", async || {
            self.reported()
                .await
                .contains_key(&pod(AGAIN))
                .then_some(())
        })
        .await;
        self.create_about(AGAIN, "again").await;
    }

    /// Creates Events while there is no leader.
    pub async fn create_without_leader(&mut self) {
        self.create(LEADERLESS).await;
    }

    async fn create(&mut self, numbers: Range<usize>) {
        for number in numbers {
            self.create_about(number, "once").await;
        }
    }

    async fn create_about(&mut self, number: usize, note: &str) {
        let (pod, namespace) = (pod(number), &self.bed.namespace);
        let note = format!("{pod} {note}");
        let about = json!({"kind": "Pod", "apiVersion": "v1", "namespace": namespace, "name": pod});
        self.cluster
            .create_event(&note, json!({"involvedObject": about}))
            .await;
        self.created.push((note, pod));
    }
}

/// The name of a Pod and of its Alert.
pub(super) fn pod(number: usize) -> String {
    format!("api-{number}")
}

/// An Alert for Events about a Pod.
fn alert(name: &str, provider: &str, pod: &str) -> Value {
    let sources = json!([{"kind": "Pod", "name": pod}]);
    let mut alert = crate::bed::alert(name, provider);
    alert["spec"]["eventSources"] = sources;
    alert
}
