//! `/metrics`: each stage counts one outcome for each input.

use serde_json::json;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

#[tokio::test]
async fn each_stage_counts_one_outcome_for_each_input() {
    let rig = Rig::start(TIDINGS).await;
    let flaky = Receiver::script([Reply::Status(503), Reply::Status(429), Reply::Close]).await;
    let rejecting = Receiver::start().await;
    rejecting.answer_with(Reply::Status(400));
    rig.rules().put([
        provider("flaky", flaky.url()).that_retries_soon(),
        provider("rejecting", rejecting.url()),
    ]);
    rig.rules().put([
        alert("to-flaky", "flaky"),
        alert("to-rejecting", "rejecting"),
    ]);
    let up = rig.run(Role::up()).await;
    let mut statuses = Vec::new();
    for number in 0..10 {
        statuses.push(
            up.post(&event(&format!("matched {number}")))
                .await
                .unwrap()
                .status,
        );
    }
    let mut unmatched = event("unmatched");
    unmatched["involvedObject"]["kind"] = json!("Deployment");
    for event in [
        &unmatched,
        &unmatched,
        &json!({}),
        &event(&"x".repeat(9 << 20)),
    ] {
        statuses.push(up.post(event).await.unwrap().status);
    }
    assert_eq!(statuses[10..], [202, 429, 400, 413]);
    flaky.receives(13).await;
    rejecting.receives(10).await;
    rig.drained().await;

    let ingested = async |outcome: &str| up.metric("tidings_ingest_events_total", outcome).await;
    assert_eq!(ingested("").await, 14.0);
    assert_eq!(ingested("\"accepted\"").await, 11.0);
    assert_eq!(ingested("\"duplicate\"").await, 1.0);
    assert_eq!(ingested("\"invalid\"").await, 1.0);
    assert_eq!(ingested("\"too-large\"").await, 1.0);
    let routed = async |outcome: &str| up.metric("tidings_router_events_total", outcome).await;
    eventually("every accepted event is routed", async || {
        (routed("").await == 11.0).then_some(())
    })
    .await;
    assert_eq!(
        (routed("\"planned\"").await, routed("\"unmatched\"").await),
        (10.0, 1.0)
    );
    assert_eq!(up.metric("tidings_router_deliveries_total", "").await, 20.0);
    let ended = async |outcome: &str| up.metric("tidings_worker_deliveries_total", outcome).await;
    eventually("every delivery is delivered or dead", async || {
        (ended("\"delivered\"").await == 10.0 && ended("\"dead\"").await == 10.0).then_some(())
    })
    .await;
    assert_eq!(ended("\"retrying\"").await, 3.0);
    assert_eq!(ended("").await, 23.0, "there are no other outcomes");
    assert_eq!(up.metric("tidings_worker_attempts_total", "").await, 23.0);
    let of_provider = "namespace=\"apps\",provider=\"flaky\"";
    for metric in [
        "tidings_worker_attempts_total",
        "tidings_worker_deliveries_total",
    ] {
        assert_eq!(up.metric(metric, of_provider).await, 13.0, "{metric}");
    }
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(up.metric("tidings_build_info", &version).await, 1.0);
    let last = up.metric(
        "tidings_last_event_timestamp_seconds",
        "cluster=\"default\"",
    );
    assert!(last.await > 1_700_000_000.0, "the last event has a time");
    eventually("no delivery is in progress", async || {
        (up.metric("tidings_worker_deliveries_in_flight", "").await == 0.0).then_some(())
    })
    .await;
}
