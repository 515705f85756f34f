//! `tidings test --rules cluster`: rules and labels are read from the cluster, nothing is written.

use std::fs;

use serde_json::{Value, json};
use tidings_rig::KubeApiServer;
use tokio::process::Command;

use crate::TIDINGS;
use crate::bed::{Bed, FLUX_FINALIZER, alert, provider, with_finalizers, without_namespace};

/// Runs `tidings test` on an event about the ConfigMap `web`. Returns its exit status and report.
async fn test(bed: &Bed<'_>, arguments: &[&str]) -> (Option<i32>, Value) {
    let event = bed.rig.folder().join("event.json");
    let text = json!({
        "involvedObject": {
            "apiVersion": "v1", "kind": "ConfigMap", "name": "web", "namespace": bed.namespace,
        },
        "severity": "info", "reason": "Tested", "message": "a test",
        "timestamp": "2026-01-02T03:04:05Z", "reportingController": "a-controller",
    });
    fs::write(&event, text.to_string()).expect("the rig's folder is writable");
    let ended = Command::new(TIDINGS)
        .args(["test", "--rules", "cluster", "--output", "json"])
        .args(["--label-kinds", "ConfigMap"])
        .args(["--watch-namespace", &bed.namespace])
        .arg("--kubeconfig")
        .arg(bed.server.kubeconfig())
        .arg("--event")
        .arg(event)
        .args(arguments)
        .output()
        .await
        .expect("the tool can be started");
    let report = serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&ended.stderr);
        panic!("{error}: {errors}")
    });
    (ended.status.code(), report)
}

fn verdict(report: &Value) -> &Value {
    &report["alerts"][0]["verdict"]
}

#[tokio::test]
async fn rules_and_labels_of_the_cluster_are_tested() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let labels = json!({"tier": "front"});
    let web = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "labels": labels},
    });
    let source = json!([{
        "kind": "ConfigMap", "name": "*", "namespace": bed.namespace, "matchLabels": labels,
    }]);
    let by_label = tidings_rules::testing::alert("by-label", "hook").with("eventSources", source);
    bed.apply([
        web,
        provider("hook", json!({"address": "http://127.0.0.1:1/"})),
        without_namespace(by_label),
    ])
    .await;

    let (status, report) = test(&bed, &[]).await;
    assert_eq!((status, verdict(&report)), (Some(0), &json!("matched")));
    assert_eq!(report["deliveries"][0]["outcome"], "planned", "{report}");
    let (_, report) = test(&bed, &["--labels", "none"]).await;
    assert_ne!(verdict(&report), "matched", "given labels take precedence");
}

#[tokio::test]
async fn a_test_changes_nothing_in_the_cluster() {
    let bed = Bed::on(KubeApiServer::shared().await).await;
    let hook = provider("hook", json!({"address": "http://127.0.0.1:1/"}));
    bed.apply([
        with_finalizers(hook, &[FLUX_FINALIZER]),
        alert("all", "hook"),
    ])
    .await;
    bed.kubectl("delete provider hook --wait=false").await;
    let version = "-o=jsonpath={.metadata.resourceVersion}";
    let before = bed.kubectl(&format!("get provider hook {version}")).await;

    test(&bed, &[]).await;

    let after = bed.kubectl(&format!("get provider hook {version}")).await;
    assert_eq!(before, after);
    let remove = r#"patch provider hook --type=merge --patch {"metadata":{"finalizers":null}}"#;
    bed.kubectl(remove).await;
}
