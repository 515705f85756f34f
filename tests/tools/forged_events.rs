//! A client that may publish as one cluster claims to be another one.

use tidings_core::Message as _;
use tidings_core::wire::{Event, ObjectReference};
use tidings_rig::{Process, Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;
use crate::command::{Following, tidings};

/// An event that claims to be of a cluster.
fn claiming(cluster: &str, message: &str) -> Event {
    Event {
        id: format!("{cluster}-{message}"),
        cluster: cluster.to_owned(),
        severity: "error".to_owned(),
        message: message.to_owned(),
        involved_object: Some(ObjectReference {
            kind: "Kustomization".to_owned(),
            namespace: "apps".to_owned(),
            name: "apps".to_owned(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

async fn publish(rig: &Rig, subject: &str, event: &Event) {
    let jetstream = rig.jetstream().await;
    let published = jetstream
        .publish(subject.to_owned(), event.encode_to_vec().into())
        .await
        .unwrap();
    published.await.unwrap();
}

/// Lets the server store its confirmation under a subject, as a client that names it as the reply
/// of a message can.
async fn store_confirmation(rig: &Rig, subject: &str) {
    let jetstream = rig.jetstream().await;
    let stored = async || {
        let mut stream = jetstream.get_stream("EVENTS").await.ok()?;
        Some(stream.info().await.ok()?.state.messages)
    };
    let before = stored().await.unwrap();
    let body = claiming("dev-1", "with a reply subject").encode_to_vec();
    jetstream
        .client()
        .publish_with_reply(
            "events.dev-1.apps.Kustomization.error",
            subject.to_owned(),
            body.into(),
        )
        .await
        .unwrap();
    eventually("event and confirmation are stored", async || {
        (stored().await? >= before + 2).then_some(())
    })
    .await;
}

async fn refused(up: &Process, outcome: &str) -> f64 {
    let labels = format!("outcome=\"{outcome}\"");
    up.metric("tidings_router_events_total", &labels).await
}

#[tokio::test]
async fn an_event_that_names_another_cluster_than_its_subject_is_not_routed() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up().args(["--cluster", "prod-eu"])).await;
    let url = rig.url();
    let mut tap = Following::tidings(&["tap", "--nats", url, "--since", "1h"]);

    let forged = claiming("prod-eu", "forged");
    publish(&rig, "events.dev-1.apps.Kustomization.error", &forged).await;
    let claimed = up.logs("event-of-other-cluster").await;
    store_confirmation(&rig, "events.prod-eu.apps.Kustomization.error").await;
    assert_eq!(up.post(&event("its own")).await.unwrap().status, 202);

    receiver.accepts("with a reply subject").await;
    receiver.accepts("its own").await;
    rig.routed().await;
    rig.drained().await;
    assert_eq!(receiver.received().len(), 2, "nothing else is delivered");
    assert_eq!(
        [claimed.field("token"), claimed.field("claimed")],
        ["dev-1", "prod-eu"]
    );
    assert_eq!(refused(&up, "other-cluster").await, 1.0);
    assert_eq!(refused(&up, "undecodable").await, 1.0);
    let lines = tap.until(": its own").await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(" dev-1 error "), "{lines:?}");
}

#[tokio::test]
async fn a_replay_plans_no_delivery_of_a_forged_event() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    let forged = claiming("prod-eu", "forged");
    publish(&rig, "events.dev-1.apps.Kustomization.error", &forged).await;
    up.logs("event-of-other-cluster").await;
    rig.routed().await;

    let rules = rig.rules().folder().display().to_string();
    let url = rig.url();
    let replayed = tidings(&[
        "replay",
        "--missing",
        "--since",
        "1h",
        "--until",
        "0s",
        "--rules",
        &rules,
        "--nats",
        url,
    ])
    .await;

    assert_eq!(
        replayed.lines(),
        ["0 missing deliveries of 0 planned replayed"]
    );
}
