//! Worker processes that write the same commit status at the same time.

use std::time::Duration;

use async_nats::jetstream::Context;
use futures::StreamExt;
use tidings_core::Message;
use tidings_core::wire::Record;
use tidings_rig::{Forge, Process, Rig, Role, alert, eventually};

use crate::states::{COMMIT, post_all, reconciled, rig};

/// Starts an ingest and a router.
async fn ingest_and_router(rig: &Rig) -> [Process; 2] {
    let (router, ingest) = (rig.spawn(Role::router()), rig.spawn(Role::ingest()));
    router.ready().await;
    ingest.ready().await;
    [ingest, router]
}

/// Keeps every revision of a record in the bucket, for [`changes`].
async fn keep_history(jetstream: &Context) {
    let mut config = jetstream
        .get_stream("KV_latest")
        .await
        .expect("the bucket exists")
        .cached_info()
        .config
        .clone();
    config.max_messages_per_subject = 100_000;
    jetstream
        .update_stream(&config)
        .await
        .expect("the bucket can be changed");
}

/// How often the desired state changed, over all records.
async fn changes(jetstream: &Context) -> usize {
    let mut stream = jetstream
        .get_stream("KV_latest")
        .await
        .expect("the bucket exists");
    let last = stream
        .info()
        .await
        .expect("the server reports a stream's state")
        .state
        .last_sequence;
    let mut states: Vec<Vec<u8>> = Vec::new();
    for sequence in 1..=last {
        let message = stream
            .get_raw_message(sequence)
            .await
            .expect("every revision is kept");
        let record = Record::decode(message.payload).expect("the bucket holds records");
        states.push(record.desired.expect("a record has a desired state").state);
    }
    states.dedup();
    states.len()
}

#[tokio::test]
async fn four_workers_leave_the_newest_state_of_two_hundred_events_in_any_order() {
    let (forge, rig) = (Forge::start().await, rig().await);
    forge.contents().slowest_response = Duration::from_millis(60);
    rig.rules()
        .put([forge.provider("github"), alert("commits", "forge")]);
    let [ingest, _router] = ingest_and_router(&rig).await;
    let _workers = [
        rig.run(Role::worker()).await,
        rig.run(Role::worker()).await,
        rig.run(Role::worker()).await,
        rig.run(Role::worker()).await,
    ];
    let jetstream = rig.jetstream().await;
    keep_history(&jetstream).await;

    // 77 and 200 have no common divisor, so every second occurs once. The newest state is a
    // failure.
    let seconds: Vec<u32> = (0..200).map(|step| step * 77 % 200).collect();
    let posts = futures::stream::iter(&seconds)
        .map(|second| post_all(&ingest, [reconciled(COMMIT, *second, second % 2 == 0)]));
    posts.buffer_unordered(16).collect::<Vec<()>>().await;
    rig.drained().await;

    let (states, changes) = (forge.states(), changes(&jetstream).await);
    println!(
        "{} writes and {} reads for {changes} changes among 200 events",
        states.len(),
        forge.contents().reads
    );
    assert_eq!(states.last().map(String::as_str), Some("failure"));
    assert!(
        states.len() <= changes,
        "{} writes for {changes} changes",
        states.len()
    );
    assert_eq!(forge.contents().reads, 1);
}

#[tokio::test]
async fn a_worker_that_hangs_while_a_newer_state_is_written_does_not_overwrite_it() {
    let (forge, rig) = (Forge::start().await, rig().await);
    rig.rules().put([
        forge.provider("github").with("timeout", "1s"),
        alert("commits", "forge"),
    ]);
    let [ingest, _router] = ingest_and_router(&rig).await;
    let frozen = rig.run(Role::worker()).await;
    forge.respond_to_writes(false);
    post_all(&ingest, [reconciled(COMMIT, 10, true)]).await;
    eventually("the forge has received the status", async || {
        (forge.states() == ["success"]).then_some(())
    })
    .await;

    frozen.freeze();
    let _other = rig.run(Role::worker()).await;
    forge.respond_to_writes(true);
    post_all(&ingest, [reconciled(COMMIT, 20, false)]).await;
    eventually("the newer state is written", async || {
        (forge.states().len() > 1).then_some(())
    })
    .await;
    frozen.thaw();

    eventually("the frozen worker holds no delivery", async || {
        (frozen
            .metric("tidings_worker_deliveries_in_flight", "")
            .await
            == 0.0)
            .then_some(())
    })
    .await;
    rig.drained().await;
    let states = forge.states();
    println!("the forge received {states:?}");
    assert_eq!(states.last().map(String::as_str), Some("failure"));
    assert!(
        states.len() <= 4,
        "two changes, one lost lease, one late response: {states:?}"
    );
}
