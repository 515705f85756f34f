//! Workers that join and leave under load.

use std::time::Duration;

use tidings_rig::{Ledger, Receiver, Reply, Rig, Role, alert, provider};

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
