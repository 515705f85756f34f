//! Poison messages: deliveries that kill every worker that attempts them, or panic there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidings_core::bus::streams::{DELIVERIES, worker_consumer};
use tidings_rig::{
    Ledger, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

/// The first crash is beside other deliveries; the next five are alone.
const CRASHES: usize = 6;

/// Shortens `ack_wait`, so that the deliveries of a dead worker are redelivered soon.
async fn shorten_ack_wait(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("the stream exists", async || {
        jetstream.get_stream(DELIVERIES).await.ok()
    })
    .await;
    let mut config = worker_consumer("default", "generic");
    let name = config
        .durable_name
        .clone()
        .expect("the workers' consumer is durable");
    config.ack_wait = Duration::from_secs(2);
    stream
        .get_or_create_consumer(&name, config)
        .await
        .expect("the server creates consumers");
}

/// A worker that dies whenever it attempts the poison message. All deliveries are planned before it
/// starts.
async fn poisoned(messages: &[String], receiver: &Receiver) -> (Rig, Process) {
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _router = rig.run(Role::router()).await;
    shorten_ack_wait(&rig).await;
    let ingest = rig.run(Role::ingest()).await;
    for message in messages {
        ingest.post(&event(message)).await.expect("ingest responds");
    }
    let jetstream = rig.jetstream().await;
    eventually("all deliveries are planned", async || {
        let mut stream = jetstream.get_stream(DELIVERIES).await.ok()?;
        (stream.info().await.ok()?.state.messages == messages.len() as u64).then_some(())
    })
    .await;
    let worker = rig.spawn(Role::worker().env("FAIL_POINT", "worker:calling@1?poison"));
    (rig, worker)
}

#[tokio::test]
async fn a_delivery_that_kills_five_workers_alone_is_a_dead_letter_and_others_are_delivered() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(Duration::from_millis(700)));
    let mut messages: Vec<String> = (0..20).map(|number| format!("normal {number}")).collect();
    messages.insert(7, "poison".to_owned());
    let (rig, mut worker) = poisoned(&messages, &receiver).await;

    for crash in 1..=CRASHES {
        worker.ended().await;
        assert!(
            rig.dead_letters().await.is_empty(),
            "after {crash} crashes it was not attempted alone five times"
        );
        worker.respawn();
    }
    rig.drained().await;

    let dead = rig.dead_letters().await;
    let [dead] = dead.as_slice() else {
        panic!("only the poison message is given up: {dead:?}")
    };
    let delivery = dead
        .delivery
        .as_ref()
        .expect("a dead letter contains its delivery");
    assert_eq!(
        (dead.reason.as_str(), delivery.attempt),
        ("crashed", 0),
        "it never completed an attempt"
    );
    for normal in messages.iter().filter(|message| *message != "poison") {
        receiver.accepts(normal).await;
    }
    let tally = receiver.tally();
    assert!(
        tally.values().all(|(count, _)| *count <= 1 + CRASHES),
        "at most one duplicate for each crash: {tally:?}"
    );
}

#[tokio::test]
async fn redelivered_messages_do_not_wait_for_another_that_hangs() {
    let [hanging, healthy] = [Receiver::start().await, Receiver::start().await];
    hanging.answer_with(Reply::Stall);
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        provider("hanging", hanging.url()),
        provider("healthy", healthy.url()),
    ]);
    rig.rules().put([
        alert("to-hanging", "hanging"),
        alert("to-healthy", "healthy"),
    ]);
    let _router = rig.run(Role::router()).await;
    shorten_ack_wait(&rig).await;
    let ingest = rig.run(Role::ingest()).await;
    let mut worker = rig.run(Role::worker()).await;
    for number in 0..10 {
        ingest
            .post(&event(&format!("before {number}")))
            .await
            .expect("ingest responds");
    }
    hanging.receives(10).await;
    worker.kill().await;
    worker.restart().await;
    hanging.receives(11).await;

    ingest.post(&event("after")).await.expect("ingest responds");

    healthy.accepts("after").await;
    assert!(
        hanging.accepted().is_empty(),
        "the other destination still hangs"
    );
}

/// Waits for at least `count` outcomes. Returns the attempts of each delivery as (outcome, reason).
async fn attempts(rig: &Rig, count: usize) -> Vec<Vec<(String, String)>> {
    let what = format!("{count} outcomes");
    let all = async || Some(rig.outcomes().await).filter(|outcomes| outcomes.len() >= count);
    let mut by_delivery = BTreeMap::<String, Vec<_>>::new();
    for outcome in eventually(&what, all).await {
        let attempt = outcome.attempt.expect("an outcome has an attempt");
        by_delivery
            .entry(outcome.delivery_id)
            .or_default()
            .push((attempt.outcome, attempt.reason));
    }
    by_delivery.into_values().collect()
}

fn expected<const N: usize>(attempts: [(&str, &str); N]) -> Vec<(String, String)> {
    attempts
        .map(|(outcome, reason)| (outcome.to_owned(), reason.to_owned()))
        .into()
}

#[tokio::test]
async fn a_delivery_that_panics_loses_one_attempt_and_others_lose_none() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(Duration::from_millis(500)));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:calling@1?poison!panic"))
        .await;
    let mut ledger = Ledger::default();

    for number in 0..20 {
        ledger.post(&up, &format!("normal {number}")).await;
        if number == 7 {
            ledger.post(&up, "poison").await;
        }
    }

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(
        balance.dead.is_empty() && balance.duplicates().is_empty(),
        "{balance:?}"
    );
    let attempts = attempts(&rig, 22).await;
    let (normal, others): (Vec<_>, Vec<_>) = attempts
        .into_iter()
        .partition(|attempts| attempts.len() == 1);
    assert_eq!(
        others,
        [expected([("retrying", "crashed"), ("delivered", "")])],
        "the poison message is retried"
    );
    assert_eq!(normal, vec![expected([("delivered", "")]); 20]);
    assert_eq!(up.readiness().await.status, 200, "the process continues");
}

#[tokio::test]
async fn a_delivery_that_panics_is_retried_until_max_age() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let retry = json!({"min": "24h", "max": "24h", "maxAge": "1s"});
    rig.rules().put([
        provider("hook", receiver.url()).with("retry", retry),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:calling@1?poison!panic"))
        .await;
    let mut ledger = Ledger::default();

    ledger.post(&up, "poison").await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(
        balance.dead.contains("poison") && receiver.received().is_empty(),
        "{balance:?}"
    );
    assert_eq!(attempts(&rig, 1).await, [expected([("dead", "crashed")])]);
}

#[tokio::test]
async fn a_call_that_panics_releases_its_permit() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let hook = provider("hook", receiver.url())
        .with("maxInFlight", 1)
        .that_retries_soon();
    rig.rules().put([hook, alert("all", "hook")]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:accepted!panic"))
        .await;
    let mut ledger = Ledger::default();

    ledger.post(&up, "first").await;
    ledger.post(&up, "second").await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(
        (balance.dead.len(), balance.duplicates().len()),
        (0, 1),
        "one was accepted, panicked, and was sent again"
    );
}

#[tokio::test]
async fn a_probe_that_panics_is_followed_by_another() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:accepted!panic"))
        .await;
    let mut ledger = Ledger::default();
    for number in 0..5 {
        ledger.post(&up, &format!("event {number}")).await;
    }
    let state = async || {
        up.metric("tidings_worker_circuit_state", "provider=\"hook\"")
            .await
    };
    eventually("the circuit is not closed", async || {
        (state().await > 0.5).then_some(())
    })
    .await;

    receiver.answer_with(Reply::Status(200));

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(
        (balance.dead.len(), balance.duplicates().len()),
        (0, 1),
        "the first probe was accepted, and was sent again"
    );
}

#[tokio::test]
async fn a_panic_while_permits_change_blocks_no_later_delivery() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).with("maxInFlight", 1),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:reserving!panic"))
        .await;
    up.post(&event("first")).await.expect("ingest responds");
    up.reaches_fail_point("worker:reserving").await;

    up.post(&event("second")).await.expect("ingest responds");

    receiver.accepts("second").await;
}
