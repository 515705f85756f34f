//! Shadow mode in a cluster that notification-controller uses, too.

use serde_json::json;
use tidings_rig::{KubeApiServer, Receiver, Role, event, eventually};

use crate::bed::{Bed, FLUX_FINALIZER, alert, provider, with_finalizers};

/// The rights of the role: it can only read.
const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tidings}
rules:
- apiGroups: [notification.toolkit.fluxcd.io]
  resources: [alerts, providers]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
"#;

const BINDING: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tidings}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tidings}
subjects: [{kind: ServiceAccount, name: tidings, namespace: NAMESPACE}]
"#;

#[tokio::test]
async fn shadow_mode_changes_nothing_in_the_cluster() {
    let server = KubeApiServer::start_audited().await;
    server.install_crds().await;
    let bed = Bed::on(&server).await;
    let namespace = &bed.namespace;
    server.apply(namespace, ROLE).await;
    let binding = BINDING.replace("NAMESPACE", namespace);
    server.apply(namespace, &binding).await;
    let kubeconfig = server.kubeconfig_for(namespace, "tidings").await;
    let receiver = Receiver::start().await;
    let finalized = |name| {
        let provider = provider(name, json!({"address": receiver.url()}));
        with_finalizers(provider, &[FLUX_FINALIZER])
    };
    bed.apply([
        finalized("hook"),
        finalized("deleted"),
        alert("all", "hook"),
        alert("absent", "missing"),
    ])
    .await;
    bed.kubectl("delete provider deleted --wait=false").await;
    let role = Role::up().in_cluster(&kubeconfig);
    let role = role.args(["--shadow", "--watch-namespace", namespace]);
    let role = role.env("TIDINGS_KUBERNETES__NAMESPACE", namespace);
    let up = bed.rig.run(role).await;

    up.post(&event("in shadow mode")).await.unwrap();

    eventually("both deliveries are recorded", async || {
        let recorded = up.metric("tidings_router_shadow_records_total", "").await;
        (recorded >= 2.0).then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 0);
    let account = format!("{namespace}:tidings");
    let requests = server.audited_requests().into_iter();
    let requests: Vec<_> = requests.filter(|it| it.account == account).collect();
    assert!(requests.iter().any(|it| it.resource == "alerts"));
    let is_write = |verb: &str| !matches!(verb, "get" | "list" | "watch");
    let writes = requests.iter().find(|it| is_write(&it.verb));
    assert_eq!(writes, None);
}
