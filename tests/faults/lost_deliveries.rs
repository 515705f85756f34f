//! Deliveries that are gone from DELIVERIES without an acknowledgement: purged by another client,
//! or cut off by the server with a damaged block.

use std::fs;
use std::time::Duration;

use async_nats::jetstream::consumer::{FromConsumer, pull};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tidings_rig::{
    Forge, Ledger, Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually,
    eventually_within, provider,
};

use crate::TIDINGS;

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

/// A Provider whose failed deliveries stay parked during a test.
fn patient(receiver: &Receiver) -> Manifest {
    provider("hook", receiver.url()).with("retry", json!({"min": "1h", "max": "2h"}))
}

/// The losses that a process shows.
async fn lost(process: &Process, from: &str) -> f64 {
    let labels = format!("from=\"{from}\"");
    process
        .metric("tidings_deliveries_lost_total", &labels)
        .await
}

async fn shows_lost(process: &Process, from: &str, count: f64) {
    let what = format!("{count} lost deliveries are counted");
    eventually(&what, async || {
        (lost(process, from).await >= count).then_some(())
    })
    .await;
    assert_eq!(lost(process, from).await, count, "{from}");
}

/// How many messages DELIVERIES holds with these subjects.
async fn stored(rig: &Rig, filter: &str) -> u64 {
    let stream = rig.jetstream().await.get_stream("DELIVERIES").await;
    let stream = stream.expect("the roles created the stream");
    let subjects = stream.info_with_subjects(filter).await;
    let subjects = subjects.expect("the server reports a stream's state");
    let counts: Vec<(String, usize)> = subjects.try_collect().await.expect("it has subjects");
    counts.iter().map(|(_, count)| *count as u64).sum()
}

async fn are_stored(rig: &Rig, filter: &str, count: u64) {
    eventually(&format!("{count} of {filter} are stored"), async || {
        (stored(rig, filter).await == count).then_some(())
    })
    .await;
}

/// Waits until the last reading that is kept has seen everything.
async fn is_recorded(rig: &Rig, messages: u64) {
    eventually("the counts are recorded", async || {
        (rig.recorded_counts().await?.messages == messages).then_some(())
    })
    .await;
}

async fn purge(rig: &Rig, filter: &str) {
    let stream = rig.jetstream().await.get_stream("DELIVERIES").await;
    let stream = stream.expect("the roles created the stream");
    let purged = stream.purge().filter(filter).await;
    purged.expect("the server purges");
}

#[tokio::test]
async fn deliveries_that_another_client_purges_are_counted_exactly_by_every_process() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([patient(&receiver), alert("all", "hook")]);
    let [router, mut worker, ingest] = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;
    let mut ledger = Ledger::default();
    let posts = |name: &'static str| (0..30).map(move |number| format!("{name} {number}"));
    ledger.post_until_accepted(&ingest, posts("parked")).await;
    are_stored(&rig, "parked.>", 30).await;
    is_recorded(&rig, 30).await;

    purge(&rig, "parked.>").await;

    for process in [&router, &worker] {
        shows_lost(process, "parked", 30.0).await;
        assert_eq!(lost(process, "ready").await, 0.0);
    }
    worker.terminate().await;
    ledger.post_until_accepted(&ingest, posts("ready")).await;
    are_stored(&rig, "deliveries.>", 30).await;
    is_recorded(&rig, 30).await;

    purge(&rig, "deliveries.>").await;

    shows_lost(&router, "ready", 30.0).await;
    assert_eq!(lost(&router, "parked").await, 30.0);
    let reported: usize = router.log_events("deliveries-lost").len();
    assert!(reported <= 2, "a loss is logged once, by one process");
    rig.expects_losses("two purges");
}

#[tokio::test]
async fn most_of_a_loss_is_counted_while_other_deliveries_are_made() {
    let rig = Rig::start(TIDINGS).await;
    let [parked, healthy] = [Receiver::start().await, Receiver::start().await];
    parked.answer_with(Reply::Status(503));
    let other = provider("other", healthy.url());
    rig.rules().put([
        patient(&parked),
        other,
        alert("all", "hook").with("inclusionList", ["^parked "]),
        alert("others", "other").with("exclusionList", ["^parked "]),
    ]);
    let [router, _worker, ingest] = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;
    let mut ledger = Ledger::default();
    let posts = (0..300).map(|number| format!("parked {number}"));
    ledger.post_until_accepted(&ingest, posts).await;
    are_stored(&rig, "parked.>", 300).await;
    is_recorded(&rig, 300).await;

    let load = async {
        for number in 0..600 {
            let _ = ingest.post(&event(&format!("other {number}"))).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        purge(&rig, "parked.>").await;
        eventually("most of the loss is counted", async || {
            (lost(&router, "parked").await >= 150.0).then_some(())
        })
        .await;
    };
    tokio::join!(load, found);
    rig.expects_losses("a purge");
}

#[tokio::test]
async fn deliveries_that_a_damaged_block_takes_along_are_counted_after_the_restart() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([patient(&receiver), alert("all", "hook")]);
    let mut up = rig.run(Role::up()).await;
    let mut ledger = Ledger::default();
    let posts = (0..100).map(|number| number.to_string());
    ledger.post_until_accepted(&up, posts).await;
    are_stored(&rig, "parked.>", 100).await;
    is_recorded(&rig, 100).await;

    rig.nats().kill().await;
    up.kill().await;
    flip_bits(&rig);
    rig.nats().restart().await;
    let left = stored(&rig, ">").await;
    assert!(left < 100, "the server cuts off what follows the damage");
    up.restart().await;

    shows_lost(&up, "parked", 100.0 - left as f64).await;
    up.logs("deliveries-lost").await;
    rig.leaves_deliveries(left, "they are parked for an hour");
    rig.expects_losses("a damaged block");
}

#[tokio::test]
async fn deliveries_that_a_consumer_has_passed_are_counted_and_arrive_once_it_is_deleted() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let [router, mut worker, ingest] = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;
    worker.terminate().await;
    let mut ledger = Ledger::default();
    let posts = (0..5).map(|number| number.to_string());
    ledger.post_until_accepted(&ingest, posts).await;
    are_stored(&rig, "deliveries.>", 5).await;
    let stream = rig.jetstream().await.get_stream("DELIVERIES").await;
    let stream = stream.expect("the roles created the stream");
    let consumer = "default-generic";
    let info = stream.consumer_info(consumer).await.expect("it exists");
    let mut once = pull::Config::try_from_consumer_config(info.config).expect("it pulls");
    // The server gives up what is not acknowledged.
    (once.max_deliver, once.ack_wait) = (1, Duration::from_secs(1));
    let once = stream.update_consumer(once).await;
    let once = once.expect("the server accepts it");
    let batch = once.fetch().max_messages(5).messages().await;
    let batch = batch.expect("the server answers");
    let delivered: Vec<_> = batch.try_collect().await.expect("they are delivered");
    assert_eq!(delivered.len(), 5);

    shows_lost(&router, "skipped", 5.0).await;
    router.logs("deliveries-skipped").await;
    let deleted = stream.delete_consumer(consumer).await;
    deleted.expect("it exists");
    worker.restart().await;
    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.duplicates().is_empty());
    assert_eq!(lost(&worker, "ready").await, 0.0);
    rig.expects_losses("a consumer that gave up messages");
}

/// Damages the block that holds the messages of DELIVERIES, in its middle.
fn flip_bits(rig: &Rig) {
    let folder = rig
        .folder()
        .join("jetstream/jetstream/$G/streams/DELIVERIES/msgs");
    let files = fs::read_dir(&folder).expect("the store has the folder");
    let blocks = files.map(|file| file.expect("it can be listed").path());
    let block = blocks
        .filter(|path| path.extension().is_some_and(|extension| extension == "blk"))
        .max_by_key(|path| fs::metadata(path).expect("it can be read").len())
        .expect("the stream has a block");
    let mut bytes = fs::read(&block).expect("it can be read");
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 16] {
        *byte ^= 0xff;
    }
    fs::write(&block, bytes).expect("it can be written");
}

/// An event about a commit, for a Provider that keeps the newest state.
fn reconciled(second: u32) -> Value {
    let mut event = event(&format!("reconciled at {second}"));
    event["timestamp"] = format!("2026-01-02T03:00:{second:02}Z").into();
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
    if second.is_multiple_of(2) {
        event["severity"] = "error".into();
        event["reason"] = "HealthCheckFailed".into();
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_replaced_parked_messages_moves_and_wake_ups_are_no_losses() {
    let mut rig = Rig::start(TIDINGS).await;
    let (forge, receiver, moved) = (
        Forge::start().await,
        Receiver::start().await,
        Receiver::start().await,
    );
    Forge::put_secret(rig.rules());
    receiver.answer_with(Reply::Status(503));
    moved.answer_with(Reply::Status(503));
    rig.rules().put([
        forge.provider("github"),
        alert("commits", "forge"),
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    rig.rules().put([
        provider("moved", moved.url()).that_retries_soon(),
        alert("to-moved", "moved"),
    ]);
    let [mut router, mut worker, other, ingest] = rig
        .run_all([
            Role::router(),
            Role::worker(),
            Role::worker(),
            Role::ingest(),
        ])
        .await;
    let mut posted = 0;
    for round in 0..3 {
        for second in 0..12 {
            let status = ingest.post(&reconciled(round * 12 + second)).await;
            posted += usize::from(status.is_ok_and(|answer| answer.status == 202));
        }
        match round {
            0 => {
                worker.kill().await;
                worker.restart().await;
            }
            1 => {
                rig.rules().put([provider("moved", moved.url())
                    .with("type", "slack")
                    .that_retries_soon()]);
                router.kill().await;
                router.restart().await;
            }
            _ => {
                rig.nats().kill().await;
                rig.nats().restart().await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    receiver.answer_with(Reply::Status(200));
    moved.answer_with(Reply::Status(200));
    eventually_within(
        Duration::from_secs(120),
        "every delivery has ended",
        async || (posted > 0 && stored(&rig, ">").await == 0).then_some(()),
    )
    .await;
    is_recorded(&rig, 0).await;

    for process in [&router, &worker, &other] {
        for from in ["ready", "parked", "skipped"] {
            assert_eq!(lost(process, from).await, 0.0, "{from}");
        }
    }
}
