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

    let ingested = "tidings_ingest_events_total";
    up.counts(ingested, "", 14.0).await;
    up.counts(ingested, "\"accepted\"", 11.0).await;
    for outcome in ["\"duplicate\"", "\"invalid\"", "\"too-large\""] {
        up.counts(ingested, outcome, 1.0).await;
    }
    let routed = "tidings_router_events_total";
    up.counts(routed, "", 11.0).await;
    up.counts(routed, "\"planned\"", 10.0).await;
    up.counts(routed, "\"unmatched\"", 1.0).await;
    up.counts("tidings_router_deliveries_total", "", 20.0).await;
    let ended = "tidings_worker_deliveries_total";
    up.counts(ended, "\"delivered\"", 10.0).await;
    up.counts(ended, "\"dead\"", 10.0).await;
    up.counts(ended, "\"retrying\"", 3.0).await;
    // There are no other outcomes.
    up.counts(ended, "", 23.0).await;
    up.counts("tidings_worker_attempts_total", "", 23.0).await;
    let of_provider = "namespace=\"apps\",provider=\"flaky\"";
    for metric in [
        "tidings_worker_attempts_total",
        "tidings_worker_deliveries_total",
    ] {
        up.counts(metric, of_provider, 13.0).await;
    }
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    up.counts("tidings_build_info", &version, 1.0).await;
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
