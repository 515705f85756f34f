//! An edge whose storage is full.

use tidings_rig::{event, eventually};

use super::Site;

#[tokio::test]
async fn a_full_edge_refuses_events_and_accepts_them_after_the_hub_took_its_own() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    site.cable.cut();
    let role = site.edge().env("TIDINGS_NATS__STORAGE_LIMIT", "16MiB");
    let edge = site.fleet.rig.run(role).await;
    let text = "x".repeat(200_000);
    let mut posted = Vec::new();
    eventually("the edge is full", async || {
        let message = format!("event {} {text}", posted.len());
        let answer = edge.post(&event(&message)).await.unwrap();
        if answer.status == 202 {
            posted.push(message);
            return None;
        }
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "storage-full")
        );
        assert!(answer.headers.contains_key("retry-after"));
        Some(())
    })
    .await;
    assert!(posted.len() > 20, "{}", posted.len());
    edge.counts_any("tidings_edge_events_waiting", "").await;

    site.cable.restore();
    let last = format!("last {text}");
    eventually("an event is accepted", async || {
        let answer = edge.post(&event(&last)).await.unwrap();
        (answer.status == 202).then_some(())
    })
    .await;
    posted.push(last);
    site.stores(&posted).await;
}
