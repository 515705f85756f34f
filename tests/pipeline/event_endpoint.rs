//! Responses of the event endpoint.

use serde_json::json;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

#[tokio::test]
async fn a_body_that_is_not_an_event_is_rejected() {
    let rig = Rig::start(TIDINGS).await;
    // Creates the streams.
    drop(rig.run(Role::up()).await);
    let ingest = rig.run(Role::ingest()).await;

    for body in [
        "",
        "not json",
        "[]",
        "{}",
        "{\"involvedObject\":{\"kind\":\"Kustomization\"}}",
    ] {
        let answer = ingest.post_text(body.to_owned()).await.unwrap();
        assert_eq!(answer.status, 400, "for the body {body:?}");
        assert_eq!(answer.code(), "invalid-event", "for the body {body:?}");
    }
}

#[tokio::test]
async fn a_duplicate_event_is_delivered_once() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;

    assert_eq!(up.post(&event("once")).await.unwrap().status, 202);
    let second = up.post(&event("once")).await.unwrap();

    assert_eq!(
        (second.status, second.code().as_str()),
        (429, "duplicate-event")
    );
    assert!(second.headers.contains_key("retry-after"));
    receiver.accepts("once").await;
    rig.drained().await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn the_same_message_with_another_severity_is_another_event() {
    let receiver = Receiver::start().await;
    let (_rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
    let mut failed = event("same words");
    failed["severity"] = json!("error");

    assert_eq!(up.post(&event("same words")).await.unwrap().status, 202);
    assert_eq!(up.post(&failed).await.unwrap().status, 202);

    receiver.receives(2).await;
}

#[tokio::test]
async fn events_are_rejected_while_nats_server_is_down_and_accepted_when_it_is_back() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;

    rig.nats().kill().await;
    let rejected = up.post(&event("not stored")).await.unwrap();
    assert_eq!(
        (rejected.status, rejected.code().as_str()),
        (503, "bus-unavailable")
    );
    assert!(rejected.headers.contains_key("retry-after"));

    rig.nats().restart().await;
    eventually("an event is accepted again", async || {
        matches!(
            up.post(&event("stored again")).await.unwrap().status,
            202 | 429
        )
        .then_some(())
    })
    .await;
    receiver.accepts("stored again").await;
}

#[tokio::test]
async fn events_are_rejected_while_the_storage_is_nearly_full() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("TIDINGS_NATS__STORAGE_LIMIT", "1MiB"))
        .await;
    let mut number = 0;
    let mut post = async || {
        number += 1;
        up.post(&event(&format!("{number} {}", "x".repeat(20_000))))
            .await
            .expect("ingest responds")
    };

    eventually("parked deliveries fill the storage", async || {
        let answer = post().await;
        ((answer.status, answer.code().as_str()) == (503, "storage-full")).then_some(())
    })
    .await;
    receiver.answer_with(Reply::Status(200));
    rig.drained().await;
    eventually("there is storage again", async || {
        (post().await.status == 202).then_some(())
    })
    .await;
}
