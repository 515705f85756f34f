//! Ingest before NATS, the stream EVENTS or the permission to publish exists.

use tidings_rig::{Cable, Process, Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Waits until the process answers on both ports, and asserts that it refuses events at once.
async fn refuses_events(process: &Process, part: &str, detail: &str) {
    process.is_not_ready(part, detail).await;
    let answer = eventually("ingest answers", async || {
        process.post(&event("too early")).await.ok()
    })
    .await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert_eq!(answer.code(), "bus-unavailable");
}

#[tokio::test]
async fn ingest_refuses_events_until_its_stream_exists() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    rig.nats().kill().await;
    let ingest = rig.spawn(Role::ingest());
    refuses_events(&ingest, "bus", "NATS").await;

    rig.nats().restart().await;
    refuses_events(&ingest, "bus", "EVENTS").await;

    let _others = rig.run_all([Role::router(), Role::worker()]).await;
    ingest.ready().await;
    assert_eq!(ingest.post(&event("stored")).await.unwrap().status, 202);
    receiver.accepts("stored").await;
}

#[tokio::test]
async fn ingest_without_permission_to_publish_is_not_ready() {
    let rig = Rig::start_with(TIDINGS, |_| {
        "authorization { users: [\n\
         { user: full, password: full }\n\
         { user: reader, password: reader, permissions: { publish: { deny: \"events.>\" } } }\n\
         ] }\n\
         no_auth_user: full\n"
            .to_owned()
    })
    .await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _others = rig.run_all([Role::router(), Role::worker()]).await;
    let reader = |role: Role| {
        role.env("TIDINGS_NATS__USERNAME", "reader")
            .env("TIDINGS_NATS__PASSWORD", "reader")
    };
    for role in [Role::ingest(), Role::up()] {
        let process = rig.spawn(reader(role));
        refuses_events(&process, "publish", "events.").await;
        process
            .logs_with("publish-denied", [("error", "events.")])
            .await;
    }

    // A link that carries nothing is no lack of permissions.
    let cable = Cable::to(rig.url()).await;
    let silent = rig.run(Role::ingest().over(&cable)).await;
    cable.silence();
    silent
        .logs_with("publish-failed", [("error", "does not answer")])
        .await;
    assert!(silent.log_events("publish-denied").is_empty());
    drop(silent);

    let allowed = rig.run(Role::ingest()).await;
    assert_eq!(allowed.post(&event("stored")).await.unwrap().status, 202);
    receiver.accepts("stored").await;
    let mut events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    let state = &events.info().await.unwrap().state;
    assert_eq!(state.messages, 1, "the check stores nothing");
}
