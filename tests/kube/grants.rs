//! Providers that a grant shares with other namespaces of a cluster.

use serde_json::json;
use tidings_rig::{KubeApiServer, ONE_FOR_EACH_POST, Receiver, Reply, event, grant};

use crate::bed::{Bed, alert, provider, reaches, secret, without_namespace};

#[tokio::test]
async fn a_grant_shares_a_provider_until_it_is_deleted() {
    let server = KubeApiServer::shared().await;
    let bed = Bed::on(server).await;
    let tenant = server.namespace().await;
    let receiver = Receiver::start().await;
    let fields = json!({"address": receiver.url(), "secretRef": {"name": "token"}});
    bed.apply([
        provider("shared", fields),
        secret("token", json!({"headers": "x-key: k3y"})),
    ])
    .await;
    let mut borrowing = alert("borrowing", "shared");
    let annotations = json!({"tidings.dev/provider-namespace": bed.namespace});
    borrowing["metadata"]["annotations"] = annotations;
    server.apply(&tenant, &borrowing.to_string()).await;
    let watch = ["--watch-namespace", &tenant];
    let up = bed
        .rig
        .run(bed.role(tidings_rig::Role::up()).args(watch))
        .await;
    let missing = up
        .logs_with("rule-problem", [("problem", "ProviderGrant")])
        .await;
    assert!(missing.field("problem").contains(&tenant));
    up.post(&event("refused")).await.expect("ingest responds");
    bed.rig.routed().await;
    assert!(receiver.received().is_empty());

    let from = json!([{"namespace": tenant}]);
    let share = without_namespace(grant("share", "").with("from", from));
    bed.apply([share]).await;
    reaches(&up, &receiver).await;
    let received = receiver.received();
    assert!(
        received
            .iter()
            .all(|request| request.headers["x-key"] == "k3y")
    );

    receiver.answer_with(Reply::Status(503));
    up.post(&event("parked")).await.expect("ingest responds");
    up.logs_with("delivery-parked", [("reason", "server-error")])
        .await;
    bed.kubectl("delete providergrant share").await;
    up.logs_with("delivery-parked", [("reason", "missing")])
        .await;
    bed.rig.leaves_deliveries(
        ONE_FOR_EACH_POST,
        "the grant is gone, and posts continue until one arrives",
    );
}

#[tokio::test]
async fn rules_work_without_the_crd_of_grants() {
    let server = KubeApiServer::start().await;
    server.install_crds().await;
    let crd = "providergrants.tidings.dev";
    let deleted = server.kubectl(&["delete", "crd", crd]).await;
    deleted.expect_success();
    let bed = Bed::on(&server).await;
    let receiver = Receiver::start().await;
    bed.apply([
        provider("hook", json!({"address": receiver.url()})),
        alert("all", "hook"),
    ])
    .await;
    let up = bed.up().await;
    reaches(&up, &receiver).await;
}
