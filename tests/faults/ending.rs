//! Processes that are asked to end, as in a rolling restart.

use std::time::Duration;

use serde_json::json;
use tidings_core::bus::streams::ACK_WAIT;
use tidings_rig::{
    Receiver, Reply, Rig, Role, alert, event, eventually, eventually_within, post_steadily,
    provider,
};

use crate::TIDINGS;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_roles_under_load_loses_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let roles = [
        Role::router(),
        Role::router(),
        Role::worker(),
        Role::worker(),
        Role::ingest(),
    ];
    let mut processes = roles.map(|role| rig.spawn(role));
    for process in &processes {
        process.ready().await;
    }
    let ingest = processes[4].address();
    let posting = tokio::spawn(async move {
        post_steadily(&ingest, 100, Duration::from_secs(20), |number| {
            event(&number.to_string())
        })
        .await
    });

    let mut restarts = 0;
    while !posting.is_finished() {
        for process in &mut processes {
            let status = process.terminate().await;
            assert!(
                status.success(),
                "it ends cleanly when it is asked to: {status}"
            );
            process.restart().await;
            restarts += 1;
        }
    }

    let posted = posting.await.expect("posting does not panic");
    assert!(restarts >= 5, "each role was restarted");
    let tally = eventually("every event that was accepted arrives", async || {
        let tally = receiver.tally();
        posted
            .iter()
            .all(|posted| tally.contains_key(&posted.message))
            .then_some(tally)
    })
    .await;
    rig.drained().await;
    assert!(rig.dead_letters().await.is_empty());
    let twice = tally.values().filter(|(count, _)| *count > 1).count();
    println!(
        "{} events, {restarts} restarts, {twice} came twice",
        posted.len()
    );
}

#[tokio::test]
async fn what_a_worker_cannot_finish_in_its_grace_period_is_handed_back_at_once() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Stall);
    rig.rules().put([
        provider("hook", receiver.url()).with("timeout", json!("2m")),
        alert("all", "hook"),
    ]);
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(Role::ingest()).await;
    let mut ending = rig
        .run(Role::worker().env("TIDINGS_SHUTDOWN_GRACE", "1s"))
        .await;
    ingest
        .post(&event("under way"))
        .await
        .expect("ingest answers");
    receiver.receives(1).await;
    receiver.answer_with(Reply::Status(200));
    let _other = rig.run(Role::worker()).await;

    let status = ending.terminate().await;

    assert!(status.success(), "it ends cleanly: {status}");
    // Sooner than the server would hand out what nobody gave back.
    eventually_within(
        ACK_WAIT * 2 / 3,
        "the other worker delivers it",
        async || receiver.accepted().pop(),
    )
    .await;
}
