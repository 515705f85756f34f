//! Equal reports of a member that is cut off: those that count as new arrive, the others do not.
//!
//! The dedupe interval of the edge is a second here, and that of the hub is as long as ever. So a
//! few seconds are what three hours would be.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_rig::{Process, event};
use tokio::time::sleep;

use super::Site;

fn report(severity: &str, message: &str, second: usize) -> Value {
    let mut report = event(message);
    report["severity"] = json!(severity);
    let reason = match severity {
        "error" => "HealthCheckFailed",
        _ => "ReconciliationSucceeded",
    };
    report["reason"] = json!(reason);
    report["timestamp"] = json!(format!(
        "2026-01-02T03:{:02}:{:02}Z",
        second / 60,
        second % 60
    ));
    report
}

async fn accepted(edge: &Process, report: &Value) -> bool {
    let answer = edge.post(report).await.unwrap();
    assert!(matches!(answer.status, 202 | 429), "{answer:?}");
    answer.status == 202
}

#[tokio::test]
async fn equal_reports_of_different_intervals_all_arrive_after_a_cut() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    site.cable.cut();
    let role = site.edge().args(["--dedupe-interval", "1s"]);
    let edge = site.fleet.rig.run(role).await;
    let mut posted = Vec::new();
    for number in 0..8 {
        let error = report("error", "health check failed", number);
        assert!(accepted(&edge, &error).await, "{number}");
        assert!(!accepted(&edge, &error).await, "{number}: a retry");
        posted.push("health check failed".to_owned());
        sleep(Duration::from_millis(1100)).await;
    }
    site.cable.restore();
    site.stores(&posted).await;
}

#[tokio::test]
async fn errors_and_successes_in_turn_all_arrive_after_a_cut() {
    let site = Site::new().await;
    let _router = site.router("5m").await;
    site.cable.cut();
    let edge = site.fleet.rig.run(site.edge()).await;
    let mut posted = Vec::new();
    for number in 0..30 {
        let (severity, message) = match number % 2 {
            0 => ("error", "health check failed"),
            _ => ("info", "healthy again"),
        };
        let report = report(severity, message, number);
        assert!(accepted(&edge, &report).await, "{number}");
        assert!(!accepted(&edge, &report).await, "{number}: a retry");
        posted.push(message.to_owned());
    }
    site.cable.restore();
    site.stores(&posted).await;
}
