//! A test bed with rules in a cluster, and the objects that tests create there.

use serde_json::{Value, json};
use tidings_rig::{
    KubeApiServer, Manifest, NAMESPACE, Process, Receiver, Rig, Role, event, eventually,
};
use tidings_rules::testing;

use crate::TIDINGS;

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
    let sources = json!([{"kind": "Kustomization", "name": "*", "namespace": NAMESPACE}]);
    without_namespace(testing::alert(name, provider).with("eventSources", sources))
}

/// A Provider with a short backoff, and these fields.
pub fn provider(name: &str, fields: Value) -> Value {
    let provider = testing::provider(name, "generic").that_retries_soon();
    without_namespace(provider.with_fields(fields))
}

/// Sets the finalizers of an object.
pub fn with_finalizers(mut object: Value, finalizers: &[&str]) -> Value {
    object["metadata"]["finalizers"] = json!(finalizers);
    object
}

/// A Secret.
pub fn secret(name: &str, keys: Value) -> Value {
    without_namespace(testing::secret(name, keys))
}

/// A manifest for the namespace that it is applied to.
pub fn without_namespace(manifest: Manifest) -> Value {
    let mut object = manifest.value();
    let metadata = object["metadata"].as_object_mut();
    metadata
        .expect("a manifest has metadata")
        .remove("namespace");
    object
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
