//! Tidings with the CRDs of Flux, which have one version, no status and no extensions.

use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Receiver, event, eventually};
use tidings_rules::testing;

use crate::bed::{Bed, alert, reaches, without_namespace};
use crate::object::GROUP;

/// A CRD like that of Flux 2.8. It has only v1beta3, and unknown fields are pruned.
fn definition(kind: &str, plural: &str, spec: &Value) -> Value {
    let properties = json!({"spec": {"type": "object", "properties": spec}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": properties}});
    let version = json!({
        "name": "v1beta3", "served": true, "storage": true, "schema": schema, "subresources": {},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
            },
            "versions": [version],
        },
    })
}

async fn server() -> KubeApiServer {
    let server = KubeApiServer::start().await;
    let text = json!({"type": "string"});
    let map = json!({"type": "object", "additionalProperties": text});
    let named = json!({"type": "object", "properties": {"name": text}});
    let source = json!({"kind": text, "name": text, "namespace": text, "matchLabels": map});
    let source = json!({"type": "object", "properties": source});
    // The enum of types depends on the release, so it is omitted.
    let provider = json!({
        "type": text,
        "address": text,
        "channel": text,
        "secretRef": named,
        "suspend": {"type": "boolean"},
    });
    let severity = json!({"type": "string", "enum": ["info", "error"], "default": "info"});
    let sources = json!({"type": "array", "items": source});
    let alert = json!({
        "providerRef": named,
        "eventSeverity": severity,
        "eventSources": sources,
        "summary": text,
    });
    for (kind, plural, spec) in [
        ("Alert", "alerts", &alert),
        ("Provider", "providers", &provider),
    ] {
        let as_flux_does = [
            "apply",
            "--server-side",
            "--field-manager=kustomize-controller",
            "-f",
            "-",
        ];
        server
            .kubectl_with(&as_flux_does, &definition(kind, plural, spec).to_string())
            .await
            .expect_success();
    }
    eventually("the CRDs are served", async || {
        let [alerts, providers] = [
            server.kubectl(&["get", "alerts"]).await,
            server.kubectl(&["get", "providers"]).await,
        ];
        (alerts.success && providers.success).then_some(())
    })
    .await;
    server
}

/// A Provider without extensions.
fn provider(name: &str, kind: &str, address: &str) -> Value {
    without_namespace(testing::provider(name, kind).with("address", address))
}

#[tokio::test]
async fn an_invalid_provider_is_rejected_and_its_last_valid_state_stays_in_use() {
    let server = server().await;
    let bed = Bed::on(&server).await;
    bed.rig.leaves_deliveries(
        1,
        "deliveries to the unused address wait for the default backoff",
    );
    let [first, second] = [Receiver::start().await, Receiver::start().await];
    bed.apply([
        provider("first", "generic", first.url()),
        provider("second", "generic", "http://unused.invalid"),
        alert("to-first", "first"),
        alert("to-second", "second"),
    ])
    .await;
    let up = bed.up().await;
    reaches(&up, &first).await;
    assert_eq!(up.log_events("flux-crds").len(), 1);

    bed.apply([
        provider("first", "pigeon", "http://unused.invalid"),
        provider("second", "generic", second.url()),
    ])
    .await;

    up.logs_with("rule-problem", [("problem", "first: spec.type")])
        .await;
    reaches(&up, &second).await;
    reaches(&up, &first).await;

    bed.kubectl("delete provider first").await;
    bed.apply([provider("first", "pigeon", "http://unused.invalid")])
        .await;
    eventually("the deleted Provider is no longer used", async || {
        up.post(&event("after the deletion")).await.ok()?;
        let dead = bed.rig.dead_letters().await;
        let providers = dead.into_iter().filter_map(|dead| dead.delivery?.provider);
        let mut names = providers.map(|provider| provider.name);
        names.any(|name| name == "first").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_crds_of_tidings_replace_those_of_flux_and_keep_all_objects() {
    let server = server().await;
    let bed = Bed::on(&server).await;
    bed.apply([
        provider("p", "generic", "http://unused.invalid"),
        alert("a", "p"),
    ])
    .await;
    let specs = async |version: &str| {
        let names = ["alert", "provider"]
            .map(|kind| format!("{kind}s.{version}.{GROUP}"))
            .join(",");
        bed.kubectl(&format!(
            "get {names} --output jsonpath={{.items[*].spec}}{{.items[*].metadata.uid}}"
        ))
        .await
    };
    let before = specs("v1beta3").await;
    let up = bed.up().await;
    up.logs("flux-crds").await;

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
    let rejected = server
        .kubectl(&["apply", "--server-side", "-f", folder])
        .await;
    assert!(
        !rejected.success && rejected.errors.contains("--force-conflicts"),
        "{rejected:?}"
    );
    server
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", folder])
        .await
        .expect_success();

    eventually("the old versions are served", async || {
        server
            .kubectl(&["get", &format!("alerts.v1beta1.{GROUP}")])
            .await
            .success
            .then_some(())
    })
    .await;
    assert!(before.contains("unused.invalid"), "{before}");
    assert_eq!(specs("v1beta3").await, before);
    assert_eq!(specs("v1beta1").await, before);
    for object in ["alert a", "provider p"] {
        eventually("the running router writes the status", async || {
            let reason = bed
                .kubectl(&format!(
                    "get {object} --output jsonpath={{.status.conditions[*].reason}}"
                ))
                .await;
            (reason == "Initialized").then_some(())
        })
        .await;
    }
}
