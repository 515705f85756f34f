//! Workers that join and leave under load.

use std::time::Duration;

use tidings_rig::{Ledger, Receiver, Reply, Rig, Role, alert, eventually, provider};

use crate::TIDINGS;

/// The attempts that a worker makes at a time.
const CONCURRENCY: usize = 8;

fn messages(name: &str) -> Vec<String> {
    (0..100).map(|number| format!("{name} {number}")).collect()
}

#[tokio::test]
async fn workers_join_and_leave_under_load_and_only_what_a_killed_one_held_is_repeated() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    // So that deliveries wait and are in flight whenever a worker joins or leaves.
    receiver.answer_with(Reply::Slow(Duration::from_millis(100)));
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let concurrency = CONCURRENCY.to_string();
    let worker = || Role::worker().env("TIDINGS_WORKER__CONCURRENCY", &concurrency);
    let [_router, ingest] = rig.run_all([Role::router(), Role::ingest()]).await;
    let mut ledger = Ledger::default();

    ledger
        .post_until_accepted(&ingest, messages("before"))
        .await;
    let mut first = rig.run(worker()).await;
    ledger.post_until_accepted(&ingest, messages("one")).await;
    let mut second = rig.run(worker()).await;
    let _third = rig.run(worker()).await;
    ledger.post_until_accepted(&ingest, messages("three")).await;
    assert!(first.terminate().await.success());
    let at_kill = receiver.count();
    ledger.post_until_accepted(&ingest, messages("two")).await;
    second.kill().await;
    ledger
        .post_until_accepted(&ingest, messages("killed"))
        .await;
    let _fourth = rig.run(worker()).await;
    ledger.post_until_accepted(&ingest, messages("again")).await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(balance.received.len(), 600);
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    assert!(at_kill < 600, "deliveries waited");
    let repeated = balance.duplicates();
    assert!(repeated.len() <= CONCURRENCY, "{repeated:?}");
    assert!(repeated.values().all(|times| *times == 2), "{repeated:?}");
}

#[tokio::test]
async fn one_worker_becomes_four_and_one_again_and_each_delivery_is_made_once() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(Duration::from_millis(100)));
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let concurrency = CONCURRENCY.to_string();
    let worker = || Role::worker().env("TIDINGS_WORKER__CONCURRENCY", &concurrency);
    let [_router, ingest] = rig.run_all([Role::router(), Role::ingest()]).await;
    let mut ledger = Ledger::default();

    ledger.post_until_accepted(&ingest, messages("one")).await;
    let mut first = rig.run(worker()).await;
    receiver.receives(1).await;
    let mut others = rig.run_all([worker(), worker(), worker()]).await;
    ledger.post_until_accepted(&ingest, messages("four")).await;
    for other in &others {
        eventually("each of the four makes deliveries", async || {
            let made = other.metric("tidings_worker_attempts_total", "delivered");
            (made.await > 0.0).then_some(())
        })
        .await;
    }
    // The first one leaves, too, so that what is left was pulled by none of those that leave.
    assert!(first.terminate().await.success());
    let [second, third, last] = &mut others;
    for leaving in [second, third] {
        assert!(leaving.terminate().await.success());
    }
    let at_last = receiver.count();
    ledger.post_until_accepted(&ingest, messages("again")).await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(balance.received.len(), 300);
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
    assert!(at_last < 300, "deliveries waited");
    let made = last.metric("tidings_worker_attempts_total", "delivered");
    assert!(made.await >= 100.0);
}
