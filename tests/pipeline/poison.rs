//! A delivery that ends the process of every worker that attempts it, or panics there, among others
//! that are held beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidings_core::bus::streams::{DELIVERIES, worker_consumer};
use tidings_rig::{
    Ledger, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

/// Once beside others, then five times alone.
const ENDS: usize = 6;

/// What a dead worker held comes again so soon, so that the test is quick.
async fn hasten(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("the stream is there", async || {
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
        .expect("the server makes consumers");
}

/// A worker that dies whenever it attempts the poison, with everything planned before it starts.
async fn poisoned(messages: &[String], receiver: &Receiver) -> (Rig, Process) {
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _router = rig.run(Role::router()).await;
    hasten(&rig).await;
    let ingest = rig.run(Role::ingest()).await;
    for message in messages {
        ingest.post(&event(message)).await.expect("ingest answers");
    }
    let jetstream = rig.jetstream().await;
    eventually("all are planned", async || {
        let mut stream = jetstream.get_stream(DELIVERIES).await.ok()?;
        (stream.info().await.ok()?.state.messages == messages.len() as u64).then_some(())
    })
    .await;
    let worker = rig.spawn(Role::worker().env("FAIL_POINT", "worker:calling@1?poison"));
    (rig, worker)
}

#[tokio::test]
async fn a_delivery_that_ends_five_processes_alone_is_a_dead_letter_and_the_innocents_beside_it_lose_no_attempt()
 {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(Duration::from_millis(700)));
    let mut messages: Vec<String> = (0..20).map(|number| format!("innocent {number}")).collect();
    messages.insert(7, "poison".to_owned());
    let (rig, mut worker) = poisoned(&messages, &receiver).await;

    for end in 1..=ENDS {
        worker.ended().await;
        assert!(
            rig.dead_letters().await.is_empty(),
            "after {end} ends it has not been alone often enough"
        );
        worker.respawn();
    }
    rig.drained().await;

    let letters = rig.dead_letters().await;
    let [letter] = letters.as_slice() else {
        panic!("only the poison is given up: {letters:?}")
    };
    let delivery = letter
        .delivery
        .as_ref()
        .expect("a letter holds its delivery");
    assert_eq!(
        (letter.reason.as_str(), delivery.attempt),
        ("crashed", 0),
        "it never came to the end of an attempt"
    );
    for innocent in messages.iter().filter(|message| *message != "poison") {
        receiver.accepts(innocent).await;
    }
    let tally = receiver.tally();
    assert!(
        tally.values().all(|(count, _)| *count <= 1 + ENDS),
        "at most one duplicate for each end of a process: {tally:?}"
    );
}

#[tokio::test]
async fn what_comes_again_because_its_worker_was_killed_is_delivered_while_another_of_its_kind_hangs()
 {
    let [hanging, well] = [Receiver::start().await, Receiver::start().await];
    hanging.answer_with(Reply::Stall);
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        provider("hanging", hanging.url()),
        provider("well", well.url()),
    ]);
    rig.rules()
        .put([alert("to-hanging", "hanging"), alert("to-well", "well")]);
    let _router = rig.run(Role::router()).await;
    hasten(&rig).await;
    let ingest = rig.run(Role::ingest()).await;
    let mut worker = rig.run(Role::worker()).await;
    for number in 0..10 {
        ingest
            .post(&event(&format!("before {number}")))
            .await
            .expect("ingest answers");
    }
    hanging.receives(10).await;
    worker.kill().await;
    worker.restart().await;
    hanging.receives(11).await;

    ingest.post(&event("after")).await.expect("ingest answers");

    well.accepts("after").await;
    assert!(hanging.accepted().is_empty(), "what hangs still hangs");
}

/// What was told of each delivery's attempts, as (outcome, reason), once so many have been told.
async fn attempts(rig: &Rig, count: usize) -> Vec<Vec<(String, String)>> {
    let what = format!("{count} attempts are told");
    let told = async || Some(rig.outcomes().await).filter(|outcomes| outcomes.len() >= count);
    let mut by_delivery = BTreeMap::<String, Vec<_>>::new();
    for outcome in eventually(&what, told).await {
        let attempt = outcome.attempt.expect("it is of an attempt");
        by_delivery
            .entry(outcome.delivery_id)
            .or_default()
            .push((attempt.outcome, attempt.reason));
    }
    by_delivery.into_values().collect()
}

fn ends<const N: usize>(attempts: [(&str, &str); N]) -> Vec<(String, String)> {
    attempts
        .map(|(outcome, reason)| (outcome.to_owned(), reason.to_owned()))
        .into()
}

#[tokio::test]
async fn a_delivery_that_panics_loses_one_attempt_and_what_is_held_beside_it_none() {
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
        ledger.post(&up, &format!("innocent {number}")).await;
        if number == 7 {
            ledger.post(&up, "poison").await;
        }
    }

    let balance = ledger.settled(&rig, &receiver).await;
    assert!(
        balance.dead.is_empty() && balance.duplicates().is_empty(),
        "{balance:?}"
    );
    let attempts = attempts(&rig, 22).await;
    let (innocents, others): (Vec<_>, Vec<_>) = attempts
        .into_iter()
        .partition(|attempts| attempts.len() == 1);
    assert_eq!(
        others,
        [ends([("retrying", "crashed"), ("delivered", "")])],
        "the poison is tried again"
    );
    assert_eq!(innocents, vec![ends([("delivered", "")]); 20]);
    assert_eq!(up.readiness().await.status, 200, "the process goes on");
}

#[tokio::test]
async fn a_delivery_that_panics_is_tried_again_for_as_long_as_its_provider_says() {
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

    let balance = ledger.settled(&rig, &receiver).await;
    assert!(
        balance.dead.contains("poison") && receiver.received().is_empty(),
        "{balance:?}"
    );
    assert_eq!(attempts(&rig, 1).await, [ends([("dead", "crashed")])]);
}

#[tokio::test]
async fn a_call_that_panics_leaves_its_seat() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let hook = provider("hook", receiver.url())
        .with("maxInFlight", json!(1))
        .that_retries_soon();
    rig.rules().put([hook, alert("all", "hook")]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:accepted!panic"))
        .await;
    let mut ledger = Ledger::default();

    ledger.post(&up, "first").await;
    ledger.post(&up, "second").await;

    let balance = ledger.settled(&rig, &receiver).await;
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

    let balance = ledger.settled(&rig, &receiver).await;
    assert_eq!(
        (balance.dead.len(), balance.duplicates().len()),
        (0, 1),
        "the first probe was accepted, and was sent again"
    );
}

#[tokio::test]
async fn a_panic_while_seats_change_holds_up_nobody_who_comes_after() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).with("maxInFlight", json!(1)),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("FAIL_POINT", "worker:reserving!panic"))
        .await;
    up.post(&event("first")).await.expect("ingest answers");
    up.reaches_fail_point("worker:reserving").await;

    up.post(&event("second")).await.expect("ingest answers");

    receiver.accepts("second").await;
}
