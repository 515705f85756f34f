//! The rig's API server.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tidings_rig::{KubeApiServer, eventually};

fn config_maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

async fn create(server: &KubeApiServer, name: &str) {
    let object =
        serde_json::from_value(json!({"metadata": {"name": name}})).expect("the object is valid");
    config_maps(server.client().await)
        .create(&PostParams::default(), &object)
        .await
        .expect("the object is valid");
}

async fn names(server: &KubeApiServer) -> Vec<String> {
    let objects = config_maps(server.client().await)
        .list(&Default::default())
        .await
        .expect("the API server responds");
    let names = objects.items.iter().map(ResourceExt::name_any);
    names.filter(|name| !name.starts_with("kube-")).collect()
}

#[tokio::test]
async fn objects_survive_a_kill_and_a_restore_returns_to_the_snapshot() {
    let mut server = KubeApiServer::start().await;
    create(&server, "first").await;
    server.kill();
    assert!(
        config_maps(server.client().await)
            .list(&Default::default())
            .await
            .is_err()
    );
    server.restart().await;
    assert_eq!(names(&server).await, ["first"]);

    let snapshot = server.snapshot().await;
    create(&server, "second").await;
    assert_eq!(names(&server).await, ["first", "second"]);
    server.restore(&snapshot).await;
    assert_eq!(names(&server).await, ["first"]);
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_gets_410_after_a_restart() {
    let mut server = KubeApiServer::start().await;
    create(&server, "first").await;
    let before = config_maps(server.client().await)
        .list(&Default::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    create(&server, "second").await;
    server.compact().await;
    server.restart().await;
    let watched = config_maps(server.client().await)
        .watch(&Default::default(), &before)
        .await;
    let mut events = Box::pin(watched.unwrap());
    let first = futures::StreamExt::next(&mut events).await.unwrap();
    assert!(
        matches!(&first, Ok(kube::api::WatchEvent::Error(status)) if status.code == 410),
        "{first:?}"
    );
}

#[tokio::test]
async fn a_service_account_has_no_rights_before_a_role_is_bound() {
    let server = KubeApiServer::start().await;
    let namespace = server.namespace().await;
    let client = server
        .client_of(&server.kubeconfig_for(&namespace, "reader").await)
        .await;
    let list = async || {
        Api::<ConfigMap>::namespaced(client.clone(), &namespace)
            .list(&Default::default())
            .await
    };
    assert!(matches!(list().await, Err(kube::Error::Api(status)) if status.code == 403));

    let subject = format!("--serviceaccount={namespace}:reader");
    for arguments in [
        [
            "create",
            "role",
            "reader",
            "--verb=list",
            "--resource=configmaps",
            "--namespace",
            &namespace,
        ],
        [
            "create",
            "rolebinding",
            "reader",
            "--role=reader",
            &subject,
            "--namespace",
            &namespace,
        ],
    ] {
        server.kubectl(&arguments).await.expect_success();
    }
    eventually("the service account may list", async || list().await.ok()).await;
}
