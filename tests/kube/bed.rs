//! A Tidings whose rules are in a cluster, and the objects that tests put there.

use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Receiver, Rig, Role, event, eventually};

use crate::TIDINGS;

/// The group and version of the rules here.
const API_VERSION: &str = "notification.toolkit.fluxcd.io/v1beta3";

/// What notification-controller puts on objects.
pub const FLUXS_FINALIZER: &str = "finalizers.fluxcd.io";

/// A namespace of an API server, and a nats-server for the roles that read their rules there.
pub struct Bed<'a> {
    pub rig: Rig,
    pub server: &'a KubeApiServer,
    pub namespace: String,
}

impl<'a> Bed<'a> {
    /// A fresh namespace.
    pub async fn on(server: &'a KubeApiServer) -> Self {
        Self {
            rig: Rig::start(TIDINGS).await,
            server,
            namespace: server.namespace().await,
        }
    }

    /// Runs all roles with the rules of this namespace.
    pub async fn up(&self) -> Process {
        self.rig.run(self.role(Role::up())).await
    }

    /// A role with the rules of this namespace.
    pub fn role(&self, role: Role) -> Role {
        role.in_cluster(&self.server.kubeconfig())
            .args(["--watch-namespace", &self.namespace])
    }

    /// `kubectl apply`.
    pub async fn apply<const N: usize>(&self, objects: [Value; N]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.as_slice()});
        self.server.apply(&self.namespace, &list.to_string()).await;
    }

    /// kubectl with these arguments, in this namespace.
    pub async fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<_> = ["--namespace", &self.namespace]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        self.server.kubectl(&arguments).await.expect_success()
    }
}

/// An Alert that sends everything about the Kustomizations that [`event`] is about to one Provider.
pub fn alert(name: &str, provider: &str) -> Value {
    let sources =
        json!([{"kind": "Kustomization", "name": "*", "namespace": tidings_rig::NAMESPACE}]);
    object(
        "Alert",
        name,
        json!({"providerRef": {"name": provider}, "eventSeverity": "info", "eventSources": sources}),
    )
}

/// A Provider that tries again soon.
pub fn provider(name: &str, spec: Value) -> Value {
    let mut whole = json!({"type": "generic", "retry": {"min": "100ms", "max": "1s"}});
    whole
        .as_object_mut()
        .expect("it is a map")
        .extend(spec.as_object().expect("a spec is a map").clone());
    object("Provider", name, whole)
}

/// An object with these finalizers.
pub fn held_by(mut object: Value, finalizers: &[&str]) -> Value {
    object["metadata"]["finalizers"] = json!(finalizers);
    object
}

/// A Secret.
pub fn secret(name: &str, keys: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Posts events until one of them has reached the receiver.
pub async fn reaches(up: &Process, receiver: &Receiver) {
    let (mut number, before) = (0, receiver.accepted().len());
    eventually("events reach the receiver", async || {
        number += 1;
        up.post(&event(&format!(
            "try {number} after {before} for {}",
            receiver.url()
        )))
        .await
        .expect("ingest responds");
        (receiver.accepted().len() > before).then_some(())
    })
    .await;
}

/// Waits until a metric has a value.
pub async fn counts(process: &Process, metric: &str, value: f64) {
    let what = format!("{metric} is {value}");
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    eventually(&what, async || {
        (process.metric(metric, "").await == value).then_some(())
    })
    .await;
}
