//! A failing destination does not affect others.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_rig::{
    Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

/// An event about an object of this kind, so that another alert matches it.
fn about(kind: &str, message: &str) -> Value {
    let mut event = event(message);
    event["involvedObject"]["kind"] = kind.into();
    event
}

fn alert_about(kind: &str, name: &str, provider: &str) -> Manifest {
    alert(name, provider).with("eventSources", json!([{"kind": kind, "name": "*"}]))
}

async fn post(up: &Process, kind: &str, count: usize) {
    for number in 0..count {
        let answer = up
            .post(&about(kind, &format!("{kind} {number}")))
            .await
            .expect("ingest responds");
        assert_eq!(answer.status, 202);
    }
}

async fn attempts(up: &Process, outcome: &str) -> f64 {
    up.metric(
        "tidings_worker_attempts_total",
        &format!("outcome=\"{outcome}\""),
    )
    .await
}

/// The most requests that a receiver had at a time, if it takes this long for each.
fn most_at_once(receiver: &Receiver, takes: Duration) -> usize {
    let arrived: Vec<_> = receiver.received().iter().map(|it| it.at).collect();
    let during = |at| {
        arrived
            .iter()
            .filter(move |it| at < **it && **it < at + takes)
    };
    let counts = arrived.iter().map(|at| 1 + during(*at).count());
    counts.max().unwrap_or_default()
}

#[tokio::test]
async fn a_destination_that_takes_time_and_answers_gets_more_calls_at_a_time() {
    const TAKES: Duration = Duration::from_millis(400);
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Slow(TAKES));
    rig.rules().put([provider("hook", receiver.url())]);
    for number in 0..20 {
        rig.rules()
            .put([alert_about("Bucket", &format!("all-{number}"), "hook")]);
    }
    let up = rig.run(Role::up()).await;

    post(&up, "Bucket", 60).await;

    eventually("more than the first 64 calls at a time", async || {
        (most_at_once(&receiver, TAKES) > 80).then_some(())
    })
    .await;
    rig.drained().await;
}

#[tokio::test]
async fn a_hanging_destination_with_thousands_of_deliveries_delays_no_other() {
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(50 * 100, "the destination `hanging` never responds");
    let [hanging, healthy] = [Receiver::start().await, Receiver::start().await];
    hanging.answer_with(Reply::Stall);
    rig.rules().put([
        provider("hanging", hanging.url()).with("timeout", "30s"),
        provider("healthy", healthy.url()),
    ]);
    for number in 0..50 {
        rig.rules().put([alert_about(
            "Bucket",
            &format!("to-hanging-{number}"),
            "hanging",
        )]);
    }
    rig.rules()
        .put([alert_about("HelmRelease", "to-healthy", "healthy")]);
    let up = rig.run(Role::up()).await;

    post(&up, "Bucket", 100).await;
    let planned = async || {
        up.metric("tidings_router_deliveries_total", "generic")
            .await
    };
    eventually("five thousand deliveries are planned", async || {
        (planned().await >= 5000.0).then_some(())
    })
    .await;
    hanging.receives(1).await;
    post(&up, "HelmRelease", 100).await;
    healthy.receives(100).await;

    assert!(
        attempts(&up, "retrying").await < 0.5,
        "the hanging destination still holds its first attempts"
    );
    assert!(attempts(&up, "delivered").await <= 100.5);
}

#[tokio::test]
async fn a_rate_limited_destination_delays_no_other() {
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(499, "one destination accepts one delivery an hour");
    let [limited, healthy] = [Receiver::start().await, Receiver::start().await];
    rig.rules().put([
        provider("limited", limited.url()).with("rateLimit", "1/1h"),
        provider("healthy", healthy.url()),
    ]);
    rig.rules().put([
        alert_about("Bucket", "to-limited", "limited"),
        alert_about("HelmRelease", "to-healthy", "healthy"),
    ]);
    let up = rig.run(Role::up()).await;

    post(&up, "Bucket", 500).await;
    limited.receives(1).await;
    post(&up, "HelmRelease", 100).await;
    healthy.receives(100).await;

    assert_eq!(limited.received().len(), 1, "the rate limit allows one");
}

#[tokio::test]
async fn a_failing_channel_does_not_affect_other_channels_of_its_provider() {
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(
        5,
        "deliveries to the failing channel are retried after 10 minutes",
    );
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules()
        .put([provider("hook", receiver.url()).with("retry", json!({"min": "10m", "max": "10m"}))]);
    rig.rules()
        .put([alert_about("Bucket", "failing", "hook").with("channel", "failing")]);
    rig.rules()
        .put([alert_about("HelmRelease", "healthy", "hook").with("channel", "healthy")]);
    let up = rig.run(Role::up()).await;
    post(&up, "Bucket", 5).await;
    eventually("the circuit of the channel is open", async || {
        (up.metric("tidings_worker_circuit_state", "channel=\"failing\"")
            .await
            > 1.5)
            .then_some(())
    })
    .await;

    receiver.answer_with(Reply::Status(200));
    post(&up, "HelmRelease", 20).await;

    receiver.accepts("HelmRelease 19").await;
}
