//! Incidents at PagerDuty and incident.io, where the newest state wins.

use serde_json::{Value, json};
use tidings_rig::{Manifest, Receiver, Reply, Rig, Role, alert, event, provider, secret};

use crate::TIDINGS;
use crate::states::post_all;

fn event_at(second: u32, severity: &str) -> Value {
    let mut event = event(&format!("at {second}"));
    event["timestamp"] = format!("2026-01-02T03:04:{second:02}Z").into();
    event["severity"] = severity.into();
    event
}

/// Posts events with these severities and reasons, one after the other. Returns the bodies that
/// the service accepts.
async fn bodies(kind: &str, events: &[(&str, &str)]) -> Vec<Value> {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        secret("key", json!({"token": "hidden-token"})),
        provider("incidents", receiver.url())
            .with("type", kind)
            .with("channel", "routing-key")
            .with("secretRef", json!({"name": "key"})),
        alert("all", "incidents"),
    ]);
    let up = rig.run(Role::up()).await;
    for (second, (severity, reason)) in (0..).zip(events) {
        let mut event = event_at(second, severity);
        event["reason"] = (*reason).into();
        post_all(&up, [event]).await;
        rig.drained().await;
    }
    let requests = receiver.accepted();
    requests.iter().map(|request| request.json()).collect()
}

const INCIDENT: [(&str, &str); 6] = [
    ("error", "TFExecPlanFailed"),
    ("info", "DependencyNotReady"),
    ("info", "ProgressingWithRetry"),
    ("info", "RollbackSucceeded"),
    ("info", "SomethingNew"),
    ("info", "ApplySucceed"),
];

#[tokio::test]
async fn only_a_success_resolves_an_incident_of_pagerduty() {
    let bodies = bodies("pagerduty", &INCIDENT).await;
    let actions: Vec<&Value> = bodies.iter().map(|body| &body["event_action"]).collect();
    assert_eq!(
        actions,
        [&json!("trigger"), &json!("resolve"), &Value::Null]
    );
}

#[tokio::test]
async fn only_a_success_resolves_an_alert_of_incident_io() {
    let bodies = bodies("incident.io", &INCIDENT).await;
    let statuses: Vec<&Value> = bodies.iter().map(|body| &body["status"]).collect();
    assert_eq!(statuses, ["firing", "resolved"]);
}

/// Posts a failure, which the service does not accept at first, and then a success. Returns the
/// bodies that the service accepts.
async fn accepted(kind: &str, with: impl FnOnce(Manifest) -> Manifest) -> Vec<Value> {
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([secret("key", json!({"token": "hidden-token"}))]);
    let receiver = Receiver::script([Reply::RetryAfter(503, 2)]).await;
    let incidents = provider("incidents", receiver.url())
        .with("type", kind)
        .that_retries_soon();
    rig.rules()
        .put([with(incidents), alert("all", "incidents")]);
    let up = rig.run(Role::up()).await;

    post_all(&up, [event_at(1, "error")]).await;
    receiver.receives(1).await;
    post_all(&up, [event_at(2, "info")]).await;
    rig.drained().await;

    receiver
        .accepted()
        .iter()
        .map(|request| request.json())
        .collect()
}

#[tokio::test]
async fn a_retried_trigger_is_not_sent_after_its_resolve_to_pagerduty() {
    let bodies = accepted("pagerduty", |provider| {
        provider.with("channel", "routing-key")
    })
    .await;
    let actions: Vec<&Value> = bodies.iter().map(|body| &body["event_action"]).collect();
    assert_eq!(
        actions,
        [&json!("resolve"), &Value::Null],
        "the resolve, and a change event: {bodies:?}"
    );
}

#[tokio::test]
async fn a_retried_alert_is_not_sent_after_its_resolve_to_incident_io() {
    let bodies = accepted("incident.io", |provider| {
        provider.with("secretRef", json!({"name": "key"}))
    })
    .await;
    let statuses: Vec<&Value> = bodies.iter().map(|body| &body["status"]).collect();
    assert_eq!(statuses, ["resolved"], "{bodies:?}");
}
