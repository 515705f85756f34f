//! A process dies at a fail point between a side effect and its acknowledgement.
//!
//! A test fails when its process does not die at the point.

use std::os::unix::process::ExitStatusExt;

use serde_json::json;
use tidings_rig::{
    Balance, Ledger, Process, Receiver, Reply, Rig, Role, alert, event, provider, secret,
};

use crate::TIDINGS;

const KILLED: i32 = 9;

/// Posts events while one role dies when it reaches `point` for the third time. Restarts the role,
/// and returns the balance of the events.
async fn survives(point: &str, receiver: &Receiver) -> Balance {
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let third = format!("{point}@3");
    let role = |name: &str, role: Role| {
        if point.starts_with(name) {
            role.env("FAIL_POINT", &third)
        } else {
            role
        }
    };
    let router = rig.spawn(role("router:", Role::router()));
    let worker = rig.spawn(role("worker:", Role::worker()));
    let ingest = rig.spawn(role("ingest:", Role::ingest()));
    let mut roles = [ingest, router, worker];
    for process in &roles {
        process.ready().await;
    }
    let mut ledger = Ledger::default();

    for number in 0..10 {
        ledger.post(&roles[0], &format!("event {number}")).await;
    }
    dies_and_restarts(&mut roles, point).await;
    ledger
        .post_until_accepted(&roles[0], (0..20).map(|number| format!("event {number}")))
        .await;

    ledger.balanced(&rig, receiver).await
}

async fn dies_and_restarts(roles: &mut [Process; 3], point: &str) {
    let [ingest, router, worker] = roles;
    let dying = match point.split_once(':') {
        Some(("ingest", _)) => ingest,
        Some(("router", _)) => router,
        _ => worker,
    };
    let status = dying.ended().await;
    assert_eq!(
        status.signal(),
        Some(KILLED),
        "{point} was not reached: {status}"
    );
    dying.reaches_fail_point(point).await;
    dying.restart_without(&["FAIL_POINT"]).await;
}

#[tokio::test]
async fn ingest_dying_before_its_response_loses_and_duplicates_nothing() {
    let balance = survives("ingest:stored", &Receiver::start().await).await;
    assert_eq!(balance.received.len(), 20);
    assert!(
        balance.duplicates().is_empty(),
        "the sender's retry is a duplicate: {:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn a_router_dying_before_its_acknowledgement_loses_and_duplicates_nothing() {
    let balance = survives("router:enqueued", &Receiver::start().await).await;
    assert_eq!(balance.received.len(), 20);
    assert!(
        balance.duplicates().is_empty(),
        "a delivery is planned once: {:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn a_worker_dying_after_a_success_duplicates_only_what_was_in_flight() {
    let balance = survives("worker:accepted", &Receiver::start().await).await;
    assert_eq!(balance.received.len(), 20);
    let duplicates = balance.duplicates();
    assert!(
        duplicates.len() <= 10 && duplicates.values().all(|count| *count == 2),
        "{duplicates:?}"
    );
    assert!(
        !duplicates.is_empty(),
        "accepted deliveries that were not acknowledged are redelivered"
    );
}

#[tokio::test]
async fn a_worker_dying_after_parking_duplicates_only_what_was_in_flight() {
    let receiver = Receiver::script([Reply::RetryAfter(503, 2); 10]).await;
    let balance = survives("worker:parked", &receiver).await;
    assert_eq!(balance.received.len(), 20);
    // The parked copy is delivered when it is due, and the unacknowledged message is redelivered.
    // Only the idempotency key shows that both are the same delivery.
    let duplicates = balance.duplicates();
    assert!(
        duplicates.len() <= 10 && duplicates.values().all(|count| *count == 2),
        "{duplicates:?}"
    );
}

#[tokio::test]
async fn a_worker_dying_after_a_dead_letter_loses_nothing() {
    let receiver = Receiver::script([Reply::Status(400); 10]).await;
    let balance = survives("worker:dead-letter-stored", &receiver).await;
    assert!(!balance.dead.is_empty());
    assert_eq!(
        balance.received.len() + balance.dead.len(),
        20 + balance.in_both().count()
    );
}

#[tokio::test]
async fn a_state_is_written_after_the_worker_with_its_lease_dies() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([secret("key", json!({"token": "hidden-token"}))]);
    let incidents = provider("incidents", receiver.url()).with("type", "incident.io");
    rig.rules().put([
        incidents
            .with("secretRef", json!({"name": "key"}))
            .with("timeout", "1s"),
        alert("all", "incidents"),
    ]);
    let (ingest, _router) = (rig.spawn(Role::ingest()), rig.run(Role::router()).await);
    let mut worker = rig
        .run(Role::worker().env("FAIL_POINT", "worker:leased"))
        .await;
    ingest.ready().await;

    ingest.post(&event("failed")).await.unwrap();
    let status = worker.ended().await;
    assert_eq!(
        status.signal(),
        Some(KILLED),
        "worker:leased was not reached: {status}"
    );
    worker.restart_without(&["FAIL_POINT"]).await;

    receiver.receives(1).await;
    rig.drained().await;
    assert_eq!(receiver.received().len(), 1, "the dead worker made no call");
}
