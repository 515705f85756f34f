//! `tidings deliveries list`.

use serde_json::{Value, json};
use tidings_rig::{Manifest, Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;
use crate::command::{Ended, tidings};

async fn list(rig: &Rig, more: &[&str]) -> Ended {
    let arguments = ["deliveries", "list", "--nats", rig.url()];
    tidings(&[&arguments, more].concat()).await
}

/// The deliveries as JSON.
async fn rows(rig: &Rig, more: &[&str]) -> Vec<Value> {
    let ended = list(rig, &[&["--output", "json"], more].concat()).await;
    let [line] = ended.lines()[..] else {
        panic!("one array is printed: {ended:?}")
    };
    serde_json::from_str(line).expect("the command prints an array")
}

fn patient(name: &str, receiver: &Receiver) -> Manifest {
    let retry = json!({"min": "1h", "max": "1h"});
    provider(name, receiver.url()).with("retry", retry)
}

#[tokio::test]
async fn ready_deliveries_are_listed_and_not_consumed() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let [ingest, _router] = rig
        .run_all([Role::ingest().args(["--cluster", "hub"]), Role::router()])
        .await;
    assert!(rows(&rig, &["--state", "ready"]).await.is_empty());
    for number in 0..3 {
        let event = event(&format!("event {number}"));
        ingest.post(&event).await.unwrap();
    }
    rig.routed().await;

    let ready = eventually("three deliveries are ready", async || {
        let ready = rows(&rig, &["--state", "ready"]).await;
        (ready.len() == 3).then_some(ready)
    })
    .await;
    let first = &ready[0];
    for (field, expected) in [
        ("state", json!("ready")),
        ("waitsFor", json!("worker")),
        ("provider", json!("apps/hook")),
        ("type", json!("generic")),
        ("pool", json!("default")),
        ("alert", json!("apps/all")),
        ("cluster", json!("hub")),
        ("attempts", json!(0)),
        ("reason", Value::Null),
        ("nextAttemptAt", Value::Null),
        (
            "object",
            json!({"kind": "Kustomization", "namespace": "apps", "name": "apps"}),
        ),
    ] {
        assert_eq!(first[field], expected, "{field} of {first}");
    }
    let two = list(&rig, &["--state", "ready", "--limit", "2"]).await;
    assert_eq!(two.lines().len(), 2);
    assert!(two.stderr.contains("--limit"), "{two:?}");
    assert!(rows(&rig, &["--state", "parked"]).await.is_empty());

    let _worker = rig.run(Role::worker()).await;
    receiver.receives(3).await;
    rig.drained().await;
    assert!(rows(&rig, &["--state", "ready"]).await.is_empty());
}

#[tokio::test]
async fn parked_deliveries_are_listed_with_reason_attempts_and_the_time_of_the_next_one() {
    let [failing, busy] = [Receiver::start().await, Receiver::start().await];
    failing.answer_with(Reply::Status(500));
    busy.answer_with(Reply::RetryAfter(429, 3600));
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(3, "they wait for an hour");
    rig.rules()
        .put([patient("failing", &failing), patient("busy", &busy)]);
    rig.rules()
        .put([alert("to-failing", "failing"), alert("to-busy", "busy")]);
    let up = rig.run(Role::up()).await;
    let posted = jiff::Timestamp::now();
    up.post(&event("waiting")).await.unwrap();
    let of = async |name: &str| rows(&rig, &["--provider", name]).await;

    let failed = eventually("a delivery to failing is parked", async || {
        of("apps/failing").await.pop()
    })
    .await;
    for (field, expected) in [
        ("state", json!("parked")),
        ("waitsFor", json!("retry")),
        ("provider", json!("apps/failing")),
        ("attempts", json!(1)),
        ("status", json!(500)),
        ("reason", json!("server-error")),
    ] {
        assert_eq!(failed[field], expected, "{field} of {failed}");
    }
    let next: jiff::Timestamp = failed["nextAttemptAt"].as_str().unwrap().parse().unwrap();
    assert!(next > posted, "{failed}");
    let refused = eventually("a delivery to busy is parked", async || {
        of("apps/busy").await.pop()
    })
    .await;
    assert_eq!(refused["reason"], "rate-limited", "{refused}");

    up.post(&event("behind it")).await.unwrap();
    eventually("a delivery waits for the circuit of busy", async || {
        let waiting = of("apps/busy").await;
        let waits = waiting.iter().any(|row| row["waitsFor"] == "circuit");
        (waiting.len() == 2 && waits).then_some(())
    })
    .await;
    let lines = list(&rig, &[]).await;
    for shown in ["apps/failing", "apps/busy", "server-error", "rate-limited"] {
        assert!(lines.stdout.contains(shown), "{shown:?}: {lines:?}");
    }
    rig.leaves_deliveries(4, "they wait for an hour");
}

#[tokio::test]
async fn wrong_arguments_are_refused_and_unknown_providers_are_named() {
    let receiver = Receiver::start().await;
    let rules = [provider("hook", receiver.url()), alert("all", "hook")];
    let (rig, _up) = Rig::up(TIDINGS, rules).await;
    for (arguments, named) in [
        (["--provider", "hook"], "--provider"),
        (["--limit", "0"], "--limit"),
        (["--limit", "10001"], "--limit"),
        (["--state", "dead"], "--state"),
    ] {
        list(&rig, &arguments).await.assert_error_names(&[named]);
    }
    let unknown = list(&rig, &["--provider", "apps/hok"]).await;
    assert!(unknown.lines().is_empty());
    assert!(unknown.stderr.contains("apps/hook"), "a hint: {unknown:?}");
}
