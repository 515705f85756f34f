//! `/readyz`, and consumers that another client deletes.

use std::time::Duration;

use futures::StreamExt;
use tidings_rig::{
    PATIENCE, Process, Receiver, Rig, Role, alert, event, eventually_within, provider,
};

use crate::TIDINGS;

/// The time limit for a role to notice that its server is gone.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(15);

async fn is_not_ready(process: &Process) {
    eventually_within(NOTICE_TIMEOUT, "the role is not ready", async || {
        let answer = process.readiness().await;
        (answer.status == 503 && answer.problem("bus").is_some()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_role_is_not_ready_while_its_server_is_down_or_hangs() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let roles = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;

    rig.nats().kill().await;
    for role in &roles {
        is_not_ready(role).await;
    }
    rig.nats().restart().await;
    for role in &roles {
        role.ready().await;
    }
    roles[2].post(&event("after a restart")).await.unwrap();
    receiver.accepts("after a restart").await;

    rig.nats().freeze();
    for role in &roles {
        is_not_ready(role).await;
    }
    let answer = roles[2].post(&event("while it hangs")).await.unwrap();
    assert_eq!(answer.status, 503);
    rig.nats().thaw();
    for role in &roles {
        role.ready().await;
    }
    roles[2].post(&event("after it hung")).await.unwrap();
    receiver.accepts("after it hung").await;
}

/// Waits until the role has sampled the position of the router, which it does every second.
async fn router_is_sampled(rig: &Rig) {
    let client = async_nats::connect(rig.url()).await.unwrap();
    let mut samples = client
        .subscribe("$JS.API.CONSUMER.INFO.EVENTS.router")
        .await
        .unwrap();
    // The first sample may have begun before this call.
    for _ in 0..2 {
        tokio::time::timeout(PATIENCE, samples.next())
            .await
            .expect("the role samples the router")
            .expect("the client stays connected");
    }
}

#[tokio::test]
async fn a_deleted_consumer_is_recreated_at_its_old_position() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    for number in 0..10 {
        up.post(&event(&format!("before {number}"))).await.unwrap();
    }
    receiver.receives(10).await;
    rig.drained().await;
    router_is_sampled(&rig).await;

    let jetstream = rig.jetstream().await;
    for (stream, consumer) in [("EVENTS", "router"), ("DELIVERIES", "default-generic")] {
        jetstream
            .get_stream(stream)
            .await
            .unwrap()
            .delete_consumer(consumer)
            .await
            .unwrap();
        let message = format!("without the consumer {consumer}");
        assert_eq!(up.post(&event(&message)).await.unwrap().status, 202);
        receiver.accepts(&message).await;
    }

    rig.drained().await;
    assert_eq!(receiver.received().len(), 12);
    // No event is routed twice.
    up.counts("tidings_router_events_total", "", 12.0).await;
    assert_eq!(
        up.metric("tidings_router_lost_to_retention_total", "")
            .await,
        0.0
    );
}
