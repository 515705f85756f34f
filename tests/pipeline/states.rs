//! Commit statuses: the newest state wins, and an unchanged state causes no call.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use serde_json::{Value, json};
use tidings_core::{Delivery, Message};
use tidings_rig::{Forge, Process, Rejection, Rig, Role, Status, alert, event, eventually};

use crate::TIDINGS;
use crate::circuits::{all_parked, parked};

pub const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

/// A rig with the Secret of the forge.
pub async fn rig() -> Rig {
    let rig = Rig::start(TIDINGS).await;
    Forge::put_secret(rig.rules());
    rig
}

/// Starts a forge, a rig with a Provider of type github for it, and `tidings up`.
pub async fn start() -> (Forge, Rig, Process) {
    let (forge, rig) = (Forge::start().await, rig().await);
    rig.rules()
        .put([forge.provider("github"), alert("commits", "forge")]);
    let up = rig.run(Role::up()).await;
    (forge, rig, up)
}

/// An event of a Kustomization for a commit, `second` seconds after 03:00.
pub fn reconciled(commit: &str, second: u32, succeeded: bool) -> Value {
    let mut event = event(&format!("reconciled at {second}"));
    event["timestamp"] = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60).into();
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{commit}")});
    if !succeeded {
        event["severity"] = "error".into();
        event["reason"] = "HealthCheckFailed".into();
    }
    event
}

pub async fn post_all(process: &Process, events: impl IntoIterator<Item = Value>) {
    for event in events {
        assert_eq!(
            process.post(&event).await.expect("ingest responds").status,
            202
        );
    }
}

/// Waits until DELIVERIES has `count` messages: ready, in progress or parked.
async fn deliveries_are(rig: &Rig, count: u64) {
    let jetstream = rig.jetstream().await;
    eventually(&format!("{count} messages are in DELIVERIES"), async || {
        let mut stream = jetstream.get_stream("DELIVERIES").await.ok()?;
        (stream.info().await.ok()?.state.messages == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_status_causes_no_call_and_every_change_causes_one() {
    let (forge, rig, up) = start().await;

    for (first, succeeded) in [(0, true), (20, false), (40, true)] {
        post_all(
            &up,
            (first..first + 10).map(|second| reconciled(COMMIT, second, succeeded)),
        )
        .await;
        rig.drained().await;
    }

    assert_eq!(forge.states(), ["success", "failure", "success"]);
    assert_eq!(forge.contents().reads, 1, "the forge is read once");
}

#[tokio::test]
async fn an_older_event_that_arrives_later_is_superseded() {
    let (forge, rig, up) = start().await;

    post_all(&up, [reconciled(COMMIT, 30, true)]).await;
    rig.drained().await;
    post_all(&up, [reconciled(COMMIT, 10, false)]).await;
    rig.drained().await;

    assert_eq!(forge.states(), ["success"]);
}

#[tokio::test]
async fn an_event_about_progress_sets_no_status() {
    let (forge, rig, up) = start().await;
    let mut progressing = reconciled(COMMIT, 30, true);
    progressing["reason"] = "Progressing".into();

    post_all(&up, [progressing]).await;
    rig.drained().await;

    assert_eq!(forge.calls(), 0);
}

/// An event about `kind` for the commit, with this severity and reason.
fn reported(kind: &str, second: u32, severity: &str, reason: &str) -> Value {
    let mut event = reconciled(COMMIT, second, true);
    event["involvedObject"]["kind"] = kind.into();
    event["severity"] = severity.into();
    event["reason"] = reason.into();
    event
}

#[tokio::test]
async fn an_info_that_is_no_success_sets_no_status() {
    let (forge, rig, up) = start().await;
    let reasons = [
        "DependencyNotReady",
        "ArtifactFailed",
        "ProgressingWithRetry",
        "Suspended",
        "RollbackSucceeded",
        "SomethingNew",
    ];
    let mut events = Vec::new();
    for (second, reason) in (0..).zip(reasons) {
        let mut event = reported("Kustomization", second, "info", reason);
        events.push(event.clone());
        // The router passes on what names a commit explicitly.
        event["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = "update".into();
        event["message"] = format!("update {second}").into();
        events.push(event);
    }

    post_all(&up, events).await;
    rig.drained().await;

    assert_eq!(forge.calls(), 0);
}

#[tokio::test]
async fn any_kind_that_sets_a_failure_can_set_a_success() {
    let (forge, rig) = (Forge::start().await, rig().await);
    let sources = json!([{"kind": "Terraform", "name": "*"}, {"kind": "App", "name": "*"}]);
    let states = json!({"Deployed": "success"});
    rig.rules().put([
        forge.provider("github").with("reasonStates", states),
        alert("commits", "forge").with("eventSources", sources),
    ]);
    let up = rig.run(Role::up()).await;

    for (second, kind, severity, reason) in [
        (1, "Terraform", "error", "TFExecPlanFailed"),
        (2, "Terraform", "info", "TerraformPlanSucceed"),
        (3, "Terraform", "info", "ApplySucceed"),
        (4, "App", "error", "DeployFailed"),
        (5, "App", "info", "Deployed"),
    ] {
        post_all(&up, [reported(kind, second, severity, reason)]).await;
        rig.drained().await;
    }

    assert_eq!(forge.states(), ["failure", "success", "failure", "success"]);
}

#[tokio::test]
async fn an_event_from_2099_does_not_block_later_ones() {
    let (forge, rig, up) = start().await;
    let mut from_2099 = reconciled(COMMIT, 0, true);
    from_2099["timestamp"] = "2099-01-01T00:00:00Z".into();
    // Both times count as at most a minute after receipt, and this event is received later.
    let mut next = reconciled(COMMIT, 1, false);
    next["timestamp"] = jiff::Timestamp::now()
        .checked_add(Duration::from_secs(600))
        .expect("the time is valid")
        .to_string()
        .into();

    post_all(&up, [from_2099]).await;
    rig.drained().await;
    post_all(&up, [next]).await;
    rig.drained().await;

    assert_eq!(forge.states(), ["success", "failure"]);
}

#[tokio::test]
async fn after_an_outage_each_commit_gets_one_write_with_its_newest_state() {
    let (forge, rig, up) = start().await;
    forge.reject(Some(Rejection::status(503)));

    let commits: Vec<String> = (0..100).map(|number| format!("{number:040x}")).collect();
    for second in 0..10 {
        post_all(
            &up,
            commits
                .iter()
                .map(|commit| reconciled(commit, second, second % 2 == 0)),
        )
        .await;
    }
    deliveries_are(&rig, 100).await;
    forge.reject(None);
    rig.drained().await;

    let mut writes = forge.contents().writes.clone();
    writes.sort();
    assert_eq!(
        writes,
        commits
            .into_iter()
            .map(|commit| (commit, "failure".to_owned()))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn events_during_a_rate_limit_of_the_forge_become_one_write() {
    let limits = [
        (
            403,
            "retry-after",
            "You have exceeded a secondary rate limit.",
        ),
        (403, "x-ratelimit-reset", "API rate limit exceeded"),
        (429, "retry-after", ""),
    ];
    for (status, header, body) in limits {
        let (forge, rig, up) = start().await;
        let reset = jiff::Timestamp::now().as_second() + 2;
        let headers = match header {
            "retry-after" => vec![("retry-after", "2".to_owned())],
            _ => vec![
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", reset.to_string()),
            ],
        };
        forge.reject(Some(Rejection {
            status,
            headers,
            body,
        }));

        post_all(
            &up,
            (0..10).map(|second| reconciled(COMMIT, second, second % 2 == 0)),
        )
        .await;
        deliveries_are(&rig, 1).await;
        forge.reject(None);
        rig.drained().await;

        assert_eq!(forge.states(), ["failure"], "{status} {header}");
        assert!(rig.dead_letters().await.is_empty(), "{status} {header}");
    }
}

#[tokio::test]
async fn a_key_keeps_its_reserved_send_time_until_it_is_due() {
    const HOUR_MS: i64 = 3_600_000;
    let (forge, rig) = (Forge::start().await, rig().await);
    rig.leaves_deliveries(2, "the rate limit allows one write an hour");
    rig.rules().put([
        forge.provider("github").with("rateLimit", "1/1h"),
        alert("commits", "forge"),
    ]);
    let up = rig.run(Role::up()).await;
    let commits: Vec<String> = (0..3).map(|number| format!("{number:040x}")).collect();
    let slots = async || {
        let delivery = |message: StreamMessage| {
            Delivery::decode(message.payload).expect("a parked message is a delivery")
        };
        all_parked(&rig)
            .await
            .into_iter()
            .map(|message| delivery(message).slot_ms)
            .collect::<Vec<_>>()
    };
    let planned = async |count: f64| {
        let planned = async || up.metric("tidings_router_deliveries_total", "").await;
        eventually("all deliveries are planned", async || {
            (planned().await >= count).then_some(())
        })
        .await;
    };
    post_all(&up, [reconciled(&commits[0], 0, true)]).await;
    eventually("the first status is set", async || {
        (!forge.contents().writes.is_empty()).then_some(())
    })
    .await;
    post_all(&up, [reconciled(&commits[1], 0, true)]).await;
    parked(&up, "rate-limited", 1.0).await;
    let slot_ms = slots().await[0];

    post_all(
        &up,
        (1..20).map(|second| reconciled(&commits[1], second, second % 2 == 0)),
    )
    .await;
    planned(21.0).await;
    deliveries_are(&rig, 1).await;
    post_all(&up, [reconciled(&commits[2], 0, true)]).await;
    planned(22.0).await;

    let expected = [slot_ms, slot_ms + HOUR_MS];
    eventually("the next send time belongs to the next key", async || {
        (slots().await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_commit_with_the_maximum_number_of_statuses_is_a_dead_letter() {
    let (forge, rig, up) = start().await;
    let body = r#"{"message": "Validation Failed",
        "errors": "This SHA and context has reached the maximum number of statuses."}"#;

    post_all(&up, [reconciled(COMMIT, 0, true)]).await;
    rig.drained().await;
    forge.reject(Some(Rejection {
        status: 422,
        headers: Vec::new(),
        body,
    }));
    post_all(&up, [reconciled(COMMIT, 1, false)]).await;
    rig.drained().await;

    let dead = rig.dead_letters().await;
    assert_eq!(dead.len(), 1);
    let attempts = &dead[0]
        .delivery
        .as_ref()
        .expect("it has a delivery")
        .attempts;
    let last = attempts.last().expect("it has attempts");
    assert_eq!((dead[0].reason.as_str(), last.status), ("rejected", 422));
}

#[tokio::test]
async fn a_deleted_bucket_causes_one_read_of_each_key_and_no_write() {
    let (forge, rig, up) = start().await;
    post_all(&up, [reconciled(COMMIT, 0, true)]).await;
    rig.drained().await;
    let others = (0..120).map(|number| Status {
        commit: COMMIT.to_owned(),
        entry: json!({
            "context": format!("ci/{number}"), "state": "success", "description": "built",
        }),
    });
    forge.contents().statuses.extend(others);
    let reads = forge.contents().reads;

    rig.jetstream()
        .await
        .delete_key_value("latest")
        .await
        .expect("the bucket exists");
    post_all(&up, [reconciled(COMMIT, 1, true)]).await;
    rig.drained().await;
    assert_eq!(forge.states(), ["success"]);
    assert_eq!(
        forge.contents().reads - reads,
        3,
        "its own status is on the last of three pages"
    );

    post_all(&up, (2..6).map(|second| reconciled(COMMIT, second, true))).await;
    rig.drained().await;
    assert_eq!(forge.contents().reads - reads, 3, "a key is read once");
    post_all(&up, [reconciled(COMMIT, 6, false)]).await;
    rig.drained().await;
    assert_eq!(forge.states(), ["success", "failure"]);
}

#[tokio::test]
async fn records_expire_ninety_days_after_their_last_write() {
    let (_forge, rig, _up) = start().await;
    let bucket = rig
        .jetstream()
        .await
        .get_stream("KV_latest")
        .await
        .expect("the bucket exists");
    let config = &bucket.cached_info().config;
    assert_eq!(config.max_age, Duration::from_secs(90 * 24 * 3600));
    assert_eq!(
        (
            config.max_messages_per_subject,
            config.max_messages,
            config.max_bytes
        ),
        (1, -1, -1),
        "no other limit deletes records"
    );
}
