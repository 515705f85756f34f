//! A test bed with rules in a cluster, and the objects that tests create there.

use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Receiver, Rig, Role, event, eventually};

use crate::TIDINGS;

/// The version of the rules.
const API_VERSION: &str = "notification.toolkit.fluxcd.io/v1beta3";

/// The finalizer of notification-controller.
pub const FLUX_FINALIZER: &str = "finalizers.fluxcd.io";

/// A namespace of an API server, and a rig whose roles read their rules there.
pub struct Bed<'a> {
    pub rig: Rig,
    pub server: &'a KubeApiServer,
    pub namespace: String,
}

impl<'a> Bed<'a> {
    /// Creates a namespace.
    pub async fn on(server: &'a KubeApiServer) -> Self {
        Self {
            rig: Rig::start(TIDINGS).await,
            server,
            namespace: server.namespace().await,
        }
    }

    /// Runs `tidings up` with the rules of this namespace.
    pub async fn up(&self) -> Process {
        self.rig.run(self.role(Role::up())).await
    }

    /// A role with the rules of this namespace.
    pub fn role(&self, role: Role) -> Role {
        role.in_cluster(&self.server.kubeconfig())
            .args(["--watch-namespace", &self.namespace])
    }

    /// `kubectl apply` in this namespace.
    pub async fn apply<const N: usize>(&self, objects: [Value; N]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.as_slice()});
        self.server.apply(&self.namespace, &list.to_string()).await;
    }

    /// Runs kubectl in this namespace, and returns its output.
    pub async fn kubectl(&self, arguments: &str) -> String {
        let arguments: Vec<_> = ["--namespace", &self.namespace]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        self.server.kubectl(&arguments).await.expect_success()
    }
}

/// An Alert for all Kustomizations in the namespace of [`event`].
pub fn alert(name: &str, provider: &str) -> Value {
    let sources =
        json!([{"kind": "Kustomization", "name": "*", "namespace": tidings_rig::NAMESPACE}]);
    object(
        "Alert",
        name,
        json!({"providerRef": {"name": provider}, "eventSeverity": "info", "eventSources": sources}),
    )
}

/// A Provider with a short backoff, and these fields.
pub fn provider(name: &str, spec: Value) -> Value {
    let mut whole = json!({"type": "generic", "retry": {"min": "100ms", "max": "1s"}});
    whole
        .as_object_mut()
        .expect("the spec is an object")
        .extend(spec.as_object().expect("the fields are an object").clone());
    object("Provider", name, whole)
}

/// Sets the finalizers of an object.
pub fn with_finalizers(mut object: Value, finalizers: &[&str]) -> Value {
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

/// Posts events until one of them reaches the receiver.
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
