//! `/metrics`: what goes into a stage comes out of it in one of its outcomes.

use serde_json::json;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;

#[tokio::test]
async fn each_stage_counts_as_many_outcomes_as_inputs() {
    let rig = Rig::start(TIDINGS).await;
    let fickle = Receiver::script([Reply::Status(503), Reply::Status(429), Reply::Close]).await;
    let refusing = Receiver::start().await;
    refusing.answer_with(Reply::Status(400));
    rig.rules().put([
        provider("fickle", fickle.url()).that_retries_soon(),
        provider("refusing", refusing.url()),
    ]);
    rig.rules().put([
        alert("to-fickle", "fickle"),
        alert("to-refusing", "refusing"),
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
    fickle.receives(13).await;
    refusing.receives(10).await;
    rig.drained().await;

    let ingested = async |outcome: &str| up.metric("tidings_ingest_events_total", outcome).await;
    assert_eq!(ingested("").await, 14.0);
    assert_eq!(ingested("\"accepted\"").await, 11.0);
    assert_eq!(ingested("\"duplicate\"").await, 1.0);
    assert_eq!(ingested("\"invalid\"").await, 1.0);
    assert_eq!(ingested("\"too-large\"").await, 1.0);
    let routed = async |outcome: &str| up.metric("tidings_router_events_total", outcome).await;
    eventually("what is accepted is routed", async || {
        (routed("").await == 11.0).then_some(())
    })
    .await;
    assert_eq!(
        (routed("\"planned\"").await, routed("\"unmatched\"").await),
        (10.0, 1.0)
    );
    assert_eq!(up.metric("tidings_router_deliveries_total", "").await, 20.0);
    let settled = async |outcome: &str| up.metric("tidings_worker_deliveries_total", outcome).await;
    eventually("what is planned is settled for good", async || {
        (settled("\"delivered\"").await == 10.0 && settled("\"dead\"").await == 10.0).then_some(())
    })
    .await;
    assert_eq!(settled("\"retrying\"").await, 3.0);
    assert_eq!(settled("").await, 23.0, "nothing else became of them");
    assert_eq!(up.metric("tidings_worker_attempts_total", "").await, 23.0);
    eventually("nothing is held", async || {
        (up.metric("tidings_worker_deliveries_in_flight", "").await == 0.0).then_some(())
    })
    .await;
}
