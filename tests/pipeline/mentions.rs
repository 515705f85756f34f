//! Mentions in events and in Alerts, from the event endpoint to the service.

use serde_json::json;
use tidings_rig::{Receiver, Rig, alert, event, provider};

use crate::TIDINGS;

#[tokio::test]
async fn an_event_mentions_nobody_and_the_alerts_summary_and_metadata_do() {
    let receiver = Receiver::start().await;
    let chat = provider("chat", receiver.url()).with("type", "rocket");
    let all = alert("all", "chat")
        .with("summary", "for @oncall")
        .with("eventMetadata", json!({"team": "@sre"}));
    let (_rig, up) = Rig::up(TIDINGS, [chat, all]).await;
    let mut hostile = event("failed for @all and admin@example.com");
    hostile["metadata"] = json!({
        "event.toolkit.fluxcd.io/summary": "lost @here",
        "event.toolkit.fluxcd.io/note": "@here",
        "kustomize.toolkit.fluxcd.io/revision": "main@sha1:8f5d",
    });

    up.post(&hostile).await.expect("ingest responds");

    let body = receiver.receives(1).await.remove(0).json();
    let attachment = &body["attachments"][0];
    assert_eq!(
        attachment["text"],
        "failed for @\u{200b}all and admin@example.com"
    );
    let fields = json!([
        { "title": "summary", "value": "for @oncall", "short": false },
        { "title": "note", "value": "@\u{200b}here", "short": false },
        { "title": "revision", "value": "main@sha1:8f5d", "short": false },
        { "title": "team", "value": "@sre", "short": false },
    ]);
    assert_eq!(attachment["fields"], fields);
}
