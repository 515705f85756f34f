//! The CRDs in a real API server.

use std::fs;
use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, eventually};
use tokio::process::Command;

use crate::TIDINGS;
use crate::object::{VERSIONS, alert, create, manifest, objects, provider};

#[tokio::test]
async fn the_files_are_the_output_of_tidings_crds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds");
    let files = ["alerts.yaml", "providers.yaml", "providergrants.yaml"]
        .map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let printed = Command::new(TIDINGS).arg("crds").output().await.unwrap();
    assert!(printed.status.success());
    assert_eq!(
        String::from_utf8(printed.stdout).unwrap(),
        files.concat(),
        "run `make crds` to write the files"
    );
}

#[tokio::test]
async fn the_api_server_accepts_the_crds() {
    let server = KubeApiServer::shared().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client().await);
    for name in ["alerts", "providers"] {
        let definition = definitions
            .get(&format!("{name}.notification.toolkit.fluxcd.io"))
            .await
            .unwrap();
        let conditions = definition.status.unwrap().conditions.unwrap();
        let states: Vec<_> = conditions
            .iter()
            .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
            .collect();
        assert_eq!(
            states,
            [("NamesAccepted", "True"), ("Established", "True")],
            "{name}"
        );
        assert_eq!(definition.spec.names.short_names, None);
        assert_eq!(
            definition.spec.names.categories.unwrap(),
            ["all", "fluxcd", "fluxcd-notifications"]
        );
    }
}

#[tokio::test]
async fn objects_are_defaulted_pruned_and_rejected_as_recorded() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/admission.json")).unwrap();
    let mut compared = 0;
    let mut different = Vec::new();
    for (number, case) in cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case["skip"].is_null())
    {
        compared += 1;
        let answer = create(
            &client,
            &namespace,
            &format!("case-{number}"),
            &case["object"],
        )
        .await;
        let as_recorded = match (&answer, case["errors"].as_array()) {
            (Ok(stored), None) => {
                ["spec", "status"]
                    .iter()
                    .all(|field| stored[field] == case["stored"][field])
                    && stored["kind"] == case["stored"]["kind"]
            }
            (Err(message), Some(errors)) => errors
                .iter()
                .all(|error| message.contains(error.as_str().unwrap())),
            _ => false,
        };
        if !as_recorded {
            different.push(format!("{}: {answer:?}", case["name"]));
        }
    }
    assert!(
        compared > 90 && different.is_empty(),
        "of {compared}:\n{}",
        different.join("\n")
    );
}

#[tokio::test]
async fn each_version_has_its_own_default_severity_and_v1beta1_is_deprecated() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    for (version, severity) in [
        ("v1beta1", "error"),
        ("v1beta2", "info"),
        ("v1beta3", "info"),
    ] {
        let stored = create(
            &client,
            &namespace,
            version,
            &manifest(version, "Alert", alert(json!({}))),
        )
        .await
        .unwrap();
        assert_eq!(stored["spec"]["eventSeverity"], severity, "{version}");
        for other in VERSIONS {
            let read = objects(&client, &namespace, other, "Alert")
                .get(version)
                .await
                .unwrap();
            assert_eq!(
                read.data["spec"], stored["spec"],
                "{version} read as {other}"
            );
        }
    }
    let output = server
        .kubectl(&[
            "get",
            "alerts.v1beta1.notification.toolkit.fluxcd.io",
            "--namespace",
            &namespace,
        ])
        .await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let definition = definitions
        .get("alerts.notification.toolkit.fluxcd.io")
        .await
        .unwrap();
    let v1beta1 = definition
        .spec
        .versions
        .iter()
        .find(|version| version.name == "v1beta1");
    let warning = v1beta1.unwrap().deprecation_warning.as_ref().unwrap();
    assert!(output.errors.contains(warning), "{output:?}");
}

#[tokio::test]
async fn a_severity_is_a_string_or_a_list_in_any_order() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    let accepted = [
        json!("info"),
        json!("warn"),
        json!("error"),
        json!(["error"]),
        json!(["error", "info"]),
        json!(["info", "warn", "error"]),
    ];
    for (number, severity) in accepted.iter().enumerate() {
        for version in VERSIONS {
            let manifest = manifest(version, "Alert", alert(json!({"eventSeverity": severity})));
            let stored = create(
                &client,
                &namespace,
                &format!("{version}-{number}"),
                &manifest,
            )
            .await
            .unwrap();
            assert_eq!(&stored["spec"]["eventSeverity"], severity, "{version}");
        }
    }
    for severity in [
        json!("trace"),
        json!(["trace"]),
        json!([]),
        json!(["info", "info"]),
        json!(7),
        json!({"info": true}),
        json!([["info"]]),
    ] {
        let manifest = manifest(
            "v1beta3",
            "Alert",
            alert(json!({"eventSeverity": severity})),
        );
        let rejected = create(&client, &namespace, "rejected", &manifest)
            .await
            .unwrap_err();
        assert!(
            rejected.contains("spec.eventSeverity: "),
            "{severity}: {rejected}"
        );
    }
}

#[tokio::test]
async fn the_api_server_rejects_invalid_extensions_as_the_rules_do() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    for (kind, fields, field) in [
        (
            "Alert",
            json!({"channel": "a".repeat(2049)}),
            "spec.channel",
        ),
        ("Alert", json!({"clusters": []}), "spec.clusters"),
        ("Alert", json!({"clusters": [""]}), "spec.clusters[0]"),
        ("Alert", json!({"template": {}}), "spec.template"),
        (
            "Alert",
            json!({"template": {"inline": "a", "configMapKeyRef": {"name": "a", "key": "b"}}}),
            "spec.template",
        ),
        (
            "Alert",
            json!({"template": {"configMapKeyRef": {"name": "a"}}}),
            "spec.template.configMapKeyRef.key",
        ),
        ("Provider", json!({"rateLimit": "10"}), "spec.rateLimit"),
        ("Provider", json!({"rateLimit": "0/1s"}), "spec.rateLimit"),
        ("Provider", json!({"rateLimit": "10/0s"}), "spec.rateLimit"),
        ("Provider", json!({"maxInFlight": 0}), "spec.maxInFlight"),
        ("Provider", json!({"maxInFlight": 1001}), "spec.maxInFlight"),
        (
            "Provider",
            json!({"retry": {"maxAge": "0s"}}),
            "spec.retry.maxAge",
        ),
        (
            "Provider",
            json!({"retry": {"min": "1d"}}),
            "spec.retry.min",
        ),
        (
            "Provider",
            json!({"retry": {"min": "2m", "max": "1m"}}),
            "spec.retry",
        ),
        (
            "Provider",
            json!({"commitStatus": {"pending": true}}),
            "spec",
        ),
        (
            "Provider",
            json!({"type": "github", "commitStatus": {"id": "mine"}}),
            "spec.commitStatus.id",
        ),
        (
            "Provider",
            json!({"type": "github", "apiAddress": "https://me:key@host"}),
            "spec.apiAddress",
        ),
        (
            "Provider",
            json!({"type": "github", "apiAddress": "host/gitlab"}),
            "spec.apiAddress",
        ),
        ("Provider", json!({"apiAddress": "https://host"}), "spec"),
        ("Provider", json!({"pool": "EU"}), "spec.pool"),
        ("Provider", json!({"pool": ""}), "spec.pool"),
    ] {
        let spec = if kind == "Alert" {
            alert(fields.clone())
        } else {
            provider(fields.clone())
        };
        for version in VERSIONS {
            let rejected = create(
                &client,
                &namespace,
                "rejected",
                &manifest(version, kind, spec.clone()),
            )
            .await;
            let message = rejected.expect_err(&format!("{version} {fields}"));
            assert!(
                message.contains(&format!("{field}: ")),
                "{version} {fields}: {message}"
            );
        }
    }
}

/// The description of a field in the CRD, such as `alert.spec.summary`.
fn description(field: &str) -> String {
    let mut names = field.split('.');
    let kind = names.next().expect("a field has a kind");
    let file = format!("{}/deploy/crds/{kind}s.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(file).expect("the kind has a CRD in deploy/crds");
    let definition: Value = serde_saphyr::from_str(&text).expect("the CRD is valid YAML");
    let versions = definition["spec"]["versions"].as_array();
    let newest = versions
        .expect("the CRD has versions")
        .iter()
        .find(|version| version["name"] == "v1beta3");
    let schema = &newest.expect("the CRD has v1beta3")["schema"]["openAPIV3Schema"];
    let schema = names.fold(schema, |schema, name| {
        let schema = schema.get("items").unwrap_or(schema);
        &schema["properties"][name]
    });
    let text = schema["description"]
        .as_str()
        .expect("a field has a description");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn kubectl_explain_prints_the_descriptions() {
    let server = KubeApiServer::shared().await;
    for field in [
        "alert",
        "alert.spec.eventSeverity",
        "alert.spec.eventSources.namespace",
        "alert.status.lastError",
        "provider.spec.rateLimit",
        "provider.spec.type",
        "provider.status.circuit",
    ] {
        let text = description(field);
        // The API server publishes descriptions a moment after it accepts objects.
        eventually(&format!("kubectl explains {field}"), async || {
            let output = server.kubectl(&["explain", field]).await;
            let words = output
                .output
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            words.contains(&text).then_some(())
        })
        .await;
    }
}
