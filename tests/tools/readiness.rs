//! `/readyz` tells the truth.

use std::time::Duration;

use futures::StreamExt;
use tidings_rig::{
    PATIENCE, Process, Receiver, Rig, Role, alert, event, eventually_within, provider,
};

use crate::TIDINGS;

/// Within this time a role knows that its server is gone.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

async fn is_not_ready(process: &Process) {
    eventually_within(NOTICED_WITHIN, "the role is not ready", async || {
        let answer = process.readiness().await;
        (answer.status == 503 && answer.body.contains("bus: ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_role_is_not_ready_while_its_server_is_gone_or_hangs() {
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
    roles[2].post(&event("after an end")).await.unwrap();
    receiver.accepts("after an end").await;

    rig.nats().freeze();
    for role in &roles {
        is_not_ready(role).await;
    }
    let refused = roles[2].post(&event("while it hangs")).await.unwrap();
    assert_eq!(refused.status, 503);
    rig.nats().thaw();
    for role in &roles {
        role.ready().await;
    }
    roles[2].post(&event("after it has hung")).await.unwrap();
    receiver.accepts("after it has hung").await;
}

/// Waits until the role has looked how far routers have come, which it does every second.
async fn looks_at_router(rig: &Rig) {
    let client = async_nats::connect(rig.url()).await.unwrap();
    let mut asked = client
        .subscribe("$JS.API.CONSUMER.INFO.EVENTS.router")
        .await
        .unwrap();
    // The first look may have begun before.
    for _ in 0..2 {
        tokio::time::timeout(PATIENCE, asked.next())
            .await
            .expect("the role looks")
            .expect("the client stays connected");
    }
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_made_again_where_it_was() {
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
    looks_at_router(&rig).await;

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
    assert_eq!(
        up.metric("tidings_router_events_total", "").await,
        12.0,
        "what was routed is not routed again"
    );
    assert_eq!(
        up.metric("tidings_router_lost_to_retention_total", "")
            .await,
        0.0
    );
}
