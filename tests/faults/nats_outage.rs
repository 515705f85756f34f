//! A nats-server that is down, or hangs, for longer than all timeouts.

use std::time::Duration;

use tidings_rig::{
    Ledger, PATIENCE, Receiver, Reply, Rig, Role, alert, event, eventually_within, post_steadily,
    provider,
};

use crate::TIDINGS;
use crate::cluster::replicas;

/// Longer than every deadline, and than the longest pause between two connection attempts.
const DOWN_FOR: Duration = Duration::from_secs(70);
/// Twice that pause, plus the time until a pull begins.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Longer than the timeouts of a publish and of a sender.
const HANGS_FOR: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_for_ten_seconds_under_load_loses_nothing() {
    let mut rig = Rig::start(TIDINGS).await;
    let (receiver, roles) = replicas(&rig).await;
    let ingest = roles[0].address();
    let length = HANGS_FOR * 2;
    let posting = tokio::spawn(async move {
        post_steadily(&ingest, 100, length, |number| event(&number.to_string())).await
    });

    receiver.receives(200).await;
    rig.nats().freeze();
    tokio::time::sleep(HANGS_FOR).await;
    rig.nats().thaw();

    let posted = posting.await.expect("posting does not panic");
    eventually_within(
        PATIENCE * 2,
        "every accepted event is received",
        async || {
            let received = receiver.tally();
            posted
                .iter()
                .all(|posted| received.contains_key(&posted.message))
                .then_some(())
        },
    )
    .await;
    rig.drained().await;
    assert!(rig.dead_letters().await.is_empty());
}

#[tokio::test]
async fn after_a_minute_without_a_server_every_role_becomes_ready_and_nothing_is_lost() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let roles = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles[2], (0..20).map(|number| format!("before {number}")))
        .await;
    receiver.receives(5).await;

    rig.nats().kill().await;
    tokio::time::sleep(DOWN_FOR).await;
    for role in &roles {
        role.is_not_ready("bus", "not connected").await;
    }
    rig.nats().restart().await;

    for role in &roles {
        let is_ready = async || (role.readiness().await.status == 200).then_some(());
        eventually_within(READY_WITHIN, "the role is ready again", is_ready).await;
    }
    receiver.answer_with(Reply::Status(200));
    ledger
        .post_until_accepted(&roles[2], (0..20).map(|number| format!("after {number}")))
        .await;
    ledger.balanced(&rig, &receiver).await;
    assert!(rig.dead_letters().await.is_empty());
}
