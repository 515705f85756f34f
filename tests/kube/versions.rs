//! Every API version has all fields. A write through an old version, or by another writer, loses
//! nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidings_rig::KubeApiServer;

use crate::object::{GROUP, VERSIONS, alert, create, manifest, objects, provider};

/// An Alert with every field.
fn full_alert() -> Value {
    let source = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "*",
        "namespace": "apps",
        "matchLabels": {"app.kubernetes.io/name": "web"},
    });
    alert(json!({
        "providerRef": {"name": "p", "namespace": "platform"},
        "eventSeverity": ["warn", "error"],
        "eventSources": [source],
        "inclusionList": [".*"],
        "exclusionList": ["^waiting"],
        "eventMetadata": {"cluster": "eu-1"},
        "summary": "the web",
        "suspend": false,
        "channel": "web",
        "clusters": ["eu-*"],
        "clusterSelector": {
            "matchLabels": {"env": "prod"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}],
        },
        "template": {"inline": "{{ event.message }}"},
    }))
}

/// A Provider with every field.
fn full_provider() -> Value {
    let reference = json!({"name": "other"});
    provider(json!({
        "type": "github",
        "interval": "1m",
        "channel": "general",
        "username": "flux",
        "address": "https://github.com/org/repo",
        "apiAddress": "https://github.example.com/api/v3",
        "acceptRedirects": true,
        "clusterField": false,
        "reasonStates": {"Deployed": "success"},
        "timeout": "10s",
        "proxy": "http://proxy:3128",
        "proxySecretRef": reference,
        "secretRef": reference,
        "certSecretRef": reference,
        "serviceAccountName": "sender",
        "suspend": false,
        "commitStatusExpr": "event.reason",
        "rateLimit": "10/1s",
        "maxInFlight": 5,
        "retry": {"maxAge": "24h", "min": "2s", "max": "10m"},
        "pool": "eu-1",
        "template": {"configMapKeyRef": {"name": "texts", "key": "web"}},
        "links": true,
        "commitStatus": {
            "id": "default",
            "pending": true,
            "targetURL": "https://grafana.example.com/d/{{ name }}",
        },
    }))
}

/// A status with every field that both kinds share.
fn full_status() -> Value {
    let time = "2026-11-21T12:00:00Z";
    let condition = json!({
        "type": "Ready",
        "status": "True",
        "reason": "Initialized",
        "message": "Initialized",
        "lastTransitionTime": time,
        "observedGeneration": 1,
    });
    json!({
        "conditions": [condition],
        "observedGeneration": 1,
        "lastHandledReconcileAt": time,
        "lastDeliveryTime": time,
        "lastError": {
            "time": time, "message": "the service answered 500", "reason": "server-error",
        },
    })
}

fn full_status_of(kind: &str) -> Value {
    let mut status = full_status();
    let time = status["lastDeliveryTime"].clone();
    match kind {
        "Alert" => status["lastMatchTime"] = time,
        _ => {
            status["circuit"] =
                json!({"state": "half-open", "until": time, "reason": "timeout", "since": time})
        }
    }
    status
}

/// Collects the paths of all values in a schema.
fn collect_paths(schema: &Value, path: &str, paths: &mut BTreeSet<String>) {
    let properties = schema["properties"].as_object();
    if let Some(items) = schema.get("items") {
        collect_paths(items, path, paths);
    } else if let Some(properties) = properties {
        properties
            .iter()
            .for_each(|(name, schema)| collect_paths(schema, &format!("{path}.{name}"), paths));
    } else {
        paths.insert(path.to_owned());
    }
}

/// Whether a value has a field at a path.
fn has(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Array(items), [_, ..]) => items.iter().all(|item| has(item, path)),
        (_, [name, rest @ ..]) => has(&value[*name], rest),
        (value, []) => !value.is_null(),
    }
}

#[test]
fn the_objects_of_these_tests_have_every_field() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds");
    for (file, kind, spec) in [
        ("alerts.yaml", "Alert", full_alert()),
        ("providers.yaml", "Provider", full_provider()),
    ] {
        let definition: Value =
            serde_saphyr::from_str(&fs::read_to_string(folder.join(file)).unwrap()).unwrap();
        let versions = definition["spec"]["versions"].as_array().unwrap();
        let schema_paths = versions.iter().map(|version| {
            let mut paths = BTreeSet::new();
            let properties = &version["schema"]["openAPIV3Schema"]["properties"];
            ["spec", "status"]
                .iter()
                .for_each(|part| collect_paths(&properties[part], part, &mut paths));
            paths
        });
        let schema_paths: Vec<_> = schema_paths.collect();
        assert!(
            schema_paths.iter().all(|paths| *paths == schema_paths[0]),
            "{kind}: the versions have different properties"
        );
        let object = json!({"spec": spec, "status": full_status_of(kind)});
        // A template has one of two forms.
        let wanted = schema_paths[0]
            .iter()
            .filter(|path| !path.starts_with("spec.template"));
        for path in wanted {
            assert!(
                has(&object, &path.split('.').collect::<Vec<_>>()),
                "{kind}: {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_patch_through_any_version_loses_nothing() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    let params = PatchParams::default();
    for (kind, spec) in [("Alert", full_alert()), ("Provider", full_provider())] {
        let status = full_status_of(kind);
        let stored = create(
            &client,
            &namespace,
            "full",
            &manifest("v1beta3", kind, spec.clone()),
        )
        .await
        .unwrap();
        assert_eq!(stored["spec"], spec);
        objects(&client, &namespace, "v1beta3", kind)
            .patch_status("full", &params, &Patch::Merge(json!({"status": status})))
            .await
            .unwrap();
        let newest: Api<DynamicObject> = objects(&client, &namespace, "v1beta3", kind);
        let stored = async || newest.get("full").await.unwrap().data;
        for version in VERSIONS {
            let through = objects(&client, &namespace, version, kind);
            let mut expected = json!({"spec": spec, "status": status});
            assert_eq!(stored().await, expected, "before {version}");

            through
                .patch(
                    "full",
                    &params,
                    &Patch::Merge(json!({"spec": {"suspend": true}})),
                )
                .await
                .unwrap();
            expected["spec"]["suspend"] = true.into();
            assert_eq!(stored().await, expected, "a patch through {version}");

            let mut read = through.get("full").await.unwrap();
            read.data["spec"]["suspend"] = false.into();
            through
                .replace("full", &PostParams::default(), &read)
                .await
                .unwrap();
            expected["spec"]["suspend"] = false.into();
            assert_eq!(stored().await, expected, "a replacement through {version}");

            let handled = json!({"status": {"lastHandledReconcileAt": version}});
            through
                .patch_status("full", &params, &Patch::Merge(handled))
                .await
                .unwrap();
            expected["status"]["lastHandledReconcileAt"] = version.into();
            assert_eq!(stored().await, expected, "a status through {version}");
            through
                .patch_status("full", &params, &Patch::Merge(json!({"status": status})))
                .await
                .unwrap();
        }
    }
}

/// Applies fields of an Alert as one of several field managers.
async fn apply(
    alerts: &Api<DynamicObject>,
    version: &str,
    writer: &str,
    spec: &Value,
) -> Result<DynamicObject, kube::Error> {
    let mut object = manifest(version, "Alert", spec.clone());
    object["metadata"]["name"] = "shared".into();
    alerts
        .patch("shared", &PatchParams::apply(writer), &Patch::Apply(object))
        .await
}

#[tokio::test]
async fn two_writers_apply_their_own_fields_without_conflict() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    let [old, new] =
        ["v1beta1", "v1beta3"].map(|version| objects(&client, &namespace, version, "Alert"));
    let from_git =
        alert(json!({"eventSeverity": ["warn", "error"], "eventMetadata": {"cluster": "eu-1"}}));
    let on_call = json!({"suspend": true, "channel": "night", "eventMetadata": {"shift": "night"}});

    apply(&old, "v1beta1", "git", &from_git).await.unwrap();
    let both = apply(&new, "v1beta3", "on-call", &on_call).await.unwrap();
    for round in 0..3 {
        let after_git = apply(&old, "v1beta1", "git", &from_git).await.unwrap();
        let after_both = apply(&new, "v1beta3", "on-call", &on_call).await.unwrap();
        for after in [&after_git, &after_both] {
            assert_eq!(
                after.metadata.resource_version, both.metadata.resource_version,
                "round {round}: the object was written"
            );
        }
    }
    assert_eq!(both.data["spec"]["eventSeverity"], json!(["warn", "error"]));
    assert_eq!(
        both.data["spec"]["eventMetadata"],
        json!({"cluster": "eu-1", "shift": "night"})
    );

    let conflicting = json!({"suspend": true, "eventSeverity": ["error"]});
    let rejected = apply(&new, "v1beta3", "on-call", &conflicting).await;
    let Err(kube::Error::Api(status)) = rejected else {
        panic!("{rejected:?}")
    };
    assert!(
        status.code == 409 && status.message.contains("spec.eventSeverity"),
        "{status:?}"
    );
}

#[tokio::test]
async fn conditions_of_another_writer_stay() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    create(
        &client,
        &namespace,
        "shared",
        &manifest("v1beta3", "Alert", alert(json!({}))),
    )
    .await
    .unwrap();
    let alerts = objects(&client, &namespace, "v1beta3", "Alert");
    let write = async |writer: &str, status: Value| {
        let object = json!({
            "apiVersion": format!("{GROUP}/v1beta3"),
            "kind": "Alert",
            "metadata": {"name": "shared"},
            "status": status,
        });
        alerts
            .patch_status("shared", &PatchParams::apply(writer), &Patch::Apply(object))
            .await
            .unwrap()
    };
    let mut other = full_status()["conditions"][0].clone();
    other["type"] = "Audited".into();
    write("tidings", full_status_of("Alert")).await;
    let both = write("auditor", json!({"conditions": [other]})).await;
    let again = write("tidings", full_status_of("Alert")).await;
    assert_eq!(
        both.metadata.resource_version,
        again.metadata.resource_version
    );
    assert_eq!(
        again.data["status"]["conditions"].as_array().unwrap().len(),
        2
    );
}
