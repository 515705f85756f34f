//! Providers that a grant shares with other namespaces.

use serde_json::json;
use tidings_rig::{
    Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually, grant, provider,
    secret,
};

use crate::TIDINGS;

/// The Provider `platform/shared` with a Secret beside it.
fn shared(receiver: &Receiver) -> [Manifest; 2] {
    let reference = json!({"name": "shared-token"});
    let provider = provider("shared", receiver.url()).that_retries_soon();
    [
        provider
            .with("secretRef", reference)
            .in_namespace("platform"),
        secret("shared-token", json!({"headers": "x-key: k3y"})).in_namespace("platform"),
    ]
}

/// An Alert of `apps` that sends to it.
fn borrowing() -> Manifest {
    let reference = json!({"name": "shared", "namespace": "platform"});
    alert("borrowing", "shared").with("providerRef", reference)
}

async fn verdicts(process: &Process, verdict: &str) -> f64 {
    let metric = process.metric("tidings_router_verdicts_total", verdict);
    metric.await
}

#[tokio::test]
async fn a_provider_of_another_namespace_needs_a_grant_and_keeps_its_secret() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put(shared(&receiver));
    rig.rules().put([borrowing()]);
    let up = rig.run(Role::up()).await;
    let problem = up.logs("rule-problem").await.field("problem");
    assert!(problem.contains("ProviderGrant"), "{problem}");
    up.post(&event("refused")).await.expect("ingest responds");
    rig.routed().await;
    assert_eq!(verdicts(&up, "provider-not-granted").await, 1.0);

    rig.rules().put([grant("share", "platform")]);
    up.logs("rule-problem-resolved").await;
    up.post(&event("granted")).await.expect("ingest responds");

    let request = receiver.receives(1).await.remove(0);
    assert_eq!(request.json()["message"], "granted");
    assert_eq!(request.headers["x-key"], "k3y");
    let outcomes = eventually("the outcome is published", async || {
        let outcomes = rig.outcomes().await;
        (!outcomes.is_empty()).then_some(outcomes)
    });
    let provider = outcomes.await[0].provider.clone().unwrap_or_default();
    assert_eq!(
        provider.namespace, "platform",
        "limits and circuits are those of the Provider"
    );
}

#[tokio::test]
async fn a_revoked_grant_stops_the_next_attempt() {
    let receiver = Receiver::script([Reply::Status(503), Reply::Status(503)]).await;
    let rig = Rig::start(TIDINGS).await;
    let share = grant("share", "platform");
    rig.rules().put(shared(&receiver));
    rig.rules().put([borrowing(), share.clone()]);
    let up = rig.run(Role::up()).await;
    up.post(&event("late")).await.expect("ingest responds");
    up.logs("delivery-parked").await;

    rig.rules().remove(&share);
    let refused = up
        .logs_with("delivery-parked", [("reason", "missing")])
        .await;
    let detail = refused.field("detail");
    assert!(detail.contains("create a ProviderGrant"), "{detail}");
    let calls = receiver.received().len();

    rig.rules().put([share]);
    receiver.accepts("late").await;
    rig.drained().await;
    assert!(calls <= 3, "{calls}");
}
