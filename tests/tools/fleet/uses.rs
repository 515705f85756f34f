//! What the credentials are for, beyond routing: tools, and what ingest reads of its own events.

use std::collections::HashSet;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect;
use tidings_core::model::subject;
use tidings_core::runtime::config::{Flag, Settings, Sources};
use tidings_rig::{Receiver, Reply, Role, alert, event, eventually, free_port, provider};

use super::{Fleet, assert_permitted};
use crate::command::{Following, text, tidings_with};

pub async fn bus(url: &str, credentials: &Path) -> Bus {
    let flag = |key: &str, value: &str| Flag {
        name: key.into(),
        key: key.into(),
        value: value.into(),
    };
    let sources = Sources {
        flags: vec![
            flag("nats.url", url),
            flag("nats.credentials", text(credentials)),
        ],
        ..Sources::default()
    };
    let settings = Settings::load(&sources).unwrap();
    connect(&settings.nats, "test").await.unwrap()
}

#[tokio::test]
async fn a_member_reads_its_own_events_and_no_others() {
    let fleet = Fleet::start().await;
    for name in ["dev-1", "prod-eu"] {
        fleet.add(name).await;
    }
    let _hub = fleet.hub().await;
    for name in ["dev-1", "prod-eu"] {
        let ingest = fleet.rig.run(fleet.ingest(name)).await;
        let posted = event(&format!("of {name}"));
        assert_eq!(ingest.post(&posted).await.unwrap().status, 202);
    }
    let bus = bus(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    let hour = SignedDuration::from_hours(1);
    let (from, to) = (Timestamp::now() - hour, Timestamp::now() + hour);

    // More reads at the same time than there are names.
    let filter = subject::event_filter(Some("dev-1"), None, None, None);
    let reads = (0..10).map(|_| bus.events_after("dev-1", filter.clone(), 0, 10));
    for read in futures::future::join_all(reads).await {
        let read = read.unwrap();
        let events: Vec<_> = read.events.iter().map(|read| &read.event.cluster).collect();
        assert_eq!(events, ["dev-1"]);
        assert!(read.is_complete);
    }
    let own: HashSet<String> = bus.dedupe_keys("dev-1", from, to).await.unwrap();
    assert_eq!(own.len(), 1);

    let filter = subject::event_filter(Some("prod-eu"), None, None, None);
    let other = bus.events_after("prod-eu", filter, 0, 10).await;
    assert!(other.is_err(), "{other:?}");
    assert!(bus.dedupe_keys("prod-eu", from, to).await.is_err());
}

#[tokio::test]
async fn the_tools_of_an_operator_work_with_their_credentials() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::script([Reply::Status(400)]).await;
    fleet
        .rig
        .rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    fleet.add("dev-1").await;
    let hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;
    assert_eq!(ingest.post(&event("refused")).await.unwrap().status, 202);
    hub[1].logs("delivery-dead").await;

    let url = fleet.rig.url();
    let file = fleet.credentials("tools");
    let variables = [("TIDINGS_NATS__CREDENTIALS", text(&file))];
    let rules = fleet.rig.rules().folder();
    let replay = [
        "replay",
        "--missing",
        "--since",
        "1h",
        "--until",
        "0s",
        "--rules",
    ];
    for arguments in [
        &["dead", "list"][..],
        &["dead", "replay", "--all"],
        &["dead", "drop", "--all", "--yes"],
        &[&replay[..], &[text(rules)]].concat(),
        &["providers", "circuits"],
        &["providers", "pause", "apps/hook"],
        &["providers", "resume", "apps/hook"],
        &["streams", "apply"],
        &["streams", "recreate-consumer", "--from-time", "1m"],
    ] {
        let ended = tidings_with(&variables, &[arguments, &["--nats", url]].concat()).await;
        assert_eq!(ended.status, Some(0), "{arguments:?} {ended:?}");
        let stderr = ended.stderr.to_lowercase();
        assert!(!stderr.contains("violation"), "{arguments:?} {stderr}");
    }
    let mut tap = tokio::process::Command::new(crate::TIDINGS);
    tap.args(["tap", "--nats", url, "--since", "1h"])
        .envs(variables);
    let line = Following::start(tap).next().await;
    assert!(line.ends_with(": refused"), "{line}");
    receiver.accepts("refused").await;
}

#[tokio::test]
async fn shadow_mode_needs_no_more_than_the_credentials_of_router_and_worker() {
    let fleet = Fleet::start().await;
    let receiver = Receiver::start().await;
    fleet
        .rig
        .rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    fleet.add("dev-1").await;
    let in_shadow = |role: Role, name| fleet.with_credentials(role.args(["--shadow"]), name);
    let router = fleet.rig.run(in_shadow(Role::router(), "router")).await;
    let worker = fleet.rig.run(in_shadow(Role::worker(), "worker")).await;
    let ingest = fleet.rig.run(fleet.ingest("dev-1")).await;
    assert_eq!(ingest.post(&event("recorded")).await.unwrap().status, 202);

    let report = eventually("the event is recorded", async || {
        let report = ["shadow", "report", "--output", "json"];
        let report = fleet.tool(&report).await;
        let report = report.json().swap_remove(0);
        (report["records"] == 1).then_some(report)
    })
    .await;
    assert_eq!(report["outcomes"], json!({"would-send": 1}));
    eventually("the status shows both in shadow mode", async || {
        let status = fleet.tool(&["status", "--output", "json"]).await;
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        let processes = status["processes"].as_array()?.iter();
        let in_shadow = processes.filter(|process| process["isShadow"] == true);
        let roles: Vec<_> = in_shadow.map(|process| &process["role"]).collect();
        (roles == ["router", "worker"]).then_some(())
    })
    .await;
    for process in [&router, &worker] {
        assert_permitted(process);
    }
    assert!(router.log_events("shadow-not-recorded").is_empty());
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn the_credentials_of_a_router_suffice_for_its_console() {
    let fleet = Fleet::start().await;
    let address = format!("127.0.0.1:{}", free_port());
    let role = Role::router().args(["--console", &address]);
    let _router = fleet.rig.run(fleet.with_credentials(role, "router")).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in [
        "overview",
        "providers",
        "alerts",
        "deliveries?state=parked",
        "deliveries?state=ready",
        "dead",
        "events?past=10&outcomes=true",
    ] {
        let url = format!("http://{address}/api/{path}");
        assert_eq!(
            client.get(url).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
}
