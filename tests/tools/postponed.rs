//! Events that wait for the rules of their member, and the router that catches up with them.

use std::sync::Arc;

use serde_json::json;
use tidings_core::bus::Bus;
use tidings_core::bus::clusters::{ClusterRecords, Clusters};
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::postponed::PostponedEvents;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::{Cluster, PostponedEvent};
use tidings_core::{Delivery, Event, Message as _};
use tidings_rig::{Rig, Role, event, eventually};
use tidings_router::{CatchUp, CostlyPatterns, Router, RouterOptions};
use tidings_rules::live::LiveRules;
use tidings_rules::{Options, Rules, RulesOrigin, testing};
use tokio_util::sync::CancellationToken;

use crate::TIDINGS;
use crate::scaling::bus;

/// A hub with its streams, and two connections to the events that wait.
async fn hub() -> (Rig, [PostponedEvents; 2]) {
    let rig = Rig::start(TIDINGS).await;
    let roles = rig.run_all([Role::router(), Role::ingest()]).await;
    // The stream EVENTS holds one event of another cluster.
    assert_eq!(roles[1].post(&event("x")).await.unwrap().status, 202);
    rig.drained().await;
    drop(roles);
    let open = async || PostponedEvents::open(&bus(&rig).await).await.unwrap();
    let both = [open().await, open().await];
    (rig, both)
}

fn postponed(cluster: &str, sequence: u64, event_id: &str) -> PostponedEvent {
    PostponedEvent {
        cluster: cluster.to_owned(),
        sequence,
        event_id: event_id.to_owned(),
    }
}

/// Whether the bucket holds anything about postponed events, markers of deleted keys included.
async fn has_messages(rig: &Rig) -> bool {
    let stream = rig.jetstream().await.get_stream("KV_consumers").await;
    let all = "$KV.consumers.postponed.>";
    let last = stream.unwrap().get_last_raw_message_by_subject(all).await;
    last.is_ok()
}

fn router(
    bus: Bus,
    postponed: &PostponedEvents,
    rules: Rules,
    clusters: Clusters,
    metrics: Metrics,
) -> Arc<Router> {
    let options = RouterOptions {
        concurrency: 8,
        own_cluster: "hub".to_owned(),
        postponed: postponed.clone(),
        shadow: None,
    };
    let rules = Arc::new(LiveRules::new(rules));
    let costly = Arc::new(CostlyPatterns::default());
    Router::new(
        bus,
        rules,
        metrics,
        costly,
        LiveClusters::fixed(clusters),
        options,
    )
}

/// The cluster `prod-1`, which was `dev-1`.
fn renamed() -> Cluster {
    Cluster {
        name: "prod-1".into(),
        former_names: vec!["dev-1".into()],
        ..Cluster::default()
    }
}

#[tokio::test]
async fn a_removed_event_leaves_nothing_in_the_bucket_and_others_see_that_it_is_gone() {
    let (rig, [first, second]) = hub().await;
    first.add(&postponed("prod", 7, "a")).await.unwrap();
    assert!(has_messages(&rig).await);
    let seen = second.of("prod").await.unwrap();
    assert_eq!(seen.len(), 1);
    assert!(second.is_waiting(&seen[0]).await.unwrap());

    let waiting = first.of("prod").await.unwrap();
    first.remove(&waiting[0]).await.unwrap();

    assert!(!has_messages(&rig).await, "no marker is left");
    assert!(!second.is_waiting(&seen[0]).await.unwrap());
    assert!(second.of("prod").await.unwrap().is_empty());
}

#[tokio::test]
async fn an_event_of_a_recreated_stream_is_noted_beside_an_old_one_with_its_sequence() {
    let (_rig, [records, _]) = hub().await;
    for id in ["old", "new", "new"] {
        records.add(&postponed("prod", 7, id)).await.unwrap();
    }
    let waiting = records.of("prod").await.unwrap();
    let mut ids: Vec<_> = waiting
        .iter()
        .map(|waiting| &waiting.postponed.event_id)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["new", "old"]);
}

#[tokio::test]
async fn events_that_are_gone_are_counted_also_those_of_a_former_member() {
    let (rig, [records, _]) = hub().await;
    records.add(&postponed("prod", 98, "a")).await.unwrap();
    records.add(&postponed("former", 99, "b")).await.unwrap();
    let metrics = Metrics::default();
    let bus = bus(&rig).await;
    let rules = Rules::default();
    let router = router(bus, &records, rules, Clusters::default(), metrics.clone());
    let catch_up = CatchUp {
        router,
        postponed: records.clone(),
        members: vec!["prod".into()],
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(catch_up.run(stop.clone()));

    eventually("both are counted and removed", async || {
        let is_empty = records.all().await.unwrap().is_empty();
        (is_empty && metrics.router_postponed_gone_total.get() == 2).then_some(())
    })
    .await;
    assert!(!has_messages(&rig).await);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn events_that_are_gone_are_counted_without_a_member_too() {
    let (rig, [records, _]) = hub().await;
    records.add(&postponed("former", 99, "b")).await.unwrap();

    let router = rig.run(Role::router()).await;

    eventually("it is removed", async || {
        records.all().await.unwrap().is_empty().then_some(())
    })
    .await;
    router
        .counts("tidings_router_postponed_gone_total", "", 1.0)
        .await;
}

#[tokio::test]
async fn an_event_of_a_renamed_member_is_noted_under_the_name_of_the_source() {
    let (rig, [records, _]) = hub().await;
    let clusters = ClusterRecords::open(&bus(&rig).await).await.unwrap();
    assert!(clusters.store(&renamed(), None).await.unwrap());
    // Nothing answers at this address.
    let kubeconfig = rig.folder().join("dev-1.json");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "users": [{"name": "it", "user": {}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let source = format!("cluster=dev-1:{}", kubeconfig.display());
    let router = rig.run(Role::router().args(["--rules", &source])).await;
    let ingest = rig.run(Role::ingest().args(["--cluster", "prod-1"])).await;
    ingest.post(&event("of the member")).await.unwrap();
    rig.routed().await;

    let noted = eventually("the event is noted", async || {
        let noted = records.all().await.unwrap();
        (!noted.is_empty()).then_some(noted)
    })
    .await;
    let names: Vec<_> = noted.iter().map(|it| &it.postponed.cluster).collect();
    assert_eq!(names, ["dev-1"]);
    router
        .counts("tidings_router_events_postponed_total", "", 1.0)
        .await;
}

#[tokio::test]
async fn what_waits_under_a_former_name_is_matched_with_the_rules_of_the_member() {
    let rig = Rig::start(TIDINGS).await;
    let roles = rig.run_all([Role::router(), Role::worker()]).await;
    let ingest = rig.run(Role::ingest().args(["--cluster", "prod-1"])).await;
    ingest.post(&event("of the member")).await.unwrap();
    rig.drained().await;
    drop(roles);
    rig.leaves_deliveries(1, "no worker has the rules of the member");
    let bus = bus(&rig).await;
    let records = PostponedEvents::open(&bus).await.unwrap();
    let events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    let stored = events.get_raw_message(1).await.unwrap();
    let id = Event::decode(stored.payload).unwrap().id;
    records.add(&postponed("dev-1", 1, &id)).await.unwrap();
    let objects = [testing::alert("all", "hook").object()];
    let rules = Arc::new(Rules::compile(&objects, &[], &Options::default()));
    let of = |origin| rules.of_origin(&origin);
    let rules = [
        of(RulesOrigin::Hub),
        of(RulesOrigin::Member("prod-1".into())),
    ];
    let rules = Rules::merge(&rules, Default::default());
    let clusters = Clusters::from([("prod-1".to_owned(), renamed())]);
    let metrics = Metrics::default();
    let router = router(bus, &records, rules, clusters, metrics.clone());
    let catch_up = CatchUp {
        router,
        postponed: records.clone(),
        members: vec!["prod-1".into()],
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(catch_up.run(stop.clone()));

    eventually("it is matched", async || {
        records.all().await.unwrap().is_empty().then_some(())
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    let stream = rig.jetstream().await.get_stream("DELIVERIES").await;
    let mut stream = stream.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    assert_eq!(state.messages, 1);
    let stored = stream.get_raw_message(state.last_sequence).await.unwrap();
    let delivery = Delivery::decode(stored.payload).unwrap();
    assert_eq!(delivery.alert.unwrap().namespace, "prod-1:apps");
    assert_eq!(metrics.router_postponed_gone_total.get(), 0);
}
