//! The quota of an edge.

use tidings_rig::event;

use super::{NAME, Site};

#[tokio::test]
async fn an_edge_that_starts_without_the_hub_enforces_the_last_quota() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    let mut edge = site.fleet.rig.run(site.edge()).await;
    let set = ["set", NAME, "--events-per-second", "1"];
    let set = site.fleet.run(&set).await;
    assert_eq!(set.status, Some(0), "{set:?}");
    edge.logs("quota-changed").await;

    site.cable.cut();
    edge.kill().await;
    edge.restart().await;
    let mut codes = Vec::new();
    for number in 0..30 {
        let answer = edge.post(&event(&number.to_string())).await.unwrap();
        codes.push(answer.code());
    }
    assert!(codes.contains(&"quota-exceeded".to_owned()), "{codes:?}");
}
