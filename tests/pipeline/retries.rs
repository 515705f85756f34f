//! Providers that fail temporarily or permanently.

use std::time::Duration;

use serde_json::json;
use tidings_rig::{Ledger, Receiver, Reply, Rig, alert, event, eventually, provider};

use crate::TIDINGS;

/// Posts one event to a provider with this receiver, and asserts that attempt `count` delivers it.
async fn is_delivered_at_attempt(count: usize, receiver: Receiver) -> Receiver {
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url())
                .that_retries_soon()
                .with("timeout", "1s"),
            alert("all", "hook"),
        ],
    )
    .await;

    up.post(&event("persistent"))
        .await
        .expect("ingest responds");

    receiver.accepts("persistent").await;
    rig.drained().await;
    let received = receiver.received();
    assert_eq!(received.len(), count);
    let keys: Vec<_> = received
        .iter()
        .map(|request| request.header("idempotency-key"))
        .collect();
    assert!(
        keys.iter().all(|key| *key == keys[0]),
        "all attempts of a delivery carry the same key: {keys:?}"
    );
    receiver
}

#[tokio::test]
async fn a_response_503_is_retried() {
    is_delivered_at_attempt(2, Receiver::script([Reply::Status(503)]).await).await;
}

#[tokio::test]
async fn a_response_429_is_retried_after_its_retry_after() {
    let receiver =
        is_delivered_at_attempt(2, Receiver::script([Reply::RetryAfter(429, 2)]).await).await;
    let [first, second] = [0, 1].map(|number| receiver.received()[number].at);
    assert!(
        second - first >= Duration::from_secs(2),
        "Retry-After is 2 s, but the retry came after {:?}",
        second - first
    );
}

#[tokio::test]
async fn a_connection_closed_without_a_response_is_retried() {
    is_delivered_at_attempt(2, Receiver::script([Reply::Close]).await).await;
}

#[tokio::test]
async fn a_timeout_is_retried() {
    is_delivered_at_attempt(2, Receiver::script([Reply::Stall]).await).await;
}

#[tokio::test]
async fn a_delivery_parked_repeatedly_within_the_duplicate_window_is_not_lost() {
    is_delivered_at_attempt(6, Receiver::script([Reply::RetryAfter(503, 2); 5]).await).await;
}

#[tokio::test]
async fn after_a_response_400_a_dead_letter_has_all_attempts() {
    let receiver = Receiver::script([Reply::Status(503), Reply::Status(400)]).await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url()).that_retries_soon(),
            alert("all", "hook"),
        ],
    )
    .await;

    up.post(&event("unwanted")).await.unwrap();

    let dead = eventually("there is a dead letter", async || {
        rig.dead_letters().await.pop()
    })
    .await;
    let delivery = dead.delivery.expect("a dead letter contains its delivery");
    assert_eq!(
        delivery
            .event
            .expect("a delivery contains a small event")
            .message,
        "unwanted"
    );
    assert_eq!(delivery.alert.expect("a delivery has an alert").name, "all");
    assert_eq!(
        delivery.provider.expect("a delivery has a provider").name,
        "hook"
    );
    let statuses: Vec<u32> = delivery
        .attempts
        .iter()
        .map(|attempt| attempt.status)
        .collect();
    assert_eq!(statuses, [503, 400]);
    rig.drained().await;
}

#[tokio::test]
async fn a_delivery_older_than_max_age_is_a_dead_letter() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let retry = json!({"min": "100ms", "max": "500ms", "maxAge": "2s"});
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url()).with("retry", retry),
            alert("all", "hook"),
        ],
    )
    .await;

    up.post(&event("too old")).await.unwrap();

    let dead = eventually("there is a dead letter", async || {
        rig.dead_letters().await.pop()
    })
    .await;
    assert_eq!(dead.reason, "exhausted");
    rig.drained().await;
}

#[tokio::test]
async fn a_provider_receives_everything_after_an_outage() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url()).that_retries_soon(),
            alert("all", "hook"),
        ],
    )
    .await;
    let mut ledger = Ledger::default();
    for number in 0..50 {
        ledger.post(&up, &format!("event {number}")).await;
    }
    receiver.receives(10).await;

    receiver.answer_with(Reply::Status(200));

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(balance.dead.is_empty(), "{:?}", balance.dead);
    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
}

#[tokio::test]
async fn a_provider_that_hangs_does_not_delay_another_of_its_type() {
    let [hanging, healthy] = [Receiver::start().await, Receiver::start().await];
    hanging.answer_with(Reply::Stall);
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hanging", hanging.url()).with("timeout", "20s"),
            alert("to-hanging", "hanging"),
        ],
    )
    .await;
    rig.leaves_deliveries(100, "the Provider `hanging` never responds");
    for number in 0..100 {
        up.post(&event(&format!("stuck {number}"))).await.unwrap();
    }
    hanging.receives(1).await;

    rig.rules().put([
        provider("healthy", healthy.url()),
        alert("to-healthy", "healthy"),
    ]);

    let mut number = 0;
    eventually("the healthy provider receives an event", async || {
        number += 1;
        up.post(&event(&format!("flowing {number}"))).await.unwrap();
        (!healthy.accepted().is_empty()).then_some(())
    })
    .await;
}
