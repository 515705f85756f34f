//! How an edge starts, and what the hub knows of it.

use prost::Message as _;
use serde_json::Value;
use tidings_core::model::token::Token;
use tidings_core::wire::{EdgeBacklog, Heartbeat};
use tidings_rig::{Receiver, Role, alert, event, eventually, provider};

use super::super::assert_permitted;
use super::hub_full::report;
use super::{NAME, Site, numbered, post};
use crate::command::text;

#[tokio::test]
async fn the_events_of_an_edge_are_delivered() {
    let site = Site::new().await;
    let receiver = Receiver::start().await;
    let rules = site.fleet.rig.rules();
    rules.put([provider("hook", receiver.url()), alert("all", "hook")]);
    let _hub = site.fleet.hub().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    for message in post(&edge, numbered("event", 3)).await {
        receiver.accepts(&message).await;
    }
    edge.logs("edge-connected").await;
    edge.counts("tidings_edge_hub_up", "", 1.0).await;
    assert_permitted(&edge);
}

/// The status of the fleet.
async fn status(site: &Site) -> Option<Value> {
    let ended = site.fleet.tool(&["status", "--output", "json"]).await;
    serde_json::from_str(&ended.stdout).ok()
}

/// What the status says of the edge.
async fn edge_in_status(site: &Site) -> Option<Value> {
    let status = status(site).await?;
    let clusters = status["clusters"].as_array()?;
    let cluster = clusters.iter().find(|cluster| cluster["name"] == NAME)?;
    Some(cluster["edge"].clone())
}

#[tokio::test]
async fn the_status_shows_what_waits_on_an_edge() {
    let site = Site::new().await;
    let streams = site.fleet.streams().await;
    let hub = streams.get_key_value("hub").await.unwrap();
    report(&hub, &site, 10).await;
    site.answer_guests().await;
    let edge = site.fleet.rig.run(site.edge()).await;
    edge.logs("edge-connected").await;
    report(&hub, &site, 85).await;
    let mut number = 0;
    eventually("the edge warns", async || {
        number += 1;
        post(&edge, [format!("event {number}")]).await;
        let ready = edge.readiness().await;
        ready.body.contains("nearly full").then_some(())
    })
    .await;
    eventually("the status shows what waits", async || {
        let waiting = edge.metric("tidings_edge_events_waiting", "").await;
        let shown = edge_in_status(&site).await?["waiting"].as_f64()?;
        (waiting >= 1.0 && shown == waiting).then_some(())
    })
    .await;

    report(&hub, &site, 10).await;
    eventually("the status shows that nothing waits", async || {
        (edge_in_status(&site).await?["waiting"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edge_whose_events_wait_for_a_minute_is_a_problem_of_the_status() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    let streams = site.fleet.streams().await;
    let heartbeats = streams.get_key_value("heartbeats").await.unwrap();
    let key = format!("{}.ingest.p", Token::new(NAME));
    let heartbeat = |waiting, oldest_ms| Heartbeat {
        role: "ingest".to_owned(),
        cluster: NAME.to_owned(),
        process: "p".to_owned(),
        ready: true,
        edge: Some(EdgeBacklog { waiting, oldest_ms }),
        ..Heartbeat::default()
    };
    for (waiting, oldest_ms, is_behind) in [(7, 61_000, true), (2, 3_000, false)] {
        let report = heartbeat(waiting, oldest_ms).encode_to_vec();
        heartbeats.put(&key, report.into()).await.unwrap();
        let shown = edge_in_status(&site).await.unwrap();
        assert_eq!(shown["waiting"], waiting);
        let status = status(&site).await.unwrap();
        let problems = status["problems"].as_array().unwrap();
        let behind = problems.iter().any(|it| it["code"] == "edge-behind");
        assert_eq!(behind, is_behind, "{problems:?}");
    }
}

#[tokio::test]
async fn a_second_edge_on_the_same_folder_is_refused() {
    let site = Site::new().await;
    let _edge = site.fleet.rig.run(site.edge()).await;
    let mut second = site.fleet.rig.spawn(site.edge());
    assert_eq!(second.ended().await.code(), Some(2));
    let folder = text(&site.data);
    second.prints(folder).await;
    second.prints("in use").await;
}

#[tokio::test]
async fn the_credentials_of_another_cluster_are_refused_at_the_start() {
    let site = Site::new().await;
    let role = Role::edge(&site.cable.url(), &site.data).args(["--cluster", "prod-eu"]);
    let role = site.fleet.with_credentials(role, NAME);
    let mut edge = site.fleet.rig.spawn(role);
    assert_eq!(edge.ended().await.code(), Some(2));
    edge.prints("nats.credentials").await;
    edge.prints("prod-eu").await;
}

#[tokio::test]
async fn an_edge_continues_with_rotated_credentials() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 5)).await;
    site.stores(&posted).await;
    site.fleet.run(&["revoke", NAME]).await;
    posted.extend(post(&edge, numbered("revoked", 5)).await);
    edge.logs("edge-cut-off").await;
    site.fleet.run(&["rotate", NAME]).await;
    site.stores(&posted).await;
    assert_eq!(edge.post(&event("after")).await.unwrap().status, 202);
    posted.push("after".to_owned());
    site.stores(&posted).await;
}
