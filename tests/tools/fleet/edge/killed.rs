//! Processes are killed: the edge, its server, the server of the hub.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidings_rig::eventually;
use tokio::time::sleep;

use super::{Site, numbered, post};

#[tokio::test]
async fn an_edge_that_is_killed_around_a_send_loses_and_doubles_nothing() {
    for point in ["edge:sending", "edge:sent"] {
        let site = Site::new().await;
        let _router = site.router("1s").await;
        let role = site.edge().env("FAIL_POINT", &format!("{point}@3"));
        let mut edge = site.fleet.rig.run(role).await;
        let mut posted = Vec::new();
        for message in numbered(point, 1000) {
            match edge.post(&tidings_rig::event(&message)).await {
                Ok(answer) if answer.status == 202 => posted.push(message),
                _ => break,
            }
            // Each event is sent by itself.
            sleep(Duration::from_millis(30)).await;
        }
        edge.reaches_fail_point(point).await;
        // The server of the hub forgets the ids of the events.
        sleep(Duration::from_millis(1500)).await;
        edge.restart_without(&["FAIL_POINT"]).await;
        posted.extend(post(&edge, numbered("after", 5)).await);
        site.stores(&posted).await;
        if point == "edge:sent" {
            // The edge looked there: it did not depend on what the server remembers.
            edge.counts_any("tidings_edge_events_total", "outcome=\"found\"")
                .await;
        }
    }
}

#[tokio::test]
async fn the_server_of_an_edge_is_restarted_when_it_dies() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 20)).await;
    for round in 0..3 {
        let contact = std::fs::read_to_string(site.data.join("nats.json")).unwrap();
        let contact: Value = serde_json::from_str(&contact).unwrap();
        let pid = contact["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::KILL).unwrap();
        let first = format!("round {round}");
        eventually("events are accepted again", async || {
            let answer = edge.post(&tidings_rig::event(&first)).await.ok()?;
            matches!(answer.status, 202 | 429).then_some(())
        })
        .await;
        posted.push(first.clone());
        posted.extend(post(&edge, numbered(&first, 20)).await);
    }
    site.stores(&posted).await;
}

#[tokio::test]
async fn events_arrive_within_seconds_after_the_server_of_the_hub_was_killed() {
    let mut site = Site::new().await;
    let _router = site.router("5m").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 50)).await;
    for round in 0..2 {
        site.fleet.rig.nats().kill().await;
        posted.extend(post(&edge, numbered(&format!("round {round}"), 50)).await);
        site.fleet.rig.nats().restart().await;
        site.stores(&posted).await;
    }
}
