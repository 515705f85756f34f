//! A delivery that ends the process of every worker that attempts it, among others that are held beside it.

use std::time::Duration;

use tidings_core::stream::{DELIVERIES, worker_consumer};
use tidings_rig::{Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

/// Once beside others, then five times alone.
const ENDS: usize = 6;

/// What a dead worker held comes again so soon, so that the test is quick.
async fn hasten(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    let stream = eventually("the stream is there", async || jetstream.get_stream(DELIVERIES).await.ok()).await;
    let mut config = worker_consumer("default", "generic");
    let name = config.durable_name.clone().expect("the workers' consumer is durable");
    config.ack_wait = Duration::from_secs(2);
    stream.get_or_create_consumer(&name, config).await.expect("the server makes consumers");
}

/// A worker that dies whenever it attempts the poison, with everything planned before it starts.
async fn poisoned(messages: &[String], receiver: &Receiver) -> (Rig, Process) {
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([provider("hook", receiver.url()), alert("all", "hook")]);
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
async fn a_delivery_that_ends_five_processes_alone_is_a_dead_letter_and_the_innocents_beside_it_lose_no_attempt() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(Duration::from_millis(700)));
    let mut messages: Vec<String> = (0..20).map(|number| format!("innocent {number}")).collect();
    messages.insert(7, "poison".to_owned());
    let (rig, mut worker) = poisoned(&messages, &receiver).await;

    for end in 1..=ENDS {
        worker.ended().await;
        assert!(rig.dead_letters().await.is_empty(), "after {end} ends it has not been alone often enough");
        worker.respawn();
    }
    rig.drained().await;

    let letters = rig.dead_letters().await;
    let [letter] = letters.as_slice() else { panic!("only the poison is given up: {letters:?}") };
    let delivery = letter.delivery.as_ref().expect("a letter holds its delivery");
    assert_eq!((letter.reason.as_str(), delivery.attempt), ("crashed", 0), "it never came to the end of an attempt");
    for innocent in messages.iter().filter(|message| *message != "poison") {
        receiver.accepts(innocent).await;
    }
    let tally = receiver.tally();
    assert!(tally.values().all(|(count, _)| *count <= 1 + ENDS), "at most one duplicate for each end of a process: {tally:?}");
}

#[tokio::test]
async fn what_comes_again_because_its_worker_was_killed_is_delivered_while_another_of_its_kind_hangs() {
    let [hanging, well] = [Receiver::start().await, Receiver::start().await];
    hanging.answer_with(Reply::Stall);
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([provider("hanging", hanging.url()), provider("well", well.url())]);
    rig.rules().put([alert("to-hanging", "hanging"), alert("to-well", "well")]);
    let _router = rig.run(Role::router()).await;
    hasten(&rig).await;
    let ingest = rig.run(Role::ingest()).await;
    let mut worker = rig.run(Role::worker()).await;
    for number in 0..10 {
        ingest.post(&event(&format!("before {number}"))).await.expect("ingest answers");
    }
    hanging.receives(10).await;
    worker.kill().await;
    worker.restart().await;
    hanging.receives(11).await;

    ingest.post(&event("after")).await.expect("ingest answers");

    well.accepts("after").await;
    assert!(hanging.accepted().is_empty(), "what hangs still hangs");
}
