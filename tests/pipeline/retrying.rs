//! Providers that fail for a while, or for good.

use std::time::Duration;

use serde_json::json;
use tidings_rig::{Ledger, Receiver, Reply, Rig, alert, event, eventually, provider};

use crate::TIDINGS;

/// Posts one event to a provider with this script; gives the receiver once it has accepted the
/// event, as the last of `count` tries.
async fn delivered_at_try(count: usize, receiver: Receiver) -> Receiver {
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url())
                .that_retries_soon()
                .with("timeout", json!("1s")),
            alert("all", "hook"),
        ],
    )
    .await;

    up.post(&event("persistent")).await.expect("ingest answers");

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
        "all tries of a delivery carry the same id: {keys:?}"
    );
    receiver
}

#[tokio::test]
async fn an_answer_503_is_tried_again() {
    delivered_at_try(2, Receiver::script([Reply::Status(503)]).await).await;
}

#[tokio::test]
async fn an_answer_429_is_tried_again_after_the_time_that_it_asks_for() {
    let receiver = delivered_at_try(2, Receiver::script([Reply::RetryAfter(429, 2)]).await).await;
    let [first, second] = [0, 1].map(|number| receiver.received()[number].at);
    assert!(
        second - first >= Duration::from_secs(2),
        "Retry-After is honoured in full, and it waited for {:?}",
        second - first
    );
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_tried_again() {
    delivered_at_try(2, Receiver::script([Reply::Close]).await).await;
}

#[tokio::test]
async fn an_answer_that_never_comes_is_tried_again() {
    delivered_at_try(2, Receiver::script([Reply::Stall]).await).await;
}

#[tokio::test]
async fn a_delivery_that_is_parked_again_and_again_within_the_window_is_not_lost() {
    delivered_at_try(6, Receiver::script([Reply::RetryAfter(503, 2); 5]).await).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_half_way_is_tried_again() {
    delivered_at_try(2, Receiver::script([Reply::CloseHalfWay]).await).await;
}

#[tokio::test]
async fn an_answer_400_makes_a_dead_letter_with_the_whole_story() {
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

    let letter = eventually("there is a dead letter", async || {
        rig.dead_letters().await.pop()
    })
    .await;
    let delivery = letter.delivery.expect("a dead letter holds its delivery");
    assert_eq!(
        delivery
            .event
            .expect("a small event is within its delivery")
            .message,
        "unwanted"
    );
    assert_eq!(
        delivery.alert.expect("a delivery names its alert").name,
        "all"
    );
    assert_eq!(
        delivery
            .provider
            .expect("a delivery names its provider")
            .name,
        "hook"
    );
    let answers: Vec<u32> = delivery
        .attempts
        .iter()
        .map(|attempt| attempt.status)
        .collect();
    assert_eq!(answers, [503, 400]);
    rig.drained().await;
}

#[tokio::test]
async fn a_delivery_older_than_its_provider_allows_is_a_dead_letter() {
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

    let letter = eventually("there is a dead letter", async || {
        rig.dead_letters().await.pop()
    })
    .await;
    assert_eq!(letter.reason, "exhausted");
    rig.drained().await;
}

#[tokio::test]
async fn a_provider_that_is_down_for_long_gets_everything_in_the_end() {
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
async fn a_sick_provider_does_not_delay_another_of_its_type() {
    let [sick, healthy] = [Receiver::start().await, Receiver::start().await];
    sick.answer_with(Reply::Stall);
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("sick", sick.url()).with("timeout", json!("20s")),
            alert("to-sick", "sick"),
        ],
    )
    .await;
    for number in 0..100 {
        up.post(&event(&format!("stuck {number}"))).await.unwrap();
    }
    sick.receives(1).await;

    rig.rules().put([
        provider("healthy", healthy.url()),
        alert("to-healthy", "healthy"),
    ]);

    let mut number = 0;
    eventually("the healthy provider gets an event", async || {
        number += 1;
        up.post(&event(&format!("flowing {number}"))).await.unwrap();
        (!healthy.accepted().is_empty()).then_some(())
    })
    .await;
}
