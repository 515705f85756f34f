//! Processes that are terminated, as in a rolling restart.

use std::time::Duration;

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
            assert!(status.success(), "it ends cleanly on SIGTERM: {status}");
            process.restart().await;
            restarts += 1;
        }
    }

    let posted = posting.await.expect("posting does not panic");
    assert!(restarts >= 5, "each role was restarted");
    let tally = eventually("every accepted event is received", async || {
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
        "{} events, {restarts} restarts, {twice} were received twice",
        posted.len()
    );
}

#[tokio::test]
async fn a_worker_returns_unfinished_deliveries_after_its_grace_period() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Stall);
    rig.rules().put([
        provider("hook", receiver.url()).with("timeout", "2m"),
        alert("all", "hook"),
    ]);
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(Role::ingest()).await;
    let mut ending = rig
        .run(Role::worker().env("TIDINGS_SHUTDOWN_GRACE", "1s"))
        .await;
    ingest
        .post(&event("in progress"))
        .await
        .expect("ingest responds");
    receiver.receives(1).await;
    receiver.answer_with(Reply::Status(200));
    let _other = rig.run(Role::worker()).await;

    let status = ending.terminate().await;

    assert!(status.success(), "it ends cleanly: {status}");
    // JetStream would redeliver it later if the worker had not returned it.
    eventually_within(
        ACK_WAIT * 2 / 3,
        "the other worker delivers it",
        async || receiver.accepted().pop(),
    )
    .await;
}
