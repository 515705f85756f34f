//! Only Secrets that rules reference are read, with the rights of a Role.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Receiver, Role};

use crate::bed::{Bed, alert, provider, reaches, secret};

/// The value of a Secret that no rule references.
const PRIVATE: &str = "a-value-that-no-rule-references";
const ACCOUNT: &str = "tidings";

/// An API server that logs its responses about Secrets.
async fn server(folder: &Path) -> KubeApiServer {
    let resources = json!([{"group": "", "resources": ["secrets", "configmaps"]}]);
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [{"level": "RequestResponse", "resources": resources}, {"level": "None"}],
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

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// Grants the rights that rules need in one namespace, with `get` for one Secret only.
async fn allow(bed: &Bed<'_>) {
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
    let api_version = "rbac.authorization.k8s.io/v1";
    let role = json!({
        "apiVersion": api_version, "kind": "Role", "metadata": metadata, "rules": rules,
    });
    let binding = json!({
        "apiVersion": api_version,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": bed.namespace}],
    });
    bed.apply([role, binding]).await;
}

/// The audit entries of the account's requests.
fn responses(folder: &Path) -> Vec<Value> {
    let log =
        fs::read_to_string(folder.join("audit.log")).expect("the API server writes its audit log");
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
async fn only_secrets_that_rules_reference_are_read() {
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

    let responses = responses(folder.path());
    let read: Vec<_> = responses
        .iter()
        .filter(|line| line["verb"] == "get")
        .map(|line| &line["objectRef"]["name"])
        .collect();
    assert!(
        read.len() >= 2 && read.iter().all(|name| *name == "named"),
        "{read:?}"
    );
    let listed: Vec<_> = responses
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
    assert!(responses.iter().all(|line| {
        !line["responseObject"]["items"]
            .to_string()
            .contains(&format!("\"{encoded}"))
    }));

    bed.apply([provider("other", json!({"secretRef": {"name": "private"}}))])
        .await;
    let fields = [("problem", "/private "), ("problem", "forbidden")];
    up.logs_with("rule-problem", fields).await;
    assert!(up.log().iter().all(|line| !line.contains(PRIVATE)));
    reaches(&up, &second).await;
}
