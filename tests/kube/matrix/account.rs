//! What happens in a cluster, one by one.

use std::array::from_fn;
use std::ops::Range;

use kube::Client;
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Receiver, Reply, Rig, Role, eventually};

use crate::TIDINGS;
use crate::bed::{Bed, FLUXS_FINALIZER, held_by, provider};
use crate::events::{Cluster, begins};

/// The Events that happen while `up` runs, while somebody is armed, and while nobody leads.
const EARLY: Range<usize> = 0..2;
const LATE: Range<usize> = 2..5;
const ALONE: Range<usize> = 5..7;
/// All of them.
pub(super) const ALL: Range<usize> = EARLY.start..ALONE.end;
/// The Event that is followed by another one about the same Pod, where a count is to be written.
pub(super) const AGAIN: usize = 2;

/// A namespace with all that happens in it. Each Event is about a Pod of its own. It is owed to the
/// Provider `good`, and to `bad`, which refuses it for good, because of an Alert of the Pod's name.
pub struct Account<'a> {
    pub(super) bed: Bed<'a>,
    cluster: Cluster,
    pub(super) client: Client,
    pub(super) good: Receiver,
    _bad: Receiver,
    /// Every Event, with its Pod.
    pub(super) happened: Vec<(String, String)>,
}

impl<'a> Account<'a> {
    /// A fresh namespace with its rules.
    pub async fn open(server: &'a KubeApiServer) -> Self {
        let cluster = Cluster::of(server).await;
        let bed = Bed {
            rig: Rig::start(TIDINGS).await,
            server,
            namespace: cluster.namespace.clone(),
        };
        let [good, bad] = [Receiver::start().await, Receiver::start().await];
        bad.answer_with(Reply::Status(400));
        let nobody = json!({"address": "http://nobody.invalid"});
        bed.apply([
            provider("good", json!({"address": good.url()})),
            provider("bad", json!({"address": bad.url()})),
            alert("all", "good", "*"),
            held_by(provider("leaving", nobody), &[FLUXS_FINALIZER]),
            held_by(alert("leaving", "good", "none"), &[FLUXS_FINALIZER]),
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
            happened: Vec::new(),
        }
    }

    /// Starts a process of this namespace, armed or not.
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

    /// Waits until `up` takes Events and has written the first statuses; then the first Events
    /// happen, and are delivered.
    pub async fn early(&mut self, up: &Process) {
        up.ready().await;
        begins(up).await;
        self.is("Alert", "all", "True", "Initialized").await;
        self.happen(EARLY).await;
        self.good.receives(EARLY.len()).await;
    }

    /// Something of everything that a cluster can ask of Tidings.
    pub async fn late(&mut self) {
        self.happen(LATE).await;
        let mut changed = alert("all", "good", "*");
        changed["spec"]["summary"] = json!("changed");
        self.bed
            .apply([changed, alert("orphan", "nobody", "none")])
            .await;
        self.bed
            .kubectl("delete --wait=false provider/leaving alert/leaving")
            .await;
    }

    /// Once a dead letter is told, the next one of its kind.
    pub async fn again(&mut self) {
        eventually("a dead letter is told", async || {
            self.told().await.contains_key(&pod(AGAIN)).then_some(())
        })
        .await;
        self.happen_to(AGAIN, "again").await;
    }

    /// What nobody takes at once.
    pub async fn while_nobody_leads(&mut self) {
        self.happen(ALONE).await;
    }

    async fn happen(&mut self, numbers: Range<usize>) {
        for number in numbers {
            self.happen_to(number, "once").await;
        }
    }

    async fn happen_to(&mut self, number: usize, note: &str) {
        let (pod, namespace) = (pod(number), &self.bed.namespace);
        let note = format!("{pod} {note}");
        let about = json!({"kind": "Pod", "apiVersion": "v1", "namespace": namespace, "name": pod});
        self.cluster
            .happen(&note, json!({"involvedObject": about}))
            .await;
        self.happened.push((note, pod));
    }
}

/// The name of a Pod, and of the Alert that is about it alone.
pub(super) fn pod(number: usize) -> String {
    format!("api-{number}")
}

/// An Alert that sends what happens to a Pod.
fn alert(name: &str, provider: &str, pod: &str) -> Value {
    let sources = json!([{"kind": "Pod", "name": pod}]);
    let mut alert = crate::bed::alert(name, provider);
    alert["spec"]["eventSources"] = sources;
    alert
}
