//! Several replicas of a role, and several clusters.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::Message as _;
use tidings_core::wire::Cluster;
use tidings_rig::{Ledger, Process, Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

struct Fleet {
    ingest: Process,
    routers: [Process; 2],
    workers: [Process; 2],
}

/// Starts one ingest, two routers and two workers.
async fn fleet(rig: &Rig) -> Fleet {
    let [first_router, first_worker, ingest] = [
        rig.spawn(Role::router()),
        rig.spawn(Role::worker()),
        rig.spawn(Role::ingest()),
    ];
    let fleet = Fleet {
        ingest,
        routers: [first_router, rig.spawn(Role::router())],
        workers: [first_worker, rig.spawn(Role::worker())],
    };
    for process in [&fleet.ingest]
        .into_iter()
        .chain(&fleet.routers)
        .chain(&fleet.workers)
    {
        process.ready().await;
    }
    fleet
}

#[tokio::test]
async fn two_routers_and_two_workers_deliver_each_event_once() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let fleet = fleet(&rig).await;
    let mut ledger = Ledger::default();

    for number in 0..500 {
        ledger.post(&fleet.ingest, &format!("event {number}")).await;
    }

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(balance.received.len(), 500);
    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
}

#[tokio::test]
async fn a_third_router_and_worker_start_and_stop_without_loss() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let fleet = fleet(&rig).await;
    let mut ledger = Ledger::default();
    let batch = |name: &str| {
        (0..150)
            .map(|number| format!("{name} {number}"))
            .collect::<Vec<_>>()
    };

    ledger
        .post_until_accepted(&fleet.ingest, batch("before"))
        .await;
    let mut router = rig.run(Role::router()).await;
    let mut worker = rig.run(Role::worker()).await;
    ledger
        .post_until_accepted(&fleet.ingest, batch("with a third"))
        .await;
    assert!(router.terminate().await.success());
    assert!(worker.terminate().await.success());
    ledger
        .post_until_accepted(&fleet.ingest, batch("after"))
        .await;

    let balance = ledger.balanced(&rig, &receiver).await;
    assert_eq!(balance.received.len(), 450);
    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn the_same_event_of_two_clusters_is_two_events() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let hub = rig.run(Role::up().args(["--cluster", "hub"])).await;
    let member = rig.run(Role::ingest().args(["--cluster", "member"])).await;

    assert_eq!(hub.post(&event("same words")).await.unwrap().status, 202);
    assert_eq!(member.post(&event("same words")).await.unwrap().status, 202);

    let received = receiver.receives(2).await;
    let mut deliveries = BTreeMap::new();
    for request in &received {
        *deliveries
            .entry(
                request
                    .header("idempotency-key")
                    .expect("a generic provider receives the key"),
            )
            .or_insert(0) += 1;
    }
    assert_eq!(deliveries.len(), 2, "two deliveries: {deliveries:?}");
    let events = rig
        .jetstream()
        .await
        .get_stream("EVENTS")
        .await
        .expect("the stream exists");
    for cluster in ["hub", "member"] {
        let subject = format!("events.{cluster}.apps.Kustomization.info");
        events
            .get_last_raw_message_by_subject(&subject)
            .await
            .unwrap_or_else(|error| panic!("{subject}: {error}"));
    }
}

#[tokio::test]
async fn a_cluster_beyond_its_quota_is_refused_and_others_are_not() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let hub = rig.run(Role::up().args(["--cluster", "hub"])).await;
    let storm = rig.run(Role::ingest().args(["--cluster", "storm"])).await;
    let limited = Cluster {
        name: "storm".into(),
        events_per_second: 1,
        ..Cluster::default()
    };
    let clusters = rig.jetstream().await.get_key_value("clusters").await;
    let clusters = clusters.expect("the bucket exists");
    let put = clusters.put("storm", limited.encode_to_vec().into()).await;
    put.expect("the bucket takes a record");
    eventually("ingest knows the quota", async || {
        (!storm.log_events("quota-changed").is_empty()).then_some(())
    })
    .await;

    let mut refused = 0;
    let mut accepted = Vec::new();
    for number in 0..200 {
        let message = format!("storm {number}");
        let response = storm.post(&event(&message)).await.unwrap();
        match response.status {
            202 => accepted.push(message),
            status => {
                assert_eq!(status, 503);
                assert_eq!(response.code(), "quota-exceeded");
                refused += 1;
            }
        }
        let message = format!("hub {number}");
        assert_eq!(hub.post(&event(&message)).await.unwrap().status, 202);
        accepted.push(message);
    }

    assert!(refused > 100, "{refused}");
    receiver.receives(accepted.len()).await;
    // A bucket that was deleted, and that the roles recreated, ends no quota.
    let jetstream = rig.jetstream().await;
    jetstream.delete_stream("KV_clusters").await.unwrap();
    eventually("the bucket is there again", async || {
        jetstream.get_stream("KV_clusters").await.ok()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let codes = (0..30).map(async |number: usize| {
        storm
            .post(&event(&format!("later {number}")))
            .await
            .unwrap()
            .code()
    });
    let codes = futures::future::join_all(codes).await;
    assert!(codes.contains(&"quota-exceeded".to_owned()), "{codes:?}");
    let put = clusters.put("storm", limited.encode_to_vec().into()).await;
    put.expect("the bucket takes a record");
    clusters
        .purge("storm")
        .await
        .expect("the record is removed");
    eventually("ingest knows that there is no quota", async || {
        (storm.log_events("quota-changed").len() == 2).then_some(())
    })
    .await;
    for number in 0..30 {
        let message = format!("calm {number}");
        assert_eq!(storm.post(&event(&message)).await.unwrap().status, 202);
    }
}
