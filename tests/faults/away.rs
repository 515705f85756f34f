//! A server that is away, or stands still, for longer than anybody waits for an answer.

use std::time::Duration;

use tidings_rig::{
    Ledger, PATIENCE, Receiver, Reply, Rig, Role, alert, event, eventually, eventually_within,
    post_steadily, provider,
};

use crate::TIDINGS;

/// Longer than every deadline, and than the longest pause between two tries to connect.
const AWAY: Duration = Duration::from_secs(70);
/// That pause, twice, and what a pull takes to begin.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Longer than a publish waits for its confirmation, and than a sender waits for its answer.
const STANDS_STILL: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_for_ten_seconds_under_load_costs_no_event() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let roles = rig
        .run_all([
            Role::ingest(),
            Role::router(),
            Role::router(),
            Role::worker(),
            Role::worker(),
        ])
        .await;
    let ingest = roles[0].address();
    let length = STANDS_STILL * 2;
    let posting = tokio::spawn(async move {
        post_steadily(&ingest, 100, length, |number| event(&number.to_string())).await
    });

    receiver.receives(200).await;
    rig.nats().freeze();
    tokio::time::sleep(STANDS_STILL).await;
    rig.nats().thaw();

    let posted = posting.await.expect("posting does not panic");
    eventually_within(
        PATIENCE * 2,
        "every event that was accepted arrives",
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
async fn after_a_minute_without_a_server_every_role_works_again_and_nothing_is_lost() {
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
    tokio::time::sleep(AWAY).await;
    for role in &roles {
        eventually("the role says that it is not connected", async || {
            let answer = role.readiness().await;
            (answer.status == 503 && answer.body.contains("bus: not connected")).then_some(())
        })
        .await;
    }
    rig.nats().restart().await;

    for role in &roles {
        let works = async || (role.readiness().await.status == 200).then_some(());
        eventually_within(BACK_WITHIN, "the role works again", works).await;
    }
    receiver.answer_with(Reply::Status(200));
    ledger
        .post_until_accepted(&roles[2], (0..20).map(|number| format!("after {number}")))
        .await;
    ledger.balanced(&rig, &receiver).await;
    assert!(rig.dead_letters().await.is_empty());
}
