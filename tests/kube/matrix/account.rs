//! What happens in a cluster, beside what has become of it, id by id.

use std::collections::BTreeMap;
use std::ops::Range;

use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Receiver, Reply, Rig, Role, eventually};

use super::Death;
use crate::TIDINGS;
use crate::bed::{Bed, provider};
use crate::events::{Cluster, begins, stored};
use crate::object::objects;

/// The Events that happen while `up` runs, while somebody is armed, and while nobody leads.
const EARLY: Range<usize> = 0..2;
const LATE: Range<usize> = 2..5;
const ALONE: Range<usize> = 5..7;
const ALL: [usize; ALONE.end] = [0, 1, 2, 3, 4, 5, 6];
/// The Event that is followed by another one about the same Pod, where a count is to be written.
const AGAIN: usize = 2;

/// A namespace with all that happens in it. Each Event is about a Pod of its own. It is owed to the Provider `good`, and to `bad`, which
/// refuses it for good, because of an Alert of the Pod's name.
pub struct Account<'a> {
    bed: Bed<'a>,
    cluster: Cluster,
    client: Client,
    good: Receiver,
    _bad: Receiver,
    /// Every Event, with its Pod.
    happened: Vec<(String, String)>,
}

impl<'a> Account<'a> {
    /// A fresh namespace with its rules.
    pub async fn open(server: &'a KubeApiServer) -> Self {
        let cluster = Cluster::of(server).await;
        let bed = Bed { rig: Rig::start(TIDINGS).await, server, namespace: cluster.namespace.clone() };
        let [good, bad] = [Receiver::start().await, Receiver::start().await];
        bad.answer_with(Reply::Status(400));
        let nobody = json!({"address": "http://nobody.invalid"});
        bed.apply([
            provider("good", json!({"address": good.url()})),
            provider("bad", json!({"address": bad.url()})),
            alert("all", "good", "*"),
            held_back(provider("leaving", nobody)),
            held_back(alert("leaving", "good", "none")),
        ])
        .await;
        bed.apply(ALL.map(|number| alert(&pod(number), "bad", &pod(number)))).await;
        Self { client: server.client().await, bed, cluster, good, _bad: bad, happened: Vec::new() }
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
        let role = if watches { role.args(["--watch-events", "--event-namespaces", namespace]) } else { role };
        let role = role.env("TIDINGS_KUBERNETES__NAMESPACE", namespace);
        self.bed.rig.spawn(fail_point.into_iter().fold(role, |role, point| role.env("FAIL_POINT", &point)))
    }

    /// Waits until `up` takes Events and has written the first statuses; then the first Events happen, and are delivered.
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
        self.bed.apply([changed, alert("orphan", "nobody", "none")]).await;
        self.bed.kubectl("delete --wait=false provider/leaving alert/leaving").await;
    }

    /// Once a dead letter is told, the next one of its kind.
    pub async fn again(&mut self) {
        eventually("a dead letter is told", async || self.told().await.contains_key(&pod(AGAIN)).then_some(())).await;
        self.happen_to(AGAIN, "again").await;
    }

    /// What nobody takes at once.
    pub async fn while_nobody_leads(&mut self) {
        self.happen(ALONE).await;
    }

    /// Waits until all has come to its end, and compares: what happened with what is stored, delivered, dead and told, and what is
    /// wanted with what statuses say.
    pub async fn balances(&self, death: &Death) {
        let notes: Vec<&String> = self.happened.iter().map(|(note, _)| note).collect();
        let what = format!("{death:?}: everything that happened is delivered");
        let received = eventually(&what, async || {
            let received = self.good.tally();
            notes.iter().all(|note| received.contains_key(*note)).then_some(received)
        })
        .await;
        self.bed.rig.drained().await;
        let once: BTreeMap<&str, usize> = notes.iter().map(|note| (note.as_str(), 1)).collect();
        let received: BTreeMap<&str, usize> = received.iter().map(|(note, (times, _))| (note.as_str(), *times)).collect();
        assert_eq!(received, once, "{death:?}: it is delivered once, since no worker died");
        let mut happened = self.happened.clone();
        happened.sort();
        assert_eq!(self.dead().await, happened, "{death:?}: a dead letter of each is kept");
        let mut stored: Vec<String> = stored(&self.bed.rig).await.into_iter().map(|event| event.message).collect();
        stored.sort();
        assert!(stored.iter().eq(happened.iter().map(|(note, _)| note)), "{death:?}: each is stored once: {stored:?}");
        self.is_told(death).await;
        self.statuses_are_right().await;
        self.nothing_is_held_back(death).await;
    }

    /// Every dead letter is told by one Kubernetes Event on its Alert. A router that died between a count and the note of how far it had
    /// come tells the one that it counted once more.
    async fn is_told(&self, death: &Death) {
        let mut expected: BTreeMap<String, (usize, i32)> = BTreeMap::new();
        for (_, pod) in &self.happened {
            let (events, letters) = expected.entry(pod.clone()).or_default();
            (*events, *letters) = (*events + 1, *letters + 1);
        }
        if death.point == "router:counted"
            && let Some((_, letters)) = expected.get_mut(&pod(AGAIN))
        {
            *letters += 1;
        }
        let mut told = BTreeMap::new();
        let wait = eventually("every dead letter is told", async || {
            told = self.told().await;
            (told == expected).then_some(())
        });
        let in_time = tokio::time::timeout(tidings_rig::PATIENCE / 2, wait).await;
        assert!(in_time.is_ok(), "{death:?}: told {told:?}, expected {expected:?}");
    }

    async fn statuses_are_right(&self) {
        for name in ["good", "bad"] {
            self.is("Provider", name, "True", "Initialized").await;
        }
        self.is("Alert", "all", "True", "Initialized").await;
        self.is("Alert", "orphan", "False", "ProviderNotFound").await;
        let delivered = async || Some(self.object("Alert", "all").await?["status"]["lastDeliveryTime"].clone());
        eventually("the status says when it was delivered", async || delivered().await.filter(Value::is_string)).await;
        for number in ALL {
            let what = format!("the status of Alert {} says what went wrong", pod(number));
            self.is("Alert", &pod(number), "True", "Initialized").await;
            let error = async || Some(self.object("Alert", &pod(number)).await?["status"]["lastError"]["reason"].clone());
            eventually(&what, async || error().await.filter(|reason| reason == "rejected")).await;
        }
    }

    async fn nothing_is_held_back(&self, death: &Death) {
        for kind in ["Alert", "Provider"] {
            let what = format!("{death:?}: the {kind} that waits for its finalizer is gone");
            eventually(&what, async || self.object(kind, "leaving").await.is_none().then_some(())).await;
        }
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
        self.cluster.happen(&note, json!({"involvedObject": about})).await;
        self.happened.push((note, pod));
    }

    /// The dead letters: of which Event, because of which Alert.
    async fn dead(&self) -> Vec<(String, String)> {
        let letters = self.bed.rig.dead_letters().await.into_iter().filter_map(|letter| letter.delivery);
        let mut dead: Vec<_> = letters
            .map(|delivery| (delivery.event.unwrap_or_default().message, delivery.alert.unwrap_or_default().name))
            .collect();
        dead.sort();
        dead
    }

    /// By Alert: how many Kubernetes Events there are on it, and how many dead letters they count.
    async fn told(&self) -> BTreeMap<String, (usize, i32)> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.bed.namespace);
        let mut told: BTreeMap<String, (usize, i32)> = BTreeMap::new();
        for event in api.list(&ListParams::default()).await.expect("the API server answers").items {
            let object = event.regarding.unwrap_or_default();
            if object.kind.as_deref() == Some("Alert") {
                let (events, letters) = told.entry(object.name.unwrap_or_default()).or_default();
                (*events, *letters) = (*events + 1, *letters + event.series.map_or(1, |series| series.count));
            }
        }
        told
    }

    /// Waits for a reason of the condition Ready, of the present generation.
    async fn is(&self, kind: &str, name: &str, status: &str, reason: &str) {
        eventually(&format!("{kind} {name} is {status} ({reason})"), async || {
            let object = self.object(kind, name).await?;
            let condition = &object["status"]["conditions"][0];
            let seen = [&condition["observedGeneration"], &object["status"]["observedGeneration"]];
            let is_present = seen == [&object["metadata"]["generation"]; 2];
            (is_present && condition["status"] == status && condition["reason"] == reason).then_some(())
        })
        .await;
    }

    async fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let found = objects(&self.client, &self.bed.namespace, "v1beta3", kind).get_opt(name).await;
        found.expect("the API server answers").map(|object| json!(object))
    }
}

fn pod(number: usize) -> String {
    format!("api-{number}")
}

/// An Alert that sends what happens to a Pod.
fn alert(name: &str, provider: &str, pod: &str) -> Value {
    let sources = json!([{"kind": "Pod", "name": pod}]);
    let mut alert = crate::bed::alert(name, provider);
    alert["spec"]["eventSources"] = sources;
    alert
}

/// As notification-controller leaves it, which is gone.
fn held_back(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!(["finalizers.fluxcd.io"]);
    object
}
