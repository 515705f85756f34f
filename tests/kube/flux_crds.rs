//! Tidings with the CRDs of Flux, which have one version, no status and no extensions.

use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, ONE_FOR_EACH_POST, Process, Receiver, Role, event, eventually};
use tidings_rules::testing;
use tokio::process::Command;

use crate::TIDINGS;
use crate::bed::{Bed, alert, reaches, without_namespace};
use crate::object::GROUP;

/// A CRD like that of Flux 2.8. It has only v1beta3, and unknown fields are pruned.
fn definition(kind: &str, plural: &str, spec: &Value) -> Value {
    let properties = json!({"spec": spec});
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

/// The specs of Alert and Provider in the CRDs of Flux 2.8.
const FLUX: &str = include_str!("data/flux-crds.json");

async fn server() -> KubeApiServer {
    let server = KubeApiServer::start().await;
    install_flux(&server).await;
    server
}

/// Installs the CRDs of Flux, as a Flux upgrade does.
pub async fn install_flux(server: &KubeApiServer) {
    let specs: Value = serde_json::from_str(FLUX).expect("the file is JSON");
    for (kind, plural) in [("Alert", "alerts"), ("Provider", "providers")] {
        let as_flux_does = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=kustomize-controller",
            "-f",
            "-",
        ];
        let definition = definition(kind, plural, &specs[kind]);
        server
            .kubectl_with(&as_flux_does, &definition.to_string())
            .await
            .expect_success();
    }
    is_served(server, &["alerts", "providers"]).await;
}

/// Installs the CRDs of Tidings.
async fn install_ours(server: &KubeApiServer) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/crds");
    server
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-k", folder])
        .await
        .expect_success();
    let old = ["alerts", "providers"].map(|plural| format!("{plural}.v1beta1.{GROUP}"));
    is_served(server, &[&old[0], &old[1]]).await;
}

async fn is_served(server: &KubeApiServer, names: &[&str]) {
    eventually("the CRDs are served", async || {
        for name in names {
            if !server.kubectl(&["get", name]).await.success {
                return None;
            }
        }
        Some(())
    })
    .await;
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
        ONE_FOR_EACH_POST,
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
        .kubectl(&["apply", "--server-side", "-k", folder])
        .await;
    assert!(
        !rejected.success && rejected.errors.contains("--force-conflicts"),
        "{rejected:?}"
    );
    server
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-k", folder])
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

/// An Alert and its Provider of the same name.
fn rule(name: &str, receiver: &Receiver, clusters: Option<&str>) -> [Value; 2] {
    let mut alert = alert(name, name);
    if let Some(clusters) = clusters {
        alert["spec"]["clusters"] = json!([clusters]);
    }
    [provider(name, "generic", receiver.url()), alert]
}

/// Posts an event and waits until it is routed and its delivery without a restriction is made.
async fn deliver(up: &Process, all: &Receiver, message: &str) {
    up.post(&event(message)).await.expect("ingest answers");
    all.accepts(message).await;
}

#[tokio::test]
async fn a_restriction_survives_the_crds_of_flux_until_a_user_ends_it() {
    let server = KubeApiServer::start().await;
    install_ours(&server).await;
    let bed = Bed::on(&server).await;
    let [all, edited, annotated, forgotten] = [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ];
    for rule in [
        rule("all", &all, None),
        rule("edited", &edited, Some("stage-*")),
        rule("annotated", &annotated, Some("stage-*")),
        rule("forgotten", &forgotten, Some("stage-*")),
    ] {
        bed.apply(rule).await;
    }
    let role = || bed.role(Role::up()).args(["--cluster", "prod-1"]);
    let mut up = bed.rig.run(role()).await;
    deliver(&up, &all, "with the CRDs of Tidings").await;
    up.counts("tidings_rules_extensions_lost", "", 0.0).await;

    install_flux(&server).await;
    up.counts("tidings_rules_extensions_lost", "", 3.0).await;
    up.counts("tidings_rules_restrictions_kept", "", 3.0).await;
    let readiness = up.readiness().await;
    assert_eq!(readiness.status, 200);
    assert!(readiness.problem("extensions").is_some(), "{readiness:?}");
    for name in ["edited", "annotated", "forgotten"] {
        eventually("each Alert has an Event", async || {
            let selector = format!("reason=ExtensionsLost,regarding.name={name}");
            let arguments = format!("get events.events.k8s.io -o name --field-selector {selector}");
            (!bed.kubectl(&arguments).await.is_empty()).then_some(())
        })
        .await;
    }
    // A write stores the objects without the field.
    bed.kubectl("annotate alert edited annotated forgotten example.org/note=x")
        .await;
    bed.kubectl(r#"patch alert edited --type=merge -p {"spec":{"summary":"x"}}"#)
        .await;
    deliver(&up, &all, "with the CRDs of Flux").await;
    up.restart().await;
    up.counts("tidings_rules_restrictions_kept", "", 3.0).await;
    deliver(&up, &all, "after a restart").await;

    install_ours(&server).await;
    up.restart().await;
    deliver(&up, &all, "with the CRDs of Tidings again").await;
    up.counts("tidings_rules_restrictions_kept", "", 3.0).await;
    let restricted = [&edited, &annotated, &forgotten];
    assert_eq!(restricted.map(Receiver::count), [0, 0, 0]);

    bed.kubectl(r#"patch alert edited --type=merge -p {"spec":{"summary":"y"}}"#)
        .await;
    reaches(&up, &edited).await;
    bed.kubectl("annotate alert annotated tidings.dev/clusters=prod-*")
        .await;
    reaches(&up, &annotated).await;
    assert_eq!(forgotten.count(), 0);
    let name = format!("{}/forgotten", bed.namespace);
    let forget = async |flag: &str| {
        let arguments = [
            "rules",
            "forget",
            "alert",
            &name,
            "--nats",
            bed.rig.url(),
            flag,
        ];
        Command::new(TIDINGS)
            .args(arguments)
            .output()
            .await
            .unwrap()
    };
    assert!(forget("--dry-run").await.status.success());
    up.counts("tidings_rules_restrictions_kept", "", 1.0).await;
    let output = forget("--yes").await;
    assert!(output.status.success(), "{output:?}");
    reaches(&up, &forgotten).await;
    up.counts("tidings_rules_extensions_lost", "", 0.0).await;
    assert_eq!(up.readiness().await.problem("extensions"), None);
}

#[tokio::test]
async fn annotations_work_with_the_crds_of_flux() {
    let server = server().await;
    let bed = Bed::on(&server).await;
    let [all, restricted] = [Receiver::start().await, Receiver::start().await];
    bed.apply(rule("all", &all, None)).await;
    let [provider, mut alert] = rule("restricted", &restricted, None);
    alert["metadata"]["annotations"] = json!({"tidings.dev/clusters": "stage-*"});
    bed.apply([provider, alert]).await;
    let up = bed
        .rig
        .run(bed.role(Role::up()).args(["--cluster", "prod-1"]))
        .await;
    deliver(&up, &all, "for all").await;
    assert_eq!(restricted.count(), 0);
    bed.kubectl("annotate --overwrite alert restricted tidings.dev/clusters=prod-*")
        .await;
    reaches(&up, &restricted).await;
}
