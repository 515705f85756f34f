//! An Alert or a Provider as the API server tells it, taken apart: what users wrote, and the
//! server's book-keeping.

use kube::core::DynamicObject;
use serde_json::{Value, json};
use tidings_core::model::id;

use super::catalog::Seen;
use crate::cluster::discovery::Served;
use crate::object::{Identity, Object};

/// `kubectl apply` keeps the whole manifest here once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One telling of an object.
pub(super) struct Reading {
    /// What users wrote, with the name, uid and generation that the API server gave it.
    pub object: Object,
    /// Changes when anything of that changes. A write to the status or to book-keeping leaves it
    /// as it is.
    pub digest: String,
    /// The book-keeping.
    pub seen: Seen,
    /// What its deletion waits for, once it is being deleted.
    pub leaving: Option<Vec<String>>,
}

impl Reading {
    /// Takes an object apart.
    pub(super) fn new(mut object: DynamicObject, served: &Served) -> Self {
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
        let leaving = metadata.deletion_timestamp.take().map(|_| finalizers);
        let seen = Seen {
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
            "apiVersion": seen.api_version,
            "kind": served.resource.kind,
            "metadata": object.metadata,
            "spec": object.data.get_mut("spec").map(Value::take),
        });
        let digest = id::digest(&[&value.to_string()]);
        Self {
            object: Object::new(value),
            digest,
            seen,
            leaving,
        }
    }
}

/// A Secret or a ConfigMap as manifests have it.
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

    /// A telling of a Provider with these fields besides a spec.
    fn provider(name: &str, address: &str, metadata: Value, status: Value) -> Reading {
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
        Reading::new(
            serde_json::from_value(value).unwrap(),
            &Served {
                resource,
                has_status: true,
            },
        )
    }

    #[test]
    fn only_what_users_wrote_makes_a_difference() {
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
                (&next.digest, next.seen.status),
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
    fn an_object_that_is_being_deleted_says_what_it_waits_for() {
        let metadata =
            json!({"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a", "b"]});
        assert_eq!(
            provider("p", "a", metadata, Value::Null).leaving,
            Some(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(
            provider("p", "a", json!({"finalizers": ["a"]}), Value::Null).leaving,
            None
        );
    }
}
