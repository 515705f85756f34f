//! A server whose storage is nearly, or wholly, used up.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Config;
use tidings_core::bus::streams::{DELIVERIES, EVENTS};
use tidings_rig::{Ledger, Process, Receiver, Reply, Rig, Role, alert, eventually, provider};

use crate::TIDINGS;

const ROOM: usize = 32 << 20;

async fn rig() -> (Rig, Receiver) {
    let account =
        format!("jetstream: {{ max_file: {ROOM} }}, users: [ {{ user: all, password: all }} ]");
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

/// Somebody else's stream on the same account.
const OTHERS: &str = "OTHERS";

/// Fills the storage up to this part of it; with 1.0 until nothing more goes in.
async fn fill(jetstream: &Context, part: f64) {
    let filling = vec![b'x'; 64 << 10];
    let config = Config {
        name: OTHERS.to_owned(),
        ..Config::default()
    };
    jetstream
        .create_stream(config)
        .await
        .expect("it can be made");
    loop {
        let used = jetstream
            .query_account()
            .await
            .expect("the server answers")
            .storage as f64;
        if part < 1.0 && used >= part * ROOM as f64 {
            return;
        }
        let stored = jetstream
            .publish(OTHERS, filling.clone().into())
            .await
            .expect("it is sent")
            .await;
        if let Err(error) = stored {
            assert!(
                part >= 1.0 && error.to_string().contains("resource"),
                "{error}"
            );
            return;
        }
    }
}

async fn empty(jetstream: &Context) {
    jetstream
        .get_stream(OTHERS)
        .await
        .expect("it is there")
        .purge()
        .await
        .expect("it can be emptied");
}

async fn messages(jetstream: &Context, stream: &str) -> u64 {
    jetstream
        .get_stream(stream)
        .await
        .expect("it is there")
        .cached_info()
        .state
        .messages
}

async fn knows_how_full_it_is(process: &Process, part: f64) {
    eventually(
        &format!("it is seen that more than {part} is used"),
        async || (process.metric("tidings_bus_storage_used_ratio", "").await > part).then_some(()),
    )
    .await;
}

#[tokio::test]
async fn above_nine_tenths_the_router_plans_nothing_and_goes_on_when_there_is_room_again() {
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

    knows_how_full_it_is(&router, 0.9).await;
    // Ready means that it has begun to pull, or not to.
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
async fn with_no_room_left_ingest_refuses_and_workers_deliver_all_that_waits() {
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
    eventually("all are planned", async || {
        (messages(&jetstream, DELIVERIES).await == 100).then_some(())
    })
    .await;
    fill(&jetstream, 1.0).await;
    knows_how_full_it_is(&ingest, 0.8).await;

    worker.restart().await;

    for message in ledger.accepted() {
        receiver.accepts(message).await;
    }
    rig.drained().await;
    assert_eq!(receiver.count(), 100, "each has come once");
    let refused = ingest
        .post(&tidings_rig::event("there is no room for it"))
        .await
        .expect("ingest answers");
    assert_eq!(refused.status, 503);
    empty(&jetstream).await;
    ledger
        .post_until_accepted(&ingest, ["there is room again".to_owned()])
        .await;
    receiver.accepts("there is room again").await;
}

#[tokio::test]
async fn with_no_room_left_what_is_parked_comes_all_the_same() {
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
    knows_how_full_it_is(&ingest, 0.8).await;

    receiver.answer_with(Reply::Status(200));
    let balance = ledger.balanced(&rig, &receiver).await;

    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
    assert!(rig.dead_letters().await.is_empty());
}
