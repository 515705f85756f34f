//! Splits an Alert or a Provider into the fields that users wrote and those of the API server.

use kube::core::DynamicObject;
use serde_json::{Value, json};
use tidings_core::model::id;

use super::catalog::ObservedObject;
use crate::cluster::discovery::ServedKind;
use crate::object::{Identity, Object};

/// `kubectl apply` stores a copy of the manifest in this annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of a watch event.
pub(super) struct ReceivedObject {
    /// The fields that users wrote, with name, uid and generation.
    pub object: Object,
    /// A digest of `object`. Status writes and other fields of the server do not change it.
    pub digest: String,
    /// The fields that the API server set.
    pub observed: ObservedObject,
    /// The finalizers, if the object is being deleted.
    pub pending_finalizers: Option<Vec<String>>,
}

impl ReceivedObject {
    /// Splits an object.
    pub(super) fn new(mut object: DynamicObject, served: &ServedKind) -> Self {
        let metadata = &mut object.metadata;
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
        metadata.annotations = metadata
            .annotations
            .take()
            .filter(|annotations| !annotations.is_empty());
        let finalizers = metadata.finalizers.take().unwrap_or_default();
        let pending_finalizers = metadata.deletion_timestamp.take().map(|_| finalizers);
        let observed = ObservedObject {
            api_version: served.resource.api_version.clone(),
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation,
            resource_version: metadata.resource_version.take().unwrap_or_default(),
            status: object
                .data
                .get_mut("status")
                .map(Value::take)
                .unwrap_or_default(),
        };
        let value = json!({
            "apiVersion": observed.api_version,
            "kind": served.resource.kind,
            "metadata": object.metadata,
            "spec": object.data.get_mut("spec").map(Value::take),
        });
        let digest = id::digest(&[&value.to_string()]);
        Self {
            object: Object::new(value),
            digest,
            observed,
            pending_finalizers,
        }
    }
}

/// Converts a Secret or a ConfigMap to a manifest.
pub(super) fn core_object(identity: &Identity, mut object: DynamicObject) -> Object {
    let metadata =
        json!({"name": identity.name, "namespace": identity.namespace, "uid": object.metadata.uid});
    let data = object.data.get_mut("data").map(Value::take);
    Object::new(
        json!({"apiVersion": "v1", "kind": identity.kind, "metadata": metadata, "data": data}),
    )
}

#[cfg(test)]
mod tests {
    use kube::core::{ApiResource, GroupVersionKind};

    use super::*;
    use crate::object::GROUP;

    /// A received Provider with these fields.
    fn provider(name: &str, address: &str, metadata: Value, status: Value) -> ReceivedObject {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "apps", "uid": name, "generation": 1},
            "spec": {"type": "slack", "address": address, "secretRef": {"name": "token"}},
            "status": status,
        });
        value["metadata"]
            .as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", "Provider"));
        ReceivedObject::new(
            serde_json::from_value(value).unwrap(),
            &ServedKind {
                resource,
                has_status: true,
                lacks: None,
            },
        )
    }

    #[test]
    fn only_changes_by_users_change_the_digest() {
        let base = provider("p", "a", json!({"resourceVersion": "1"}), Value::Null);
        let managed = json!([{"manager": "kubectl", "operation": "Update"}]);
        for (metadata, status) in [
            (
                json!({"resourceVersion": "2"}),
                json!({"observedGeneration": 1}),
            ),
            (
                json!({"annotations": {LAST_APPLIED: "{}"}, "managedFields": managed}),
                Value::Null,
            ),
            (json!({"finalizers": ["finalizers.fluxcd.io"]}), Value::Null),
        ] {
            let next = provider("p", "a", metadata.clone(), status.clone());
            assert_eq!(
                (&next.digest, next.observed.status),
                (&base.digest, status),
                "{metadata}"
            );
        }
        for metadata in [
            json!({"labels": {"a": "b"}}),
            json!({"generation": 2}),
            json!({"uid": "other"}),
        ] {
            assert_ne!(
                provider("p", "a", metadata.clone(), Value::Null).digest,
                base.digest,
                "{metadata}"
            );
        }
        assert_ne!(
            provider("p", "b", json!({}), Value::Null).digest,
            base.digest
        );
        assert_eq!(base.object.identity().to_string(), "Provider apps/p");
    }

    #[test]
    fn a_deleted_object_has_its_pending_finalizers() {
        let metadata =
            json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a", "b"]});
        assert_eq!(
            provider("p", "a", metadata, Value::Null).pending_finalizers,
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(
            provider("p", "a", json!({"finalizers": ["a"]}), Value::Null).pending_finalizers,
            None
        );
    }
}
