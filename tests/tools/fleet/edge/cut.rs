//! The path to the hub is cut and restored.

use std::time::Duration;

use tidings_rig::{Process, event, eventually};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{Site, numbered, post};

/// Posts 200 events a second, one after the other, until `stop`.
async fn post_until(edge: Process, mut stop: oneshot::Receiver<()>) -> (Process, Vec<String>) {
    let mut posted = Vec::new();
    let mut due = Instant::now();
    while stop.try_recv().is_err() {
        let message = format!("event {}", posted.len());
        let answer = edge.post(&event(&message)).await.unwrap();
        assert_eq!(answer.status, 202, "{message}: {}", answer.body);
        posted.push(message);
        due += Duration::from_millis(5);
        tokio::time::sleep_until(due).await;
    }
    (edge, posted)
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_under_load_lose_nothing_double_nothing_and_keep_the_order() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    edge.logs("edge-connected").await;
    let (stop, stopped) = oneshot::channel();
    let posting = tokio::spawn(post_until(edge, stopped));
    for length in [50, 300, 2_000] {
        sleep(Duration::from_secs(1)).await;
        site.cable.cut();
        sleep(Duration::from_millis(length)).await;
        site.cable.restore();
    }
    // A path that is silent first and closed later, with data under way.
    for length in [100, 12_000] {
        sleep(Duration::from_secs(1)).await;
        site.cable.silence();
        sleep(Duration::from_millis(length)).await;
        site.cable.cut();
        sleep(Duration::from_millis(200)).await;
        site.cable.restore();
    }
    sleep(Duration::from_secs(1)).await;
    stop.send(()).unwrap();
    let (edge, posted) = posting.await.unwrap();
    assert!(posted.len() > 1000, "{}", posted.len());
    site.stores(&posted).await;
    edge.counts_any("tidings_edge_events_total", "outcome=\"forwarded\"")
        .await;
}

#[tokio::test]
async fn an_edge_starts_without_the_hub_and_accepts_events() {
    let site = Site::new().await;
    site.cable.cut();
    let mut edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("before", 20)).await;
    let again = edge.post(&event("before 0")).await.unwrap();
    assert_eq!(
        (again.status, again.code().as_str()),
        (429, "duplicate-event")
    );

    edge.kill().await;
    edge.restart().await;
    let again = edge.post(&event("before 19")).await.unwrap();
    assert_eq!(again.status, 429, "a duplicate is known after a kill");
    posted.extend(post(&edge, numbered("after", 20)).await);
    eventually("the edge is ready, and warns", async || {
        let ready = edge.readiness().await;
        assert_eq!(ready.status, 200, "{ready:?}");
        ready.body.contains("hub").then_some(())
    })
    .await;

    let _router = site.router("5m").await;
    site.cable.restore();
    site.stores(&posted).await;
}

#[tokio::test]
async fn what_the_hub_stored_before_a_long_cut_is_not_sent_again() {
    let site = Site::new().await;
    // The hub forgets ids at once, as it does in a cut that is longer than its dedupe interval.
    let _router = site.router("1s").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = post(&edge, numbered("first", 20)).await;
    site.stores(&posted).await;
    for round in 0..5 {
        // What was forwarded shortly before the cut is not recorded as forwarded.
        let posting = post(&edge, numbered(&format!("round {round}"), 30));
        let cutting = async {
            let stored = posted.len() + 2 * (round + 1);
            site.has_stored(stored).await;
            site.cable.cut();
        };
        let (more, ()) = tokio::join!(posting, cutting);
        posted.extend(more);
        sleep(Duration::from_millis(1500)).await;
        site.cable.restore();
        site.stores(&posted).await;
    }
    // The edge looked there: it did not depend on what the server remembers.
    edge.counts_any("tidings_edge_events_total", "outcome=\"found\"")
        .await;
}
