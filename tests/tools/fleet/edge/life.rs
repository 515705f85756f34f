//! How an edge starts, and what the hub knows of it.

use serde_json::Value;
use tidings_rig::{Receiver, Role, alert, event, eventually, provider};

use super::super::assert_permitted;
use super::{NAME, Site, numbered, post};
use crate::command::{text, tidings_with};

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
    assert_eq!(edge.metric("tidings_edge_hub_up", "").await, 1.0);
    assert_permitted(&edge);
}

#[tokio::test]
async fn the_status_shows_what_waits_on_an_edge() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    site.cable.cut();
    let edge = site.fleet.rig.run(site.edge()).await;
    let posted = post(&edge, numbered("event", 5)).await;
    eventually("five events wait", async || {
        let waiting = edge.metric("tidings_edge_events_waiting", "").await;
        (waiting == 5.0).then_some(())
    })
    .await;
    site.cable.restore();
    site.stores(&posted).await;
    let file = site.fleet.credentials("tools");
    let variables = [("TIDINGS_NATS__CREDENTIALS", text(&file))];
    let arguments = ["status", "--output", "json", "--nats", site.fleet.rig.url()];
    eventually("the status shows the edge", async || {
        let ended = tidings_with(&variables, &arguments).await;
        let status: Value = serde_json::from_str(&ended.stdout).ok()?;
        let clusters = status["clusters"].as_array()?;
        let cluster = clusters.iter().find(|cluster| cluster["name"] == NAME)?;
        (cluster["edge"]["waiting"] == 0).then_some(())
    })
    .await;
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
