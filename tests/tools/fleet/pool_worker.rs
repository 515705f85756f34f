//! A worker outside of the hub, whose credentials permit one pool.

use tidings_rig::{Receiver, Reply, Role, alert, event, eventually, provider};

use super::client::Intruder;
use super::{Fleet, assert_permitted};
use crate::command::text;

#[tokio::test]
async fn a_worker_of_a_pool_delivers_retries_and_reports_with_its_credentials() {
    let fleet = Fleet::start().await;
    let near = Receiver::script([
        Reply::Status(503),
        Reply::Status(503),
        Reply::Status(503),
        Reply::Status(503),
        Reply::Status(503),
    ])
    .await;
    let far = Receiver::start().await;
    fleet.rig.rules().put([
        provider("near", near.url())
            .with("pool", "edge")
            .that_retries_soon(),
        provider("far", far.url()),
        alert("near", "near"),
        alert("far", "far"),
    ]);
    fleet.add("dev-1").await;
    let added = fleet
        .run(&["add-worker", "dev-1-worker", "--pool", "edge"])
        .await;
    assert_eq!(added.lines().len(), 1, "{added:?}");
    let _hub = fleet.hub().await;
    let worker = Role::worker().args(["--pool", "edge"]);
    let worker = fleet
        .rig
        .run(fleet.with_credentials(worker, "dev-1-worker"))
        .await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;

    for message in [
        "first", "second", "third", "fourth", "fifth", "sixth", "seventh",
    ] {
        assert_eq!(ingest.post(&event(message)).await.unwrap().status, 202);
    }

    // The circuit opens, and a worker of the hub wakes what waits for it.
    eventually("both receivers accept all events", async || {
        (near.tally().len() == 7 && far.tally().len() == 7).then_some(())
    })
    .await;
    assert!(near.tally().values().all(|(times, _)| *times == 1));
    assert_eq!(worker.readiness().await.status, 200);
    assert_permitted(&worker);
    let updated = fleet.run(&["update"]).await;
    assert_eq!(updated.status, Some(0), "{updated:?}");
    let removed = fleet.run(&["remove-worker", "dev-1-worker"]).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    worker.is_not_ready("bus", "").await;
    assert!(!fleet.credentials("dev-1-worker").exists());
}

#[tokio::test]
async fn a_worker_of_a_pool_can_do_nothing_with_other_pools() {
    let fleet = Fleet::start().await;
    let added = fleet.run(&["add-worker", "near", "--pool", "edge"]).await;
    assert_eq!(added.status, Some(0), "{added:?}");
    let _hub = fleet.hub().await;
    let worker = Intruder::connect(fleet.rig.url(), &fleet.credentials("near")).await;
    for subject in [
        "events.dev-1.apps.Kustomization.info",
        "deliveries.default.slack.apps.hook",
        "parked.default.slack.apps.hook.a",
        "$KV.clusters.dev-1",
        "$KV.counts.deliveries",
        "$KV.consumers.router",
        "$KV.extensions.a",
        "$KV.hub.events",
        "$KV.heartbeats.dev-1.ingest.a",
        "_INBOX_tools.a",
        "_INBOX_worker.a",
        "tidings.names",
        "tidings.checks",
        "$JS.ACK.DELIVERIES.default-slack.1.1.1.1.0",
        "$JS.ACK.EVENTS.router.1.1.1.1.0",
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.API.DIRECT.GET.DELIVERIES",
        "$JS.API.DIRECT.GET.DELIVERIES.deliveries.default.slack.apps.hook",
        "$JS.API.DIRECT.GET.DELIVERIES.parked.default.slack.apps.hook.a",
        "$JS.API.DIRECT.GET.DEAD",
        "$JS.API.DIRECT.GET.KV_latest",
        "$JS.API.STREAM.MSG.GET.DELIVERIES",
        "$JS.API.STREAM.MSG.DELETE.DELIVERIES",
        "$JS.API.STREAM.PURGE.DELIVERIES",
        "$JS.API.STREAM.DELETE.DELIVERIES",
        "$JS.API.STREAM.UPDATE.DELIVERIES",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.CONSUMER.CREATE.DELIVERIES",
        "$JS.API.CONSUMER.CREATE.DELIVERIES.edge-slack",
        "$JS.API.CONSUMER.CREATE.DELIVERIES.edge-slack.deliveries.default.slack.>",
        "$JS.API.CONSUMER.CREATE.DELIVERIES.default-slack.deliveries.edge.slack.>",
        "$JS.API.CONSUMER.CREATE.DELIVERIES.mine.deliveries.edge.slack.>",
        "$JS.API.CONSUMER.CREATE.KV_latest.mine.$KV.latest.>",
        "$JS.API.CONSUMER.CREATE.EVENTS.router.events.>",
        "$JS.API.CONSUMER.MSG.NEXT.DELIVERIES.default-slack",
        "$JS.API.CONSUMER.DELETE.DELIVERIES.default-slack",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.router",
    ] {
        worker.may_not_publish(subject).await;
    }
    for subject in [
        ">",
        "deliveries.>",
        "_INBOX_worker.>",
        "_INBOX.>",
        "tidings.>",
        "$KV.>",
    ] {
        worker.may_not_subscribe(subject).await;
    }
}

#[tokio::test]
async fn names_of_workers_and_clusters_are_not_mixed_up() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let add = ["add-worker", "near", "--pool", "edge"];
    assert_eq!(fleet.run(&add).await.status, Some(0));
    let file = fleet.credentials("near");
    let before = std::fs::read(&file).unwrap();
    for (arguments, names) in [
        (&add[..], &["near", "exists"][..]),
        (
            &["add-worker", "dev-1", "--pool", "edge"],
            &["dev-1", "cluster"],
        ),
        (&["add-worker", "worker", "--pool", "edge"], &["worker"]),
        (&["add-worker", "other", "--pool", "a b"], &["--pool"]),
        (&["add", "near"], &["near", "worker"]),
        (
            &["rename", "dev-1", "near", "--yes"],
            &["near", "a worker has this name"],
        ),
        (&["remove-worker", "other"], &["other", "not found"]),
    ] {
        fleet.run(arguments).await.assert_error_names(names);
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(!text(&file).is_empty());
}

#[tokio::test]
async fn a_worker_is_revoked_also_without_its_credentials_file() {
    let fleet = Fleet::start().await;
    let _hub = fleet.hub().await;
    let description = || {
        let text = std::fs::read(fleet.dir.join("fleet.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    let add = ["add-worker", "near", "--pool", "edge"];
    let remove = ["remove-worker", "near"];
    // Killed before the file is written.
    fleet.run_until("fleet:issued", &add).await;
    let key = description()["workers"]["near"]["publicKey"].clone();
    assert!(!fleet.credentials("near").exists());
    let removed = fleet.run(&remove).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    assert!(description()["revoked"][key.as_str().unwrap()].is_i64());

    let added = fleet.run(&add).await;
    assert_eq!(added.status, Some(0), "{added:?}");
    let moved = fleet.rig.folder().join("moved.creds");
    std::fs::rename(fleet.credentials("near"), &moved).unwrap();
    Intruder::connect(fleet.rig.url(), &moved).await;
    let removed = fleet.run(&remove).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    let credentials = std::fs::read_to_string(&moved).unwrap();
    let options = async_nats::ConnectOptions::with_credentials(&credentials).unwrap();
    assert!(options.connect(fleet.rig.url()).await.is_err());
}

#[tokio::test]
async fn commands_at_once_on_one_folder_lose_no_worker() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let names = ["one", "two", "three", "four"];
    let added = futures::future::join_all(names.iter().map(async |name| {
        let add = ["add-worker", name, "--pool", "edge"];
        fleet.run(&add).await
    }));
    for added in added.await {
        assert_eq!(added.status, Some(0), "{added:?}");
    }
    let listed = fleet.run(&["list", "--output", "jsonl"]).await.json();
    let workers = listed.iter().filter(|entry| entry["kind"] == "worker");
    let mut listed: Vec<_> = workers
        .map(|worker| (worker["name"].as_str(), worker["pool"].as_str()))
        .collect();
    listed.sort_unstable();
    let mut expected = names.map(|name| (Some(name), Some("edge")));
    expected.sort_unstable();
    assert_eq!(listed, expected);
    for name in names {
        let removed = fleet.run(&["remove-worker", name]).await;
        assert_eq!(removed.status, Some(0), "{name} {removed:?}");
    }
}
