//! Several replicas of a role, and several clusters.

use std::collections::BTreeMap;

use tidings_rig::{Ledger, Process, Receiver, Rig, Role, alert, event, provider};

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
