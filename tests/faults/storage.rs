//! A nats-server whose storage is nearly or completely full.

use std::error::Error;

use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context, ErrorCode};
use tidings_core::bus::streams::{DELIVERIES, EVENTS};
use tidings_rig::{Ledger, Process, Receiver, Reply, Rig, Role, alert, eventually, provider};

use crate::TIDINGS;

const STORAGE: usize = 32 << 20;

async fn rig() -> (Rig, Receiver) {
    let account =
        format!("jetstream: {{ max_file: {STORAGE} }}, users: [ {{ user: all, password: all }} ]");
    let rig = Rig::start_with(TIDINGS, |_| {
        format!("accounts {{ A {{ {account} }} }}\nno_auth_user: all")
    })
    .await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    (rig, receiver)
}

/// A stream of another application in the same account.
const OTHER: &str = "OTHER";

/// Fills this part of the storage; with 1.0 until the server rejects messages.
async fn fill(jetstream: &Context, part: f64) {
    let filling = vec![b'x'; 64 << 10];
    let config = Config {
        name: OTHER.to_owned(),
        ..Config::default()
    };
    jetstream
        .create_stream(config)
        .await
        .expect("the stream can be created");
    loop {
        let used = jetstream
            .query_account()
            .await
            .expect("the server responds")
            .storage as f64;
        if part < 1.0 && used >= part * STORAGE as f64 {
            return;
        }
        let stored = jetstream
            .publish(OTHER, filling.clone().into())
            .await
            .expect("the message is sent")
            .await;
        if let Err(error) = stored {
            assert!(part >= 1.0 && is_storage_full(&error), "{error}");
            return;
        }
    }
}

fn is_storage_full(error: &PublishError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &jetstream::Error| {
        [
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ]
        .contains(&cause.error_code())
    })
}

async fn empty(jetstream: &Context) {
    jetstream
        .get_stream(OTHER)
        .await
        .expect("it exists")
        .purge()
        .await
        .expect("the stream can be purged");
}

async fn messages(jetstream: &Context, stream: &str) -> u64 {
    jetstream
        .get_stream(stream)
        .await
        .expect("it exists")
        .cached_info()
        .state
        .messages
}

async fn reports_usage_above(process: &Process, part: f64) {
    eventually(&format!("usage above {part} is reported"), async || {
        (process.metric("tidings_bus_storage_used_ratio", "").await > part).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_storage_is_90_percent_full_the_router_plans_nothing() {
    let (rig, receiver) = rig().await;
    let _worker = rig.run(Role::worker()).await;
    let ingest = rig.run(Role::ingest()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&ingest, (0..10).map(|number| number.to_string()))
        .await;
    let jetstream = rig.jetstream().await;
    fill(&jetstream, 0.92).await;

    let router = rig.run(Role::router()).await;

    reports_usage_above(&router, 0.9).await;
    // A ready router has decided whether it pulls.
    assert_eq!(router.metric("tidings_router_events_total", "").await, 0.0);
    assert_eq!(
        (
            messages(&jetstream, EVENTS).await,
            messages(&jetstream, DELIVERIES).await
        ),
        (10, 0)
    );

    empty(&jetstream).await;
    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
}

#[tokio::test]
async fn with_full_storage_ingest_rejects_events_and_workers_deliver() {
    let (rig, receiver) = rig().await;
    let mut worker = rig.run(Role::worker()).await;
    worker.terminate().await;
    let ingest = rig.run(Role::ingest()).await;
    let _router = rig.run(Role::router()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&ingest, (0..100).map(|number| number.to_string()))
        .await;
    let jetstream = rig.jetstream().await;
    eventually("all deliveries are planned", async || {
        (messages(&jetstream, DELIVERIES).await == 100).then_some(())
    })
    .await;
    fill(&jetstream, 1.0).await;
    reports_usage_above(&ingest, 0.8).await;

    worker.restart().await;

    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
    rig.drained().await;
    assert_eq!(receiver.count(), 100, "each event is received once");
    let rejected = ingest
        .post(&tidings_rig::event("rejected"))
        .await
        .expect("ingest responds");
    assert_eq!(
        (rejected.status, rejected.code().as_str()),
        (503, "storage-full")
    );
    empty(&jetstream).await;
    ledger
        .post_until_accepted(&ingest, ["there is storage again".to_owned()])
        .await;
    receiver.accepts("there is storage again").await;
}

#[tokio::test]
async fn with_full_storage_parked_deliveries_are_delivered() {
    let (rig, receiver) = rig().await;
    receiver.answer_with(Reply::Status(503));
    let _worker = rig.run(Role::worker()).await;
    let ingest = rig.run(Role::ingest()).await;
    let _router = rig.run(Role::router()).await;
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&ingest, (0..100).map(|number| number.to_string()))
        .await;
    receiver.receives(10).await;
    let jetstream = rig.jetstream().await;
    fill(&jetstream, 1.0).await;
    reports_usage_above(&ingest, 0.8).await;

    receiver.answer_with(Reply::Status(200));
    let balance = ledger.balanced(&rig, &receiver).await;

    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
    assert!(rig.dead_letters().await.is_empty());
}
