//! A cluster whose events wait, and the events of others behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use futures::StreamExt as _;
use tidings_core::wire::{Cluster, Delivery};
use tidings_core::{Message as _, bus::streams};
use tidings_rig::{
    Cable, Manifest, Process, Receiver, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;
use crate::extensions::bus;

const ALERTS: usize = 20;
const STORM: usize = 600;
const CALM: usize = 5;

async fn post_all(ingest: &Process, name: &str, events: usize) {
    let posts = (0..events).map(async |number| {
        let response = ingest.post(&event(&format!("{name} {number}"))).await;
        assert_eq!(response.expect("ingest answers").status, 202);
    });
    let posts = futures::stream::iter(posts).buffer_unordered(16);
    posts.collect::<Vec<_>>().await;
}

/// Stores events of a storm, and behind them those of a calm cluster. Starts no router.
async fn backlog(rig: &Rig, receiver: &Receiver) {
    let alerts: [Manifest; ALERTS] =
        std::array::from_fn(|number| alert(&format!("alert-{number}"), "hook"));
    rig.rules().put(alerts);
    let _calm = backlog_of(rig, receiver, STORM).await;
}

/// The same with a storm of this many events, for the Alerts that are there. Returns the ingest of
/// the calm cluster.
async fn backlog_of(rig: &Rig, receiver: &Receiver, events: usize) -> Process {
    rig.rules().put([provider("hook", receiver.url())]);
    let mut hub = rig.run(Role::router()).await;
    assert!(hub.terminate().await.success());
    let clusters = rig.jetstream().await.get_key_value(streams::CLUSTERS).await;
    let clusters = clusters.expect("the bucket exists");
    for name in ["storm", "calm"] {
        let cluster = Cluster {
            name: name.into(),
            ..Cluster::default()
        };
        let put = clusters.put(name, cluster.encode_to_vec().into()).await;
        put.expect("the bucket takes a record");
    }
    let storm = rig.run(Role::ingest().args(["--cluster", "storm"])).await;
    let calm = rig.run(Role::ingest().args(["--cluster", "calm"])).await;
    post_all(&storm, "storm", events).await;
    post_all(&calm, "calm", CALM).await;
    // What waited for two seconds is a backlog.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    calm
}

async fn slow_cable(rig: &Rig) -> Cable {
    Cable::slow(rig.url(), Duration::from_millis(2)).await
}

/// A router that needs milliseconds for each event.
fn router(cable: &Cable) -> Role {
    Role::router()
        .over(cable)
        .env("TIDINGS_ROUTER__CONCURRENCY", "1")
}

/// The deliveries of each cluster by their sequence.
async fn deliveries(rig: &Rig) -> BTreeMap<String, Vec<u64>> {
    let stream = rig.jetstream().await.get_stream("DELIVERIES").await;
    let mut stream = stream.expect("the stream exists");
    let last = stream.info().await.expect("the state").state.last_sequence;
    let mut by_cluster = BTreeMap::<String, Vec<u64>>::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.expect("it");
        let delivery = Delivery::decode(message.payload).expect("a delivery");
        let cluster = delivery.event.expect("an event").cluster;
        by_cluster.entry(cluster).or_default().push(sequence);
    }
    by_cluster
}

async fn ends(rig: &Rig) {
    let events = rig.jetstream().await.get_stream("EVENTS").await;
    let events = events.expect("the stream exists");
    eventually("the second consumer is deleted", async || {
        events
            .consumer_info(streams::AHEAD)
            .await
            .is_err()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_of_other_clusters_are_routed_ahead_of_the_backlog_of_one_and_only_once() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.leaves_deliveries((STORM * ALERTS + CALM * ALERTS) as u64, "no worker runs");
    backlog(&rig, &receiver).await;
    let cable = slow_cable(&rig).await;

    let routers = rig.run_all([router(&cable), router(&cable)]).await;

    rig.routed().await;
    ends(&rig).await;
    let by_cluster = deliveries(&rig).await;
    assert_eq!(by_cluster["storm"].len(), STORM * ALERTS);
    let calm = &by_cluster["calm"];
    assert_eq!(calm.len(), CALM * ALERTS);
    let last_of_calm = usize::try_from(calm[calm.len() - 1]).unwrap();
    assert!(
        last_of_calm < STORM * ALERTS,
        "the last delivery of the calm cluster is number {last_of_calm}"
    );
    let causes: BTreeSet<_> = routers
        .iter()
        .flat_map(|router| router.log_events("routing-ahead"))
        .map(|event| event.field("causes"))
        .collect();
    assert_eq!(causes, ["storm".to_owned()].into());
}

#[tokio::test]
async fn a_killed_router_loses_nothing_that_is_routed_ahead() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    backlog(&rig, &receiver).await;
    let cable = slow_cable(&rig).await;

    let mut router = rig.run(router(&cable)).await;
    router.logs("routing-ahead").await;
    router.kill().await;
    router.restart().await;
    let _worker = rig.run(Role::worker()).await;

    rig.routed().await;
    ends(&rig).await;
    rig.drained().await;
    let received = receiver.received();
    let keys: BTreeSet<_> = received
        .iter()
        .map(|request| request.header("idempotency-key"))
        .collect();
    assert_eq!(keys.len(), (STORM + CALM) * ALERTS);
    assert_eq!(received.len(), keys.len(), "nothing is delivered twice");
}

#[tokio::test]
async fn a_router_that_starts_skips_what_another_one_routed_ahead() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut earlier = rig.run(Role::router()).await;
    assert!(earlier.terminate().await.success());
    let calm = rig.run(Role::ingest().args(["--cluster", "calm"])).await;
    post_all(&calm, "calm", 1).await;
    // As another router does it, of which only what the server knows is left.
    let bus = bus(&rig).await;
    let created = bus.create_ahead(&["events.calm.>".to_owned()]).await;
    created.expect("the server creates the consumer");
    let events = rig.jetstream().await.get_stream("EVENTS").await;
    let events = events.expect("the stream exists");
    let ahead = events.get_consumer::<pull::Config>(streams::AHEAD).await;
    let ahead = ahead.expect("the consumer exists");
    let mut messages = ahead.messages().await.expect("it can be pulled from");
    let message = messages.next().await.expect("an event");
    let acknowledged = message.expect("an event").double_ack().await;
    acknowledged.expect("the server confirms");
    drop(messages);

    let _router = rig.run(Role::router()).await;

    rig.routed().await;
    ends(&rig).await;
    assert!(deliveries(&rig).await.is_empty());
}

#[tokio::test]
async fn a_cluster_without_a_backlog_does_not_wait_behind_one_that_has_one() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([alert("all", "hook")]);
    let calm = backlog_of(&rig, &receiver, 5 * STORM).await;
    let cable = slow_cable(&rig).await;
    let _worker = rig.run(Role::worker()).await;
    let mut slow = rig.run(router(&cable)).await;
    slow.logs("routing-ahead").await;

    post_all(&calm, "later", CALM).await;

    for number in 0..CALM {
        receiver.accepts(&format!("later {number}")).await;
    }
    let events = rig.jetstream().await.get_stream("EVENTS").await;
    let behind = events.expect("it exists").consumer_info("router").await;
    let behind = behind.expect("it exists").num_pending;
    assert!(
        behind > 0,
        "events of the storm, stored earlier, still wait"
    );
    assert!(slow.terminate().await.success());
    let _router = rig.run(Role::router()).await;
    rig.routed().await;
    ends(&rig).await;
    rig.drained().await;
    let received = receiver.received();
    let messages: BTreeSet<_> = received.iter().map(|it| it.message()).collect();
    assert_eq!(messages.len(), 5 * STORM + 2 * CALM);
    assert_eq!(received.len(), messages.len(), "nothing is delivered twice");
}
