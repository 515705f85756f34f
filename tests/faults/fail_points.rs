//! A process dies at a named point: between what it caused and its acknowledgement.
//!
//! Each test fails if its point was not reached: the process has to die there.

use std::os::unix::process::ExitStatusExt;

use serde_json::json;
use tidings_rig::{Balance, Ledger, Process, Receiver, Reply, Rig, Role, alert, event, provider};

use crate::TIDINGS;

const KILLED: i32 = 9;

/// Posts events while the roles run, one of which dies at `point` when it reaches it for the third
/// time; starts that one again, and settles the account.
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
    dies_and_comes_back(&mut roles, point).await;
    ledger
        .post_insistently(&roles[0], (0..20).map(|number| format!("event {number}")))
        .await;

    ledger.settled(&rig, receiver).await
}

async fn dies_and_comes_back(roles: &mut [Process; 3], point: &str) {
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
async fn an_ingest_that_dies_between_storing_and_answering_loses_nothing_and_doubles_nothing() {
    let balance = survives("ingest:stored", &Receiver::start().await).await;
    assert_eq!(balance.received.len(), 20);
    assert!(
        balance.duplicates().is_empty(),
        "the sender's repetition is a duplicate: {:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn a_router_that_dies_between_planning_and_acknowledging_loses_nothing_and_doubles_nothing() {
    let balance = survives("router:enqueued", &Receiver::start().await).await;
    assert_eq!(balance.received.len(), 20);
    assert!(
        balance.duplicates().is_empty(),
        "a delivery is planned once: {:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn a_worker_that_dies_between_a_success_and_settling_doubles_at_most_what_was_in_flight() {
    let balance = survives("worker:accepted", &Receiver::start().await).await;
    assert_eq!(balance.received.len(), 20);
    let duplicates = balance.duplicates();
    assert!(
        duplicates.len() <= 10 && duplicates.values().all(|count| *count == 2),
        "{duplicates:?}"
    );
    assert!(
        !duplicates.is_empty(),
        "what was accepted before the death and not settled comes again"
    );
}

#[tokio::test]
async fn a_worker_that_dies_between_parking_and_acknowledging_doubles_at_most_what_was_in_flight() {
    let receiver = Receiver::script([Reply::RetryAfter(503, 2); 10]).await;
    let balance = survives("worker:parked", &receiver).await;
    assert_eq!(balance.received.len(), 20);
    // What was parked comes when it is due, and what was not acknowledged comes again: when the
    // copy has gone out before, nothing tells the two apart but the idempotency key.
    let duplicates = balance.duplicates();
    assert!(
        duplicates.len() <= 10 && duplicates.values().all(|count| *count == 2),
        "{duplicates:?}"
    );
}

#[tokio::test]
async fn a_worker_that_dies_between_a_dead_letter_and_acknowledging_loses_nothing() {
    let receiver = Receiver::script([Reply::Status(400); 10]).await;
    let balance = survives("worker:buried", &receiver).await;
    assert!(!balance.dead.is_empty());
    assert_eq!(
        balance.received.len() + balance.dead.len(),
        20 + balance.in_both().count()
    );
}

#[tokio::test]
async fn a_worker_that_dies_while_it_alone_may_write_a_state_leaves_the_state_to_be_written() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: apps}\nstringData: {token: hidden-token}\n";
    rig.rules().put_text("secret.yaml", secret);
    let incidents = provider("incidents", receiver.url()).with("type", json!("incident.io"));
    // The lease lasts as long as a few calls may take.
    rig.rules().put([
        incidents
            .with("secretRef", json!({"name": "key"}))
            .with("timeout", json!("1s")),
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
    assert_eq!(
        receiver.received().len(),
        1,
        "it died before its call, so there is one"
    );
}
