//! A worker is killed while it holds a probe, a state, a permit or a wake-up. Others, or its
//! successor, continue within seconds. Only its messages wait for their redelivery.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidings_core::wire::Circuit;
use tidings_core::{Destination, Message};
use tidings_rig::{
    Ledger, Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually,
    eventually_within, provider, secret,
};

use crate::TIDINGS;

/// Far below the time that a call can take with the default timeout (65 s), and long enough for a
/// busy machine. A lease lasts 5 s.
const SOON: Duration = Duration::from_secs(25);
/// Also includes the redelivery of messages that a dead process held (30 s).
const AFTER_REDELIVERY: Duration = Duration::from_secs(75);

/// A Provider whose failed calls are retried soon, and whose timeout is the default.
fn hook(receiver: &Receiver) -> Manifest {
    provider("hook", receiver.url()).with("retry", json!({"min": "1s", "max": "2s"}))
}

async fn accepts_within(limit: Duration, receiver: &Receiver, count: usize) {
    let what = format!("{count} events are accepted");
    eventually_within(limit, &what, async || {
        (receiver.tally().len() >= count).then_some(())
    })
    .await;
}

/// Posts events to a destination that fails, until its circuit is open.
async fn open_circuit(up: &Process, ledger: &mut Ledger, events: usize) {
    for number in 0..events {
        ledger.post(up, &format!("event {number}")).await;
    }
    eventually("the circuit is open", async || {
        let state = up.metric("tidings_worker_circuit_state", "provider=\"hook\"");
        (state.await > 1.5).then_some(())
    })
    .await;
}

/// The record of the circuit.
async fn circuit(rig: &Rig) -> Circuit {
    let bucket = rig.jetstream().await.get_key_value("limits").await;
    let key = Destination::channel("apps", "hook", "").key();
    let record = bucket.expect("the bucket exists").get(key).await;
    let record = record
        .expect("the server responds")
        .expect("it has a record");
    Circuit::decode(record).expect("it is a circuit")
}

#[tokio::test]
async fn after_a_killed_probe_the_next_one_follows_within_seconds() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let (rig, mut up) = Rig::up(TIDINGS, [hook(&receiver), alert("all", "hook")]).await;
    let mut ledger = Ledger::default();
    open_circuit(&up, &mut ledger, 20).await;

    receiver.answer_with(Reply::Stall);
    eventually("the probe hangs", async || {
        let received = receiver.received();
        let is_hanging = received.last()?.reply == Reply::Stall;
        is_hanging.then_some(())
    })
    .await;
    up.kill().await;
    receiver.answer_with(Reply::Status(200));
    up.restart().await;

    accepts_within(SOON, &receiver, 19).await;
    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{balance:?}");
}

#[tokio::test]
async fn a_wake_up_survives_six_kills() {
    const COUNT: usize = 300;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let (rig, mut up) = Rig::up(TIDINGS, [hook(&receiver), alert("all", "hook")]).await;
    let mut ledger = Ledger::default();
    open_circuit(&up, &mut ledger, COUNT).await;
    // Unless they are woken, they wait for two to four minutes.
    eventually("the deliveries are parked", async || {
        let parked = up.metric(
            "tidings_worker_deliveries_total",
            "outcome=\"circuit-open\"",
        );
        (parked.await >= COUNT as f64 - 20.0).then_some(())
    })
    .await;

    receiver.answer_with(Reply::Status(200));
    accepts_within(SOON, &receiver, 1).await;
    for _ in 0..6 {
        up.kill().await;
        up.restart().await;
    }

    accepts_within(AFTER_REDELIVERY, &receiver, COUNT).await;
    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    eventually("the wake-up is stored as done", async || {
        circuit(&rig).await.wake_up.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_worker_carries_out_the_wake_up_of_a_killed_one() {
    const COUNT: usize = 100;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([hook(&receiver), alert("all", "hook")]);
    let (ingest, _router) = (rig.spawn(Role::ingest()), rig.run(Role::router()).await);
    let mut first = rig.run(Role::worker()).await;
    ingest.ready().await;
    let mut ledger = Ledger::default();
    for number in 0..COUNT {
        ledger.post(&ingest, &format!("event {number}")).await;
    }
    eventually("the deliveries are parked", async || {
        let parked = first.metric(
            "tidings_worker_deliveries_total",
            "outcome=\"circuit-open\"",
        );
        (parked.await >= COUNT as f64 - 20.0).then_some(())
    })
    .await;

    receiver.answer_with(Reply::Status(200));
    accepts_within(SOON, &receiver, 1).await;
    first.kill().await;
    let _second = rig.run(Role::worker()).await;

    accepts_within(AFTER_REDELIVERY, &receiver, COUNT).await;
    ledger.balanced(&rig, &receiver).await;
}

/// A Provider of a type where the newest state wins.
fn incidents(rig: &Rig, receiver: &Receiver) -> Manifest {
    rig.rules()
        .put([secret("key", json!({"token": "hidden-token"}))]);
    provider("hook", receiver.url())
        .with("type", "incident.io")
        .with("secretRef", json!({"name": "key"}))
}

/// Whether a success of incident.io was received for this event.
fn has_accepted(receiver: &Receiver, message: &str) -> bool {
    let accepted = receiver.accepted();
    accepted
        .iter()
        .any(|received| String::from_utf8_lossy(&received.body).contains(message))
}

#[tokio::test]
async fn after_the_writer_of_a_state_is_killed_a_newer_state_is_written_within_seconds() {
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    receiver.answer_with(Reply::Stall);
    rig.rules()
        .put([incidents(&rig, &receiver), alert("all", "hook")]);
    let mut up = rig.run(Role::up()).await;
    up.post(&event("first")).await.unwrap();
    receiver.receives(1).await;

    up.kill().await;
    receiver.answer_with(Reply::Status(200));
    up.restart().await;
    up.post(&later_event("second")).await.unwrap();

    eventually_within(SOON, "the newer state is written", async || {
        has_accepted(&receiver, "second").then_some(())
    })
    .await;
    rig.drained().await;
    assert!(!has_accepted(&receiver, "first"), "it is superseded");
}

/// Like `event`, a second later.
fn later_event(message: &str) -> Value {
    let mut event = event(message);
    let time: jiff::Timestamp = event["timestamp"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .expect("an event has a time");
    event["timestamp"] = (time + Duration::from_secs(1)).to_string().into();
    event
}

#[tokio::test]
async fn the_permits_of_a_killed_worker_are_free_within_seconds() {
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    receiver.answer_with(Reply::Stall);
    rig.rules()
        .put([hook(&receiver).with("maxInFlight", 2), alert("all", "hook")]);
    let mut up = rig.run(Role::up()).await;
    let mut ledger = Ledger::default();
    for message in ["first", "second"] {
        ledger.post(&up, message).await;
    }
    receiver.receives(2).await;
    ledger.post(&up, "third").await;
    eventually("a delivery has no permit", async || {
        let parked = up.metric("tidings_worker_deliveries_total", "outcome=\"no-permit\"");
        (parked.await >= 1.0).then_some(())
    })
    .await;

    up.kill().await;
    receiver.answer_with(Reply::Status(200));
    up.restart().await;

    accepts_within(SOON, &receiver, 1).await;
    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{balance:?}");
}

/// The number of renewals so far.
async fn renewals(rig: &Rig) -> u64 {
    let stream = rig.jetstream().await.get_stream("KV_suspects").await;
    let mut stream = stream.expect("the bucket exists");
    let info = stream.info().await.expect("the server responds");
    info.state.last_sequence
}

#[tokio::test]
async fn one_renewal_a_second_keeps_all_leases_of_a_worker() {
    const CALLS: usize = 50;
    let (rig, receiver) = (Rig::start(TIDINGS).await, Receiver::start().await);
    receiver.answer_with(Reply::Slow(Duration::from_secs(8)));
    rig.rules().put([
        hook(&receiver).with("maxInFlight", CALLS),
        alert("all", "hook"),
    ]);
    let up = rig.run(Role::up()).await;
    let mut ledger = Ledger::default();
    let start = Instant::now();
    for number in 0..CALLS {
        ledger.post(&up, &format!("event {number}")).await;
    }
    receiver.receives(CALLS).await;
    eventually("the leases are renewed", async || {
        (renewals(&rig).await >= 3).then_some(())
    })
    .await;

    ledger.balanced(&rig, &receiver).await;
    let (renewals, seconds) = (renewals(&rig).await, start.elapsed().as_secs());
    assert!(
        renewals <= seconds + 1,
        "{renewals} renewals in {seconds} s"
    );
    assert!(up.log_events("leases-lost").is_empty());
}
