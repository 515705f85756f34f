//! Alerts and Providers in the API server.

use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use serde_json::{Value, json};
pub use tidings_rules::object::GROUP;
use tidings_rules::testing::{self, Manifest};

/// The versions that are served, oldest first.
pub const VERSIONS: [&str; 3] = ["v1beta1", "v1beta2", "v1beta3"];

/// The objects of a kind in a namespace, through one version of the API.
pub fn objects(client: &Client, namespace: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Creates an object, and returns it as it is stored, or the API server's error.
pub async fn create(
    client: &Client,
    namespace: &str,
    name: &str,
    manifest: &Value,
) -> Result<Value, String> {
    let api_version = manifest["apiVersion"]
        .as_str()
        .expect("a manifest has a version");
    let (_, version) = api_version
        .split_once('/')
        .expect("the apiVersion has a group");
    let kind = manifest["kind"].as_str().expect("a manifest has a kind");
    let mut manifest = manifest.clone();
    manifest["metadata"]["name"] = name.into();
    let object: DynamicObject = serde_json::from_value(manifest).expect("a manifest is an object");
    match objects(client, namespace, version, kind)
        .create(&PostParams::default(), &object)
        .await
    {
        Ok(stored) => Ok(json!(stored)),
        Err(Error::Api(status)) => Err(status.message.clone()),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// The condition Ready of an object, if it is about the current generation.
pub fn current_condition(object: &Value) -> Option<&Value> {
    let (status, generation) = (&object["status"], &object["metadata"]["generation"]);
    let condition = &status["conditions"][0];
    let is_current = [
        &condition["observedGeneration"],
        &status["observedGeneration"],
    ] == [generation; 2];
    (is_current && condition["type"] == "Ready").then_some(condition)
}

/// An Alert or a Provider of this version.
pub fn manifest(version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/{version}"), "kind": kind, "spec": spec})
}

/// The spec of an Alert: the required fields and these.
pub fn alert(fields: Value) -> Value {
    spec(testing::alert("a", "p").with_fields(fields))
}

/// The spec of a Provider: type slack and these fields.
pub fn provider(fields: Value) -> Value {
    spec(testing::provider("p", "slack").with_fields(fields))
}

fn spec(manifest: Manifest) -> Value {
    manifest.value()["spec"].take()
}
