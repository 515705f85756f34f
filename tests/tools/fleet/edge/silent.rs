//! An edge that stopped with events: what the hub says of it.

use serde_json::Value;
use tidings_rig::eventually;

use super::{NAME, Site, numbered, post};

/// What a removal would change.
async fn planned(site: &Site) -> Value {
    let plan = ["remove", NAME, "--dry-run", "--output", "json"];
    site.fleet.run(&plan).await.json().swap_remove(0)
}

#[tokio::test]
async fn a_cluster_is_not_removed_while_its_edge_is_silent() {
    let site = Site::new().await;
    let [router, worker] = site.fleet.hub().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    site.stores(&post(&edge, numbered("event", 2)).await).await;
    eventually("the edge reports", async || {
        (planned(&site).await["heartbeats"].as_u64()? > 0).then_some(())
    })
    .await;
    drop(edge);
    let silent = eventually("the edge is silent", async || {
        let planned = planned(&site).await;
        let silent = planned["silentEdges"].as_array()?.clone();
        (!silent.is_empty()).then_some(silent)
    })
    .await;

    let host = silent[0].as_str().unwrap();
    let remove = ["remove", NAME, "--yes"];
    let refused = site.fleet.run(&remove).await;
    assert_ne!(refused.status, Some(0), "{refused:?}");
    for text in [NAME, host, "silent", "--discard-waiting"] {
        assert!(refused.stderr.contains(text), "{text}: {refused:?}");
    }
    assert_eq!(site.fleet.names().await, [NAME]);

    // It runs again, with the same folder.
    let mut edge = site.fleet.rig.run(site.edge()).await;
    eventually("the edge is not silent", async || {
        (planned(&site).await["silentEdges"] == serde_json::json!([])).then_some(())
    })
    .await;
    assert_eq!(planned(&site).await["heartbeats"], 1, "it is the same edge");
    edge.kill().await;
    let forced = [&remove[..], &["--discard-waiting"]].concat();
    let removed = site.fleet.run(&forced).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    assert_eq!(site.fleet.names().await, Vec::<String>::new());
    drop((router, worker));
}

#[tokio::test]
async fn a_cluster_is_not_removed_just_after_its_edge_lost_the_hub() {
    let site = Site::new().await;
    let hub = site.fleet.hub().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    site.stores(&post(&edge, numbered("event", 2)).await).await;
    eventually("the edge reports", async || {
        (planned(&site).await["heartbeats"].as_u64()? > 0).then_some(())
    })
    .await;
    site.cable.cut();
    post(&edge, numbered("kept", 1)).await;
    let planned = planned(&site).await;
    assert_eq!(
        planned["silentEdges"].as_array().unwrap().len(),
        1,
        "{planned}"
    );
    let refused = site.fleet.run(&["remove", NAME, "--yes"]).await;
    assert_ne!(refused.status, Some(0), "{refused:?}");
    assert_eq!(site.fleet.names().await, [NAME]);
    drop(hub);
}

#[tokio::test]
async fn routers_show_what_waits_on_edges() {
    let site = Site::new().await;
    let streams = site.fleet.streams().await;
    let router = site.router("5m").await;
    let mut edge = site.fleet.rig.run(site.edge()).await;
    site.stores(&post(&edge, numbered("event", 2)).await).await;
    let series = format!("cluster=\"{NAME}\"");
    let waiting = async || {
        router
            .metric("tidings_fleet_edge_events_waiting", &series)
            .await
    };
    eventually("the router shows an edge where nothing waits", async || {
        let metrics = router.metrics().await;
        let is_shown = metrics.contains("tidings_fleet_edge_events_waiting{");
        (is_shown && waiting().await == 0.0).then_some(())
    })
    .await;

    // The server of the hub refuses events, and takes reports.
    let mut events = streams.get_stream("EVENTS").await.unwrap();
    let former = events.info().await.unwrap().config.clone();
    let full = async_nats::jetstream::stream::Config {
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        max_messages: 2,
        ..former
    };
    streams.update_stream(&full).await.unwrap();
    post(&edge, numbered("kept", 3)).await;
    eventually("the router shows what waits", async || {
        (waiting().await == 3.0).then_some(())
    })
    .await;
    let oldest = "tidings_fleet_edge_oldest_waiting_seconds";
    assert!(router.metric(oldest, &series).await >= 0.0);

    // It stops by itself, and leaves word of what it holds.
    edge.terminate().await;
    assert_eq!(planned(&site).await["edgeEvents"], 3);
}
