//! `tidings fleet remove`: what becomes of what the hub holds of a cluster.

use serde_json::{Value, json};
use tidings_core::runtime::failpoint::FLEET_POINTS;
use tidings_rig::{Receiver, Reply, Role, alert, event, eventually, provider, secret};

use super::Fleet;

/// Posts these events as a cluster.
async fn post(fleet: &Fleet, cluster: &str, messages: &[&str]) {
    let ingest = fleet.rig.run(fleet.ingest(cluster)).await;
    for message in messages {
        let answer = ingest.post(&event(message)).await.unwrap();
        assert_eq!(answer.status, 202, "{message}");
    }
}

/// The result of a removal with `--output json`.
async fn removed(fleet: &Fleet, arguments: &[&str]) -> Value {
    let removal = [&["remove", "--output", "json"], arguments].concat();
    fleet.run(&removal).await.json().swap_remove(0)
}

async fn dead_letters(fleet: &Fleet, cluster: &str) -> Vec<Value> {
    let list = ["dead", "list", "--output", "jsonl", "--cluster", cluster];
    fleet.tool(&list).await.json()
}

#[tokio::test]
async fn a_removal_says_what_it_changes_and_delivers_what_was_accepted() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::script([Reply::RetryAfter(503, 8)]).await;
    let hook = provider("hook", receiver.url()).that_retries_soon();
    fleet.rig.rules().put([hook, alert("all", "hook")]);
    fleet.add("dev-1").await;
    let hub = fleet.hub().await;
    post(&fleet, "dev-1", &["accepted"]).await;
    fleet.parked(1).await;

    let planned = removed(&fleet, &["dev-1", "--dry-run"]).await;
    let refused = fleet.run(&["remove", "dev-1"]).await;
    let names = fleet.names().await;
    let done = removed(&fleet, &["dev-1", "--yes"]).await;

    let counts = json!({
        "cluster": "dev-1", "done": false, "events": 1, "unroutedEvents": 0, "readyDeliveries": 0,
        "parkedDeliveries": 1, "deadLetters": 0, "states": 0, "openIncidents": [],
        "openIncidentsNotListed": 0, "heartbeats": planned["heartbeats"], "edgeEvents": 0,
        "silentEdges": [], "discarded": 0, "statesDeleted": 0,
    });
    assert_eq!(planned, counts);
    assert_ne!(refused.status, Some(0));
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    assert_eq!(names, ["dev-1"], "nothing was changed");
    assert_eq!(done["done"], true);
    assert_eq!(fleet.names().await, Vec::<String>::new());
    assert!(!fleet.credentials("dev-1").exists());
    let heartbeats = fleet
        .streams()
        .await
        .get_key_value("heartbeats")
        .await
        .unwrap();
    let keys: Vec<_> = futures::TryStreamExt::try_collect(heartbeats.keys().await.unwrap())
        .await
        .unwrap();
    assert!(
        !keys.iter().any(|key: &String| key.starts_with("dev-1.")),
        "{keys:?}"
    );
    receiver.accepts("accepted").await;
    drop(hub);
}

#[tokio::test]
async fn discarded_deliveries_are_dead_letters_and_do_not_count_as_lost() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::RetryAfter(503, 3600));
    let hook = provider("hook", receiver.url());
    fleet.rig.rules().put([hook, alert("all", "hook")]);
    for name in ["dev-1", "dev-2"] {
        fleet.add(name).await;
    }
    let hub = fleet.hub().await;
    for name in ["dev-1", "dev-2"] {
        post(&fleet, name, &["first", "second"]).await;
    }
    fleet.parked(4).await;

    let done = removed(&fleet, &["dev-1", "--discard", "--yes"]).await;

    assert_eq!(done["discarded"], 2);
    fleet.parked(2).await;
    let letters = dead_letters(&fleet, "dev-1").await;
    let reasons: Vec<_> = letters.iter().map(|letter| &letter["reason"]).collect();
    assert_eq!(reasons, ["discarded", "discarded"]);
    assert!(dead_letters(&fleet, "dev-2").await.is_empty());
    // The roles compare the counts each second.
    let counts = fleet.streams().await.get_key_value("counts").await.unwrap();
    let recorded = async || counts.entry("deliveries").await.unwrap().unwrap().revision;
    let before = recorded().await;
    eventually("the counts are compared again", async || {
        (recorded().await > before + 1).then_some(())
    })
    .await;
    for process in &hub {
        assert!(process.log_events("deliveries-lost").is_empty());
    }
    // They can be delivered after all.
    receiver.answer_with(Reply::Status(200));
    let resumed = fleet.tool(&["providers", "resume", "apps/hook"]).await;
    assert_eq!(resumed.status, Some(0), "{resumed:?}");
    let replayed = fleet.tool(&["dead", "replay", "--cluster", "dev-1"]).await;
    assert_eq!(replayed.status, Some(0), "{replayed:?}");
    eventually("all are delivered", async || {
        (receiver.accepted().len() == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_removal_that_is_killed_anywhere_is_completed_by_the_next_one() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::RetryAfter(503, 3600));
    let hook = provider("hook", receiver.url());
    fleet.rig.rules().put([hook, alert("all", "hook")]);
    let _hub = fleet.hub().await;
    let points = FLEET_POINTS
        .iter()
        .filter(|point| **point != "fleet:issued");
    for (number, point) in points.enumerate() {
        let name = format!("dev-{number}");
        fleet.add(&name).await;
        post(&fleet, &name, &["first", "second"]).await;
        fleet.parked(2).await;
        let remove = ["remove", name.as_str(), "--discard", "--yes"];

        fleet.run_until(point, &remove).await;
        let again = fleet.run(&remove).await;

        assert_eq!(again.status, Some(0), "{point} {again:?}");
        assert_eq!(dead_letters(&fleet, &name).await.len(), 2, "{point}");
        assert_eq!(fleet.names().await, Vec::<String>::new(), "{point}");
        assert!(!fleet.credentials(&name).exists(), "{point}");
        fleet.parked(0).await;
    }
}

#[tokio::test]
async fn the_record_stays_until_the_events_are_routed_so_that_no_other_namespace_gets_them() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    let hook = provider("hook", receiver.url());
    fleet.rig.rules().put([hook, alert("all", "hook")]);
    let added = fleet.run(&["add", "dev-1", "--visible-to", "team-a"]).await;
    assert_eq!(added.status, Some(0), "{added:?}");
    let worker = fleet.with_credentials(Role::worker(), "worker");
    let _worker = fleet.rig.run(worker).await;
    post(&fleet, "dev-1", &["secret"]).await;

    let stopped = fleet.run(&["remove", "dev-1", "--yes"]).await;

    assert_ne!(stopped.status, Some(0), "{stopped:?}");
    let listed = fleet.run(&["list", "--output", "jsonl"]).await.json();
    assert_eq!(listed[0]["visibleTo"], json!(["team-a"]));
    assert!(listed[0]["revokedAt"].is_string());
    let router = fleet.with_credentials(Role::router(), "router");
    let router = fleet.rig.run(router).await;
    let done = removed(&fleet, &["dev-1", "--yes"]).await;
    assert_eq!(done["done"], true);
    assert_eq!(fleet.names().await, Vec::<String>::new());
    router.counts("tidings_router_events_total", "", 1.0).await;
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn a_removal_names_open_incidents_and_deletes_what_is_recorded_of_them() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    fleet.rig.rules().put([
        secret("key", json!({"token": "hidden-token"})),
        provider("incidents", receiver.url())
            .with("type", "pagerduty")
            .with("channel", "routing-key")
            .with("secretRef", json!({"name": "key"})),
        alert("all", "incidents"),
    ]);
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;
    let mut failed = event("failed");
    failed["severity"] = "error".into();
    failed["involvedObject"]["uid"] = "".into();
    assert_eq!(ingest.post(&failed).await.unwrap().status, 202);
    drop(ingest);

    let planned = eventually("the incident is recorded", async || {
        let planned = removed(&fleet, &["dev-1", "--dry-run"]).await;
        (planned["states"] == 1 && planned["readyDeliveries"] == 0).then_some(planned)
    })
    .await;
    let done = removed(&fleet, &["dev-1", "--yes"]).await;

    assert_eq!(
        planned["openIncidents"],
        json!(["dev-1/Kustomization/apps/apps"])
    );
    assert_eq!(
        (&planned["states"], &done["statesDeleted"]),
        (&json!(1), &json!(1))
    );
    let left = removed(&fleet, &["dev-1", "--dry-run"]).await;
    assert_eq!(left["states"], 0);
}

#[tokio::test]
async fn a_cluster_whose_key_cannot_be_used_is_not_removed() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let prepared = fleet.run(&["rename", "dev-1", "prod-1", "--yes"]).await;
    assert_eq!(prepared.status, Some(0), "{prepared:?}");
    let key = fleet.dir.join("keys/member-dev-1.nk");
    let kept = std::fs::read(&key).unwrap();
    let damage: [&dyn Fn(); 2] = [&|| std::fs::write(&key, "damaged").unwrap(), &|| {
        std::fs::remove_file(&key).unwrap()
    }];
    for damage in damage {
        damage();
        for command in [
            &["remove", "dev-1", "--yes"][..],
            &["rename", "dev-1", "prod-1", "--finish", "--yes"],
        ] {
            let refused = fleet.run(command).await;
            refused.assert_error_names(&["dev-1", "keys/member-dev-1.nk"]);
            assert!(!refused.stdout.contains("revoked"), "{refused:?}");
            assert_eq!(fleet.names().await, ["dev-1", "prod-1"]);
            assert!(fleet.credentials("dev-1").exists());
        }
    }

    std::fs::write(&key, kept).unwrap();
    let removed = fleet.run(&["remove", "dev-1", "--yes"]).await;
    assert_eq!(removed.status, Some(0), "{removed:?}");
    assert_eq!(fleet.names().await, ["prod-1"]);
}
