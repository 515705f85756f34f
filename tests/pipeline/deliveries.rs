//! From a post to a provider.

use serde_json::json;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, provider, secret};

use crate::TIDINGS;

#[tokio::test]
async fn an_event_is_delivered() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;

    assert_eq!(up.post(&event("it works")).await.unwrap().status, 202);

    let received = receiver.accepts("it works").await;
    assert_eq!(received.json()["involvedObject"]["name"], "apps");
    assert!(
        received.header("idempotency-key").is_some(),
        "a generic provider receives the delivery's id"
    );
    rig.drained().await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn up_with_its_own_nats_server_delivers_an_event() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut up = rig.run(Role::up_with_own_server()).await;

    assert_eq!(up.post(&event("it works")).await.unwrap().status, 202);

    receiver.accepts("it works").await;
    assert!(up.terminate().await.success(), "it ends cleanly on SIGTERM");
}

#[tokio::test]
async fn each_matching_alert_causes_a_delivery() {
    let rig = Rig::start(TIDINGS).await;
    let [chat, audit, errors] = [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ];
    rig.rules().put([
        provider("chat", chat.url()),
        provider("audit", audit.url()),
        provider("errors", errors.url()),
    ]);
    rig.rules()
        .put([alert("to-chat", "chat"), alert("to-audit", "audit")]);
    rig.rules()
        .put([alert("to-errors", "errors").with("eventSeverity", "error")]);
    let up = rig.run(Role::up()).await;

    up.post(&event("for two of three")).await.unwrap();

    let [first, second] = [
        chat.accepts("for two of three").await,
        audit.accepts("for two of three").await,
    ];
    assert_ne!(
        first.header("idempotency-key"),
        second.header("idempotency-key")
    );
    rig.drained().await;
    assert!(
        errors.received().is_empty(),
        "an info event is below the severity error"
    );
}

#[tokio::test]
async fn a_delivery_waits_until_its_provider_exists() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(TIDINGS, [alert("all", "hook")]).await;
    up.post(&event("too early")).await.unwrap();

    rig.rules().put([provider("hook", receiver.url())]);

    receiver.accepts("too early").await;
}

#[tokio::test]
async fn a_parked_delivery_follows_its_provider_to_another_type() {
    let receiver = Receiver::script([Reply::RetryAfter(503, 2)]).await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url()).that_retries_soon(),
            alert("all", "hook"),
        ],
    )
    .await;
    up.post(&event("waiting")).await.unwrap();
    receiver.receives(1).await;

    rig.rules()
        .put([secret("key", json!({"token": "signing-key"}))]);
    rig.rules().put([provider("hook", receiver.url())
        .with("type", "generic-hmac")
        .with("secretRef", json!({"name": "key"}))]);

    let accepted = receiver.accepts("waiting").await;
    assert!(
        accepted.header("x-signature").is_some(),
        "the new type signs its requests"
    );
    rig.drained().await;
}
