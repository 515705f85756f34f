//! Of the Secrets of a namespace only those that rules name are read, and with no more than a Role
//! allows.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Receiver, Role};

use crate::bed::{Bed, alert, provider, reaches, secret};

/// What nobody may read.
const PRIVATE: &str = "a-value-that-no-rule-names";
const ACCOUNT: &str = "tidings";

/// An API server that writes down what it answers about Secrets.
async fn server(folder: &Path) -> KubeApiServer {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [
            {"level": "RequestResponse", "resources": [{"group": "", "resources": ["secrets", "configmaps"]}]},
            {"level": "None"},
        ],
    });
    fs::write(folder.join("policy.json"), policy.to_string()).expect("the folder is writable");
    let policy = format!(
        "--audit-policy-file={}",
        folder.join("policy.json").display()
    );
    let log = format!("--audit-log-path={}", folder.join("audit.log").display());
    let server = KubeApiServer::start_with(&[&policy, &log, "--audit-log-mode=blocking"]).await;
    server.install_crds().await;
    server
}

/// What rules need in one namespace; `get` for one Secret only.
async fn allow(bed: &Bed<'_>) {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let mut read_one = rule("", &["secrets"], &["get"]);
    read_one["resourceNames"] = json!(["named"]);
    let rules = [
        rule(
            "notification.toolkit.fluxcd.io",
            &["alerts", "providers"],
            &["list", "watch", "patch"],
        ),
        rule("", &["secrets"], &["list", "watch"]),
        read_one,
    ];
    let metadata = json!({"name": ACCOUNT});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules});
    let reference =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT});
    let subjects = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": bed.namespace}]);
    let api_version = "rbac.authorization.k8s.io/v1";
    let binding = json!({"apiVersion": api_version, "kind": "RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": subjects});
    bed.apply([role, binding]).await;
}

/// The lines about requests of the account.
fn answers(folder: &Path) -> Vec<Value> {
    let log = fs::read_to_string(folder.join("audit.log")).expect("the API server writes it");
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| {
        line["stage"] == "ResponseComplete" && line["responseStatus"]["code"] == 200
    });
    lines
        .filter(|line| {
            line["user"]["username"]
                .as_str()
                .is_some_and(|user| user.ends_with(&format!(":{ACCOUNT}")))
        })
        .collect()
}

#[tokio::test]
async fn no_secret_is_read_that_no_rule_names() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let bed = Bed::on(&server).await;
    let receiver = Receiver::start().await;
    let kubeconfig = server.kubeconfig_for(&bed.namespace, ACCOUNT).await;
    allow(&bed).await;
    let reference = json!({"secretRef": {"name": "named"}});
    bed.apply([
        secret("named", json!({"address": receiver.url()})),
        secret("private", json!({"token": PRIVATE})),
    ])
    .await;
    bed.apply([provider("hook", reference), alert("all", "hook")])
        .await;

    let role = Role::up()
        .in_cluster(&kubeconfig)
        .args(["--watch-namespace", &bed.namespace]);
    let up = bed.rig.run(role).await;
    reaches(&up, &receiver).await;
    bed.apply([secret(
        "private",
        json!({"token": format!("{PRIVATE} that was rotated")}),
    )])
    .await;
    let second = Receiver::start().await;
    bed.apply([secret("named", json!({"address": second.url()}))])
        .await;
    reaches(&up, &second).await;

    let answers = answers(folder.path());
    let read: Vec<_> = answers
        .iter()
        .filter(|line| line["verb"] == "get")
        .map(|line| &line["objectRef"]["name"])
        .collect();
    assert!(
        read.len() >= 2 && read.iter().all(|name| *name == "named"),
        "{read:?}"
    );
    let listed: Vec<_> = answers
        .iter()
        .filter(|line| line["verb"] == "list")
        .map(|line| &line["responseObject"]["kind"])
        .collect();
    assert!(
        !listed.is_empty()
            && listed
                .iter()
                .all(|kind| *kind == "PartialObjectMetadataList"),
        "{listed:?}"
    );
    let encoded = STANDARD.encode(PRIVATE);
    assert!(answers.iter().all(|line| {
        !line["responseObject"]["items"]
            .to_string()
            .contains(&format!("\"{encoded}"))
    }));

    bed.apply([provider("other", json!({"secretRef": {"name": "private"}}))])
        .await;
    let fields = [
        ("problem", "/other: spec.secretRef"),
        ("problem", "forbidden"),
    ];
    up.logs_with("rule-problem", fields).await;
    assert!(up.log().iter().all(|line| !line.contains(PRIVATE)));
    reaches(&up, &second).await;
}
