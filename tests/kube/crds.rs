//! The CRDs, as a real API server takes them and as they treat objects.

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
async fn the_files_are_what_the_command_prints() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds");
    let files = ["alerts.yaml", "providers.yaml"]
        .map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let printed = Command::new(TIDINGS).arg("crds").output().await.unwrap();
    assert!(printed.status.success());
    assert_eq!(
        String::from_utf8(printed.stdout).unwrap(),
        files.concat(),
        "`make crds` makes the files anew"
    );
}

#[tokio::test]
async fn the_api_server_has_nothing_to_say_against_them() {
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
async fn objects_are_defaulted_pruned_and_refused_as_recorded() {
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
async fn each_version_has_the_severity_of_its_guides_and_says_so_to_later_ones() {
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
    let said = server
        .kubectl(&[
            "get",
            "alerts.v1beta1.notification.toolkit.fluxcd.io",
            "--namespace",
            &namespace,
        ])
        .await;
    assert!(
        said.errors
            .contains("v1beta1 Alert is deprecated, use v1beta3"),
        "{said:?}"
    );
}

#[tokio::test]
async fn severities_are_a_word_or_a_list_of_words_in_any_order() {
    let server = KubeApiServer::shared().await;
    let (client, namespace) = (server.client().await, server.namespace().await);
    let taken = [
        json!("info"),
        json!("warn"),
        json!("error"),
        json!(["error"]),
        json!(["error", "info"]),
        json!(["info", "warn", "error"]),
    ];
    for (number, severity) in taken.iter().enumerate() {
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
        let refused = create(&client, &namespace, "refused", &manifest)
            .await
            .unwrap_err();
        assert!(
            refused.contains("spec.eventSeverity: Unsupported value"),
            "{severity}: {refused}"
        );
    }
}

#[tokio::test]
async fn extensions_are_refused_where_the_rules_would_refuse_them() {
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
        ("Provider", json!({"pool": "EU"}), "spec.pool"),
        ("Provider", json!({"pool": ""}), "spec.pool"),
    ] {
        let spec = if kind == "Alert" {
            alert(fields.clone())
        } else {
            provider(fields.clone())
        };
        for version in VERSIONS {
            let refused = create(
                &client,
                &namespace,
                "refused",
                &manifest(version, kind, spec.clone()),
            )
            .await;
            let message = refused.expect_err(&format!("{version} {fields}"));
            assert!(
                message.contains(&format!("{field}: ")),
                "{version} {fields}: {message}"
            );
        }
    }
}

#[tokio::test]
async fn kubectl_explains_the_fields() {
    let server = KubeApiServer::shared().await;
    for (field, text) in [
        ("alert", "A rule: which events go to which Provider."),
        ("alert.spec.eventSeverity", "a list is an exact set"),
        (
            "alert.spec.eventSources.namespace",
            "that of the Alert where this is left out",
        ),
        ("alert.status.lastError", "The last attempt that failed"),
        ("provider.spec.rateLimit", "as in 10/1s"),
        ("provider.spec.type", "Which service this is."),
        ("provider.status.circuit", "held back"),
    ] {
        // The API server publishes its documentation a moment after it takes objects.
        eventually(&format!("kubectl explains {field}"), async || {
            let said = server.kubectl(&["explain", field]).await;
            let words = said.output.split_whitespace().collect::<Vec<_>>().join(" ");
            words.contains(text).then_some(())
        })
        .await;
    }
}
