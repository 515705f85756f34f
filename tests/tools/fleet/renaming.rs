//! `tidings fleet rename`: what a cluster keeps under its new name.

use serde_json::{Value, json};
use tidings_rig::{Forge, Receiver, Reply, alert, event, eventually, provider, secret};

use super::client::Intruder;
use super::{Fleet, assert_permitted};
use crate::command::text;

/// The result of a step with `--output json`.
async fn renamed(fleet: &Fleet, arguments: &[&str]) -> Value {
    let rename = [&["rename", "--output", "json"], arguments].concat();
    fleet.run(&rename).await.json().swap_remove(0)
}

fn incidents(receiver: &Receiver) -> [tidings_rig::Manifest; 2] {
    [
        secret("key", json!({"token": "hidden-token"})),
        provider("incidents", receiver.url())
            .with("type", "pagerduty")
            .with("channel", "routing-key")
            .with("secretRef", json!({"name": "key"})),
    ]
}

/// An event without a uid, at a second.
fn event_at(second: u32, severity: &str) -> Value {
    let mut event = event(&format!("at {second}"));
    event["timestamp"] = format!("2026-01-02T03:04:{second:02}Z").into();
    event["severity"] = severity.into();
    event["involvedObject"]["uid"] = "".into();
    event
}

#[tokio::test]
async fn a_renamed_cluster_resolves_what_it_opened_under_its_former_name() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    fleet.rig.rules().put(incidents(&receiver));
    fleet.rig.rules().put([
        alert("all", "incidents"),
        alert("dev", "incidents")
            .with("clusters", json!(["dev-*"]))
            .with("suspend", true),
    ]);
    let add = [
        "add",
        "dev-1",
        "--label",
        "env=dev",
        "--events-per-second",
        "50",
    ];
    assert_eq!(fleet.run(&add).await.status, Some(0));
    let hub = fleet.hub().await;
    let old = fleet.rig.run(fleet.ingest("dev-1")).await;
    assert_eq!(old.post(&event_at(1, "error")).await.unwrap().status, 202);
    receiver.receives(1).await;

    let rules = text(fleet.rig.rules().folder()).to_owned();
    let planned = renamed(&fleet, &["dev-1", "prod-1", "--dry-run", "--rules", &rules]).await;
    let refused = fleet.run(&["rename", "dev-1", "prod-1"]).await;
    let prepared = renamed(&fleet, &["dev-1", "prod-1", "--yes"]).await;

    assert_ne!(refused.status, Some(0));
    assert_eq!(
        planned["alerts"],
        json!([{"alert": "apps/dev", "selects": "dev-1"}])
    );
    assert_eq!(
        planned["openIncidents"],
        json!(["dev-1/Kustomization/apps/apps"])
    );
    assert_eq!(
        (&planned["done"], &prepared["done"]),
        (&json!(false), &json!(true))
    );
    let listed = fleet.run(&["list", "--output", "jsonl"]).await.json();
    let new = listed
        .iter()
        .find(|cluster| cluster["name"] == "prod-1")
        .unwrap();
    assert_eq!(new["labels"], json!({"env": "dev"}));
    assert_eq!(new["eventsPerSecond"], 50);
    assert_eq!(new["formerNames"], json!(["dev-1"]));
    assert_eq!(listed.len(), 2, "both names are valid");
    assert_eq!(old.post(&event_at(2, "info")).await.unwrap().status, 202);
    receiver.receives(4).await;
    assert_eq!(old.post(&event_at(3, "error")).await.unwrap().status, 202);
    receiver.receives(5).await;
    drop(old);

    let ingest = fleet.rig.run(fleet.ingest("prod-1")).await;
    assert_eq!(
        ingest.post(&event_at(4, "trace")).await.unwrap().status,
        202
    );
    let requests = receiver.receives(8).await;
    let keys: Vec<Value> = requests[5..]
        .iter()
        .map(|it| it.json()["dedup_key"].clone())
        .collect();
    let path = "Kustomization/apps/apps";
    assert_eq!(
        keys,
        [path, &format!("dev-1/{path}"), &format!("prod-1/{path}")]
    );

    let former = fleet.rig.folder().join("former.creds");
    std::fs::copy(fleet.credentials("dev-1"), &former).unwrap();
    let finished = renamed(&fleet, &["dev-1", "prod-1", "--finish", "--yes"]).await;
    assert_eq!(finished["done"], true);
    assert_eq!(fleet.names().await, ["prod-1"]);
    let credentials = std::fs::read_to_string(&former).unwrap();
    let options = async_nats::ConnectOptions::with_credentials(&credentials).unwrap();
    assert!(options.connect(fleet.rig.url()).await.is_err());
    Intruder::connect(fleet.rig.url(), &fleet.credentials("prod-1")).await;
    for process in &hub {
        assert_permitted(process);
    }
}

#[tokio::test]
async fn another_cluster_under_the_former_name_is_not_the_renamed_one() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    fleet.rig.rules().put(incidents(&receiver));
    fleet.rig.rules().put([alert("all", "incidents")]);
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    for step in [&["--yes"][..], &["--finish", "--yes"]] {
        renamed(&fleet, &[&["dev-1", "prod-1"], step].concat()).await;
    }
    fleet.add("dev-1").await;
    let [other, renamed] = [
        fleet.rig.run(fleet.ingest("dev-1")).await,
        fleet.rig.run(fleet.ingest("prod-1")).await,
    ];
    let resolved = || -> Vec<String> {
        let requests = receiver.received();
        let requests = requests.iter().map(tidings_rig::Received::json);
        let resolved = requests.filter(|request| request["event_action"] == "resolve");
        resolved
            .map(|request| request["dedup_key"].as_str().unwrap().to_owned())
            .collect()
    };
    let is_resolved = async |key: &str| {
        eventually(&format!("{key} is resolved"), async || {
            resolved().iter().any(|it| it == key).then_some(())
        })
        .await;
    };
    let [of_other, of_renamed] =
        ["dev-1", "prod-1"].map(|it| format!("{it}/Kustomization/apps/apps"));
    assert_eq!(other.post(&event_at(1, "error")).await.unwrap().status, 202);
    receiver.receives(1).await;

    let success = event_at(2, "info");
    assert_eq!(renamed.post(&success).await.unwrap().status, 202);
    is_resolved(&of_renamed).await;
    assert!(!resolved().contains(&of_other), "{:?}", resolved());

    assert_eq!(other.post(&event_at(3, "info")).await.unwrap().status, 202);
    is_resolved(&of_other).await;
}

#[tokio::test]
async fn what_was_parked_under_the_former_name_is_delivered_under_it() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::script([Reply::RetryAfter(503, 8)]).await;
    let hook = provider("hook", receiver.url()).that_retries_soon();
    fleet.rig.rules().put([hook, alert("all", "hook")]);
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;
    assert_eq!(ingest.post(&event("parked")).await.unwrap().status, 202);
    fleet.parked(1).await;
    drop(ingest);

    for step in [&["--yes"][..], &["--finish", "--yes"]] {
        renamed(&fleet, &[&["dev-1", "prod-1"], step].concat()).await;
    }

    let delivered = receiver.accepts("parked").await;
    assert_eq!(delivered.header("tidings-cluster"), Some("dev-1"));
}

#[tokio::test]
async fn a_status_that_both_names_write_is_no_conflict_and_qualified_ids_are_listed() {
    let fleet = Fleet::start().await;
    let forge = Forge::start().await;
    Forge::put_secret(fleet.rig.rules());
    let qualified = forge
        .provider("github")
        .set("/metadata/name", "qualified")
        .with("commitStatus", json!({"id": "qualified"}));
    fleet.rig.rules().put([
        forge.provider("github"),
        qualified,
        alert("default", "forge"),
        alert("qualified", "qualified"),
    ]);
    fleet.add("Dev-1").await;
    let hub = fleet.hub().await;
    let reconciled = |second: u32, severity: &str| {
        let mut event = event_at(second, severity);
        let revision = "main@sha1:8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
        event["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": revision});
        event
    };
    let written = async |count: usize| {
        eventually(&format!("{count} statuses are written"), async || {
            (forge.states().len() == count).then_some(())
        })
        .await;
    };
    let old = fleet.rig.run(fleet.ingest("Dev-1")).await;
    assert_eq!(old.post(&reconciled(1, "error")).await.unwrap().status, 202);
    written(2).await;
    drop(old);

    let prepared = renamed(&fleet, &["Dev-1", "prod-1", "--yes"]).await;
    let new = fleet.rig.run(fleet.ingest("prod-1")).await;
    assert_eq!(new.post(&reconciled(2, "info")).await.unwrap().status, 202);
    written(4).await;

    let changes = prepared["commitStatuses"].as_array().unwrap();
    let id = changes[0]["from"].as_str().unwrap();
    let rest = id.strip_prefix("dev-1/apps/kustomization/apps/").unwrap();
    assert_eq!(
        changes[0]["to"],
        format!("prod-1/apps/kustomization/apps/{rest}")
    );
    assert_eq!(changes.len(), 1);
    assert!(hub[1].log_events("state-conflict").is_empty());
}

#[tokio::test]
async fn a_rename_that_is_killed_is_completed_by_the_next_one() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let prepare = ["rename", "dev-1", "prod-1", "--yes"];
    fleet.run_until("fleet:issued", &prepare).await;
    let again = fleet.run(&prepare).await;
    assert_eq!(again.status, Some(0), "{again:?}");
    let issued = std::fs::read(fleet.credentials("prod-1")).unwrap();
    // A third run changes nothing.
    assert_eq!(fleet.run(&prepare).await.status, Some(0));
    assert_eq!(std::fs::read(fleet.credentials("prod-1")).unwrap(), issued);
    Intruder::connect(fleet.rig.url(), &fleet.credentials("prod-1")).await;

    let finish = ["rename", "dev-1", "prod-1", "--finish", "--yes"];
    for point in [
        "fleet:revoked",
        "fleet:states-deleted",
        "fleet:record-deleted",
    ] {
        fleet.run_until(point, &finish).await;
    }
    let again = fleet.run(&finish).await;
    assert_eq!(again.status, Some(0), "{again:?}");
    assert_eq!(fleet.names().await, ["prod-1"]);
    assert!(!fleet.credentials("dev-1").exists());
}

#[tokio::test]
async fn a_rename_that_is_not_possible_says_why() {
    let fleet = Fleet::start().await;
    for name in ["dev-1", "dev-2"] {
        fleet.add(name).await;
    }
    for (arguments, names) in [
        (&["dev-1", "dev-2", "--yes"][..], &["dev-2", "exists"][..]),
        (&["other", "new", "--yes"], &["other", "not found"]),
        (&["dev-1", "dev-1", "--yes"], &["dev-1", "the same"]),
        (&["dev-1", "router", "--yes"], &["router"]),
        (&["dev-1", "new", "--finish", "--yes"], &["new", "--finish"]),
        (
            &["dev-1", "dev-2", "--finish", "--yes"],
            &["dev-2", "--finish"],
        ),
    ] {
        let rename = [&["rename"], arguments].concat();
        fleet.run(&rename).await.assert_error_names(names);
    }
    assert_eq!(fleet.names().await, ["dev-1", "dev-2"]);
}
