//! A cluster with an edge is renamed or removed while events wait on the edge.

use serde_json::Value;
use tidings_rig::{Process, Role, eventually};

use super::{NAME, Site, numbered, post};

/// What the hub knows of the events that wait.
async fn known(site: &Site) -> Value {
    let plan = ["remove", NAME, "--dry-run", "--output", "json"];
    let plan = site.fleet.run(&plan).await.json().swap_remove(0);
    plan["edgeEvents"].clone()
}

/// An edge that reports that five events wait.
async fn with_waiting(site: &Site) -> (Process, Vec<String>) {
    let edge = site.fleet.rig.run(site.edge()).await;
    let posted = post(&edge, numbered("event", 5)).await;
    eventually("the hub knows that five events wait", async || {
        (known(site).await == 5).then_some(())
    })
    .await;
    (edge, posted)
}

#[tokio::test]
async fn a_name_is_not_removed_while_events_wait_on_an_edge() {
    let site = Site::new().await;
    // Without a router or worker the hub does not report that it has room, so nothing is forwarded.
    let prepared = ["rename", NAME, "prod-1", "--yes"];
    assert_eq!(site.fleet.run(&prepared).await.status, Some(0));
    let (_edge, _) = with_waiting(&site).await;
    let finish = ["rename", NAME, "prod-1", "--finish", "--yes"];
    let remove = ["remove", NAME, "--yes"];
    for command in [&finish[..], &remove] {
        let refused = site.fleet.run(command).await;
        assert_ne!(refused.status, Some(0), "{refused:?}");
        for text in [NAME, "5 events", "--discard-waiting"] {
            assert!(refused.stderr.contains(text), "{refused:?}");
        }
        assert_eq!(site.fleet.names().await, [NAME, "prod-1"]);
    }
    let forced = [&remove[..], &["--discard-waiting"]].concat();
    let removed = site.fleet.run(&forced).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    assert_eq!(site.fleet.names().await, ["prod-1"]);
}

#[tokio::test]
async fn an_edge_with_events_of_a_former_name_starts_only_with_that_name() {
    let site = Site::new().await;
    let prepared = ["rename", NAME, "prod-1", "--yes"];
    assert_eq!(site.fleet.run(&prepared).await.status, Some(0));
    let (edge, posted) = with_waiting(&site).await;
    drop(edge);

    let role = || {
        let role = Role::edge(&site.cable.url(), &site.data).args(["--cluster", "prod-1"]);
        site.fleet.with_credentials(role, "prod-1")
    };
    let mut renamed = site.fleet.rig.spawn(role());
    assert_ne!(renamed.ended().await.code(), Some(0));
    renamed.prints("5 events of cluster").await;
    renamed.prints("--cluster dev-1").await;

    let _router = site.router("5m").await;
    let edge = site.fleet.rig.run(site.edge()).await;
    site.stores(&posted).await;
    eventually("nothing waits", async || {
        let waiting = edge.metric("tidings_edge_events_waiting", "").await;
        (waiting == 0.0 && known(&site).await == 0).then_some(())
    })
    .await;
    drop(edge);
    let edge = site.fleet.rig.run(role()).await;
    let posted = [posted, post(&edge, numbered("renamed", 2)).await].concat();
    site.stores(&posted).await;
    let finish = ["rename", NAME, "prod-1", "--finish", "--yes"];
    let finished = site.fleet.run(&finish).await;
    assert_eq!(finished.status, Some(0), "{finished:?}");
}
