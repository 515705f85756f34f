//! `tidings streams plan` against what a server stores, and the plan of `tidings streams apply`.

use std::time::Duration;

use serde_json::Value;
use tidings_core::model::stream_plan::FACTOR;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;
use crate::command::tidings;

/// The plan for a load.
async fn plan(arguments: &[&str]) -> Value {
    let plan = ["streams", "plan", "--output", "json"];
    let printed = tidings(&[&plan[..], arguments].concat()).await;
    printed.json().remove(0)
}

fn stream<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let streams = plan["streams"].as_array().unwrap();
    let found = streams.iter().find(|stream| stream["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {plan}"))
}

/// Bytes of a message, as the server reports it.
async fn stored(rig: &Rig, name: &str, least: u64) -> f64 {
    let jetstream = rig.jetstream().await;
    eventually(&format!("{least} messages in {name}"), async || {
        let mut stream = jetstream.get_stream(name).await.ok()?;
        let state = &stream.info().await.ok()?.state;
        (state.messages >= least).then(|| state.bytes as f64 / state.messages as f64)
    })
    .await
}

#[tokio::test]
async fn the_planned_sizes_are_those_that_a_server_stores() {
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(1000, "the receiver refuses all of them for now");
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    for size in [20, 2_000] {
        let body = event(&"x".repeat(size));
        let size = body.to_string().len().to_string();
        for number in 0..20 {
            let mut body = body.clone();
            body["involvedObject"]["name"] = format!("app-{number}").into();
            up.post(&body).await.unwrap();
        }
        rig.routed().await;
        let plan = plan(&["--event-size", &size]).await;
        for (name, least) in [("EVENTS", 20), ("DELIVERIES", 20), ("OUTCOMES", 3)] {
            let stored = stored(&rig, name, least).await;
            let planned = stream(&plan, name)["messageBytes"].as_f64().unwrap();
            let factor = planned / stored;
            assert!(
                (1.0 / FACTOR..=FACTOR).contains(&factor),
                "{name}, events of {size} bytes: planned {planned}, stored {stored}"
            );
        }
        let jetstream = rig.jetstream().await;
        for name in ["EVENTS", "OUTCOMES", "DELIVERIES"] {
            let stream = jetstream.get_stream(name).await.unwrap();
            stream.purge().await.unwrap();
        }
    }
    rig.expects_losses("the test purges the stream of deliveries");
}

#[tokio::test]
async fn a_cluster_counts_each_replica_and_the_plan_does_so_too() {
    let (rig, _cluster) = Rig::start_on_cluster(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(Role::ingest()).await;
    for number in 0..4 {
        let text = format!("{number} {}", "x".repeat(1 << 20));
        let posted = ingest.post(&event(&text)).await.unwrap();
        assert_eq!(posted.status, 202);
    }
    let jetstream = rig.jetstream().await;
    eventually("the account counts three replicas", async || {
        let mut stream = jetstream.get_stream("EVENTS").await.ok()?;
        let bytes = stream.info().await.ok()?.state.bytes;
        let account = jetstream.query_account().await.ok()?;
        (bytes > 4 << 20 && account.storage as f64 >= 2.9 * bytes as f64).then_some(())
    })
    .await;
    let plan = plan(&["--replicas", "3"]).await;
    let of_server = plan["server"]["storageBytes"].as_u64().unwrap();
    assert_eq!(plan["total"]["storageBytes"], 3 * of_server);
    rig.routed().await;
}

#[tokio::test]
async fn streams_that_are_applied_with_the_planned_settings_have_the_planned_limits() {
    let rig = Rig::start(TIDINGS).await;
    let load = ["--events-per-second", "0.2", "--replicas", "1"];
    let plan = plan(&load).await;
    let limit = plan["settings"]["nats.storage_limit"].as_str().unwrap();
    let apply = [
        "streams",
        "apply",
        "--nats",
        rig.url(),
        "--storage-limit",
        limit,
    ];
    tidings(&apply).await.lines();
    let jetstream = rig.jetstream().await;
    for name in ["EVENTS", "OUTCOMES", "DEAD"] {
        let stream_info = jetstream.get_stream(name).await.unwrap();
        let max_bytes = stream_info.cached_info().config.max_bytes;
        let planned = stream(&plan, name);
        assert_eq!(planned["limitBytes"], max_bytes, "{name}");
        assert!(
            planned["neededBytes"].as_i64().unwrap() <= max_bytes,
            "{name}"
        );
    }
    let text = tidings(&[&["streams", "plan"][..], &load].concat()).await;
    assert!(text.stdout.contains(limit), "{}", text.stdout);
}

#[tokio::test]
async fn apply_prints_each_change_first_and_a_dry_run_makes_none() {
    let rig = Rig::start(TIDINGS).await;
    let apply = ["streams", "apply", "--nats", rig.url()];
    let dry_run = [&apply[..], &["--dry-run"]].concat();
    let planned = tidings(&dry_run).await;
    assert!(planned.lines().contains(&"EVENTS: create"), "{planned:?}");
    let jetstream = rig.jetstream().await;
    assert!(jetstream.get_stream("EVENTS").await.is_err(), "a dry run");

    let applied = tidings(&apply).await;
    assert!(
        applied.lines().contains(&"KV_latest: create"),
        "{applied:?}"
    );
    let unchanged = tidings(&dry_run).await;
    assert_eq!(unchanged.lines(), ["all streams are up to date"]);

    let stream = jetstream.get_stream("EVENTS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_age = Duration::from_secs(3600);
    jetstream.update_stream(config).await.unwrap();
    let line = "EVENTS: update: max_age is 3600s, expected 259200s";
    for (arguments, age) in [(&dry_run[..], 3600), (&apply[..], 259_200)] {
        let planned = tidings(arguments).await;
        assert_eq!(planned.lines()[0], line);
        let stream = jetstream.get_stream("EVENTS").await.unwrap();
        let max_age = stream.cached_info().config.max_age;
        assert_eq!(max_age, Duration::from_secs(age));
    }
}

#[tokio::test]
async fn a_load_out_of_range_is_refused() {
    for (flag, value) in [
        ("--clusters", "0"),
        ("--events-per-second", "-1"),
        ("--events-per-second", "NaN"),
        ("--event-size", "99999999"),
        ("--outage", "soon"),
        ("--retention", "96h"),
        ("--replicas", "2"),
        ("--dead-percent", "101"),
    ] {
        let flag = format!("{flag}={value}");
        let refused = tidings(&["streams", "plan", &flag]).await;
        let name = flag.split('=').next().unwrap();
        refused.assert_error_names(&[name]);
    }
}
