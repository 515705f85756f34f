//! Files of consumers that nats-server cannot read any more, or reads as empty.

use std::fs;
use std::path::PathBuf;

use tidings_core::bus::streams::EVENTS;
use tidings_core::{Message as _, wire::ConsumerPosition};
use tidings_rig::{Ledger, Process, Receiver, Reply, Rig, Role, alert, eventually, provider};
use tokio::process::Command;

use crate::TIDINGS;

/// What happens to the file of a consumer's state, `o.dat`.
type Damage = fn(&mut Vec<u8>);

const TRUNCATED: Damage = |state| state.truncate(state.len() / 2);
const FLIPPED: Damage = |state| state.iter_mut().for_each(|byte| *byte ^= 0xff);
/// The server reads it as a consumer that never delivered anything.
const EMPTY: Damage = Vec::clear;

struct Roles {
    ingest: Process,
    router: Process,
    worker: Process,
}

async fn start() -> (Rig, Receiver, Roles) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let [ingest, router, worker] = rig
        .run_all([Role::ingest(), Role::router(), Role::worker()])
        .await;
    let roles = Roles {
        ingest,
        router,
        worker,
    };
    (rig, receiver, roles)
}

fn state_file(rig: &Rig, stream: &str, consumer: &str) -> PathBuf {
    let stream = format!("jetstream/jetstream/$G/streams/{stream}");
    rig.folder()
        .join(stream)
        .join(format!("obs/{consumer}/o.dat"))
}

/// Damages a consumer's file while nats-server is down.
async fn damage(rig: &mut Rig, stream: &str, consumer: &str, damage: Damage) {
    rig.nats().kill().await;
    let file = state_file(rig, stream, consumer);
    let mut state = fs::read(&file).expect("the consumer has a state");
    assert!(!state.is_empty());
    damage(&mut state);
    fs::write(&file, state).expect("the rig's folder is writable");
    rig.nats().restart().await;
}

async fn position(rig: &Rig) -> Option<ConsumerPosition> {
    let bucket = rig
        .jetstream()
        .await
        .get_key_value("consumers")
        .await
        .ok()?;
    ConsumerPosition::decode(bucket.get("router").await.ok()??).ok()
}

/// Waits until everything up to this sequence is recorded as acknowledged.
async fn is_recorded(rig: &Rig, sequence: u64) {
    eventually("the router's position is recorded", async || {
        let position = position(rig).await?;
        (position.acknowledged == sequence && !position.event_id.is_empty()).then_some(())
    })
    .await;
}

/// Waits until this many outcomes are stored. A delivery that ended just before the server is
/// killed, and whose outcome follows late on a busy machine, counts as lost.
async fn outcomes_are_stored(rig: &Rig, count: u64) {
    let jetstream = rig.jetstream().await;
    eventually("the outcomes are stored", async || {
        let stream = jetstream.get_stream("OUTCOMES").await.ok()?;
        (stream.cached_info().state.messages >= count).then_some(())
    })
    .await;
}

async fn recreate_consumer(rig: &Rig, begin: &[&str]) {
    let output = Command::new(TIDINGS)
        .args(["streams", "recreate-consumer", "--nats", rig.url()])
        .args(begin)
        .output()
        .await
        .expect("the command runs");
    assert!(output.status.success(), "{output:?}");
}

fn messages(name: &str) -> impl Iterator<Item = String> {
    let name = name.to_owned();
    (0..20).map(move |number| format!("{name} {number}"))
}

async fn has_no_duplicates(ledger: &Ledger, rig: &Rig, receiver: &Receiver) {
    let balance = ledger.balanced(rig, receiver).await;
    let duplicates = balance.duplicates();
    assert!(duplicates.is_empty(), "{duplicates:?}");
}

#[tokio::test]
async fn a_router_whose_state_is_damaged_continues_after_the_last_acknowledged_event() {
    for damage_state in [TRUNCATED, FLIPPED, EMPTY] {
        let (mut rig, receiver, roles) = start().await;
        let mut ledger = Ledger::default();
        ledger
            .post_until_accepted(&roles.ingest, messages("before"))
            .await;
        is_recorded(&rig, 20).await;
        outcomes_are_stored(&rig, 20).await;

        damage(&mut rig, EVENTS, "router", damage_state).await;

        let recreated = roles.router.logs("consumer-recreated").await;
        assert_eq!(recreated.field("after"), "20");
        ledger
            .post_until_accepted(&roles.ingest, messages("after"))
            .await;
        has_no_duplicates(&ledger, &rig, &receiver).await;
        // No event is routed twice.
        roles
            .router
            .counts("tidings_router_events_total", "", 40.0)
            .await;
        roles.router.ready().await;
    }
}

#[tokio::test]
async fn a_router_that_starts_after_the_damage_continues_at_the_recorded_position() {
    for damage_state in [TRUNCATED, EMPTY] {
        let (mut rig, receiver, mut roles) = start().await;
        let mut ledger = Ledger::default();
        ledger
            .post_until_accepted(&roles.ingest, messages("before"))
            .await;
        is_recorded(&rig, 20).await;
        roles.router.terminate().await;
        ledger
            .post_until_accepted(&roles.ingest, messages("meanwhile"))
            .await;

        damage(&mut rig, EVENTS, "router", damage_state).await;
        let routers = rig.run_all([Role::router(), Role::router()]).await;

        has_no_duplicates(&ledger, &rig, &receiver).await;
        let mut routed = 0.0;
        for router in &routers {
            routed += router.metric("tidings_router_events_total", "").await;
        }
        assert_eq!(routed, 20.0, "what was routed before is not routed again");
    }
}

#[tokio::test]
async fn a_router_without_a_record_waits_for_the_operator() {
    let (mut rig, receiver, mut roles) = start().await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles.ingest, messages("before"))
        .await;
    rig.drained().await;
    for damage_state in [TRUNCATED, EMPTY] {
        let routed = receiver.count() as u64;
        roles.router.terminate().await;
        let jetstream = rig.jetstream().await;
        jetstream.delete_key_value("consumers").await.unwrap();
        damage(&mut rig, EVENTS, "router", damage_state).await;
        roles.router.respawn();

        roles
            .router
            .is_not_ready("pull router", "tidings streams recreate-consumer")
            .await;
        roles.router.logs("consumer-position-unknown").await;
        ledger
            .post_until_accepted(&roles.ingest, messages(&format!("meanwhile {routed}")))
            .await;
        assert_eq!(
            roles.router.metric("tidings_router_events_total", "").await,
            0.0,
            "the router does not begin anywhere"
        );

        recreate_consumer(&rig, &["--from-sequence", &(routed + 1).to_string()]).await;

        roles.router.ready().await;
        has_no_duplicates(&ledger, &rig, &receiver).await;
        is_recorded(&rig, routed + 20).await;
    }
}

#[tokio::test]
async fn ingest_rejects_events_before_a_router_without_a_position_loses_some() {
    let (mut rig, receiver, mut roles) = start().await;
    let mut ledger = Ledger::default();
    let large = |number: u32| format!("{number} {}", "x".repeat(100_000));
    ledger
        .post_until_accepted(&roles.ingest, (0..20).map(large))
        .await;
    rig.drained().await;
    roles.router.terminate().await;
    let jetstream = rig.jetstream().await;
    jetstream.delete_key_value("consumers").await.unwrap();
    let events = jetstream.get_stream(EVENTS).await.unwrap();
    let mut config = events.cached_info().config.clone();
    // What is stored takes more than four fifths of it.
    config.max_bytes = 2_400_000;
    jetstream.update_stream(config).await.unwrap();
    damage(&mut rig, EVENTS, "router", EMPTY).await;

    // It may accept one before it samples the consumer again.
    eventually("ingest rejects events", async || {
        ledger.post(&roles.ingest, "one more").await;
        let response = roles.ingest.post(&tidings_rig::event("one more")).await;
        (response.ok()?.code() == "router-behind").then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 20);

    // What was rejected is not stored.
    recreate_consumer(&rig, &["--from-sequence", "21"]).await;
    roles.router.restart().await;
    ledger
        .post_until_accepted(&roles.ingest, ["the router has a position".to_owned()])
        .await;
    has_no_duplicates(&ledger, &rig, &receiver).await;
}

#[tokio::test]
async fn an_operator_recreates_the_consumer_at_a_time() {
    let (rig, receiver, roles) = start().await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles.ingest, messages("before"))
        .await;
    rig.drained().await;
    let events = rig.jetstream().await.get_stream(EVENTS).await.unwrap();
    let tenth = events.get_raw_message(10).await.unwrap();
    let time = jiff::Timestamp::from_nanosecond(tenth.time.unix_timestamp_nanos()).unwrap();

    recreate_consumer(&rig, &["--from-time", &time.to_string()]).await;

    eventually(
        "the events from that time on are routed again",
        async || {
            let routed = roles.router.metric("tidings_router_events_total", "").await;
            (routed == 31.0).then_some(())
        },
    )
    .await;
    is_recorded(&rig, 20).await;
    rig.drained().await;
    assert_eq!(receiver.count(), 20, "their deliveries are known");
}

#[tokio::test]
async fn a_worker_whose_state_is_damaged_delivers_everything_that_is_stored() {
    for damage_state in [TRUNCATED, FLIPPED, EMPTY] {
        let (mut rig, receiver, mut roles) = start().await;
        let mut ledger = Ledger::default();
        ledger
            .post_until_accepted(&roles.ingest, messages("before"))
            .await;
        rig.drained().await;
        roles.worker.terminate().await;
        ledger
            .post_until_accepted(&roles.ingest, messages("meanwhile"))
            .await;
        rig.routed().await;

        damage(&mut rig, "DELIVERIES", "default-generic", damage_state).await;
        roles.worker.restart().await;

        has_no_duplicates(&ledger, &rig, &receiver).await;
        rig.routed().await;
    }
}

#[tokio::test]
async fn workers_in_the_middle_of_their_work_recreate_a_damaged_consumer_once() {
    let (mut rig, receiver, roles) = start().await;
    receiver.answer_with(Reply::Status(503));
    let another = rig.run(Role::worker()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles.ingest, messages("waiting"))
        .await;
    receiver.receives(10).await;

    damage(&mut rig, "DELIVERIES", "default-generic", TRUNCATED).await;
    eventually("one worker recreates the consumer", async || {
        let recreated =
            [&roles.worker, &another].map(|worker| worker.log_events("consumer-recreated").len());
        (recreated.iter().sum::<usize>() == 1).then_some(())
    })
    .await;
    receiver.answer_with(Reply::Status(200));

    ledger.balanced(&rig, &receiver).await;
}
