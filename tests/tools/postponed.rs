//! Events that wait for the rules of their member, and the router that catches up with them.

use std::sync::Arc;

use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::bus::postponed::PostponedEvents;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::wire::PostponedEvent;
use tidings_rig::{Rig, Role, event, eventually};
use tidings_router::{CatchUp, CostlyPatterns, Router, RouterOptions};
use tidings_rules::Rules;
use tidings_rules::live::LiveRules;
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
    let options = RouterOptions {
        concurrency: 8,
        own_cluster: "hub".to_owned(),
        postponed: Some(records.clone()),
        shadow: None,
    };
    let router = Router::new(
        bus(&rig).await,
        Arc::new(LiveRules::new(Rules::default())),
        metrics.clone(),
        Arc::new(CostlyPatterns::default()),
        LiveClusters::fixed(Default::default()),
        options,
    );
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
