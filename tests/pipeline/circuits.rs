//! Destinations that are not called for a while: because they failed, because they asked for it, or
//! by hand.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use serde_json::{Value, json};
use tidings_core::{Delivery, Event, Message};
use tidings_rig::{
    Forge, Ledger, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};
use tokio::process::Command;

use crate::TIDINGS;
use crate::states::{COMMIT, post_all, reconciled};

/// `tidings providers …` on the rig's bus; gives what it prints.
async fn providers(rig: &Rig, arguments: &[&str]) -> String {
    let ended = Command::new(TIDINGS)
        .arg("providers")
        .args(arguments)
        .args(["--nats", rig.url()])
        .output()
        .await;
    let ended = ended.expect("the tool can be started");
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// The state that the tool shows of the only circuit.
async fn state(rig: &Rig) -> Option<String> {
    let line = providers(rig, &["circuits", "--output", "json"]).await;
    let circuit: Value = serde_json::from_str(line.lines().next()?).expect("it prints JSON");
    Some(circuit["state"].as_str()?.to_owned())
}

async fn is_open(rig: &Rig) {
    eventually("the circuit is open", async || {
        (state(rig).await.as_deref() == Some("open")).then_some(())
    })
    .await;
}

/// Waits until so many messages have been parked for this reason.
pub async fn parked(process: &Process, why: &str, count: f64) {
    let labels = format!("outcome=\"{why}\"");
    eventually(&format!("{count} deliveries are {why}"), async || {
        (process
            .metric("tidings_worker_deliveries_total", &labels)
            .await
            >= count)
            .then_some(())
    })
    .await;
}

/// What is parked, the longest last.
pub async fn all_parked(rig: &Rig) -> Vec<StreamMessage> {
    let stream = rig
        .jetstream()
        .await
        .get_stream("DELIVERIES")
        .await
        .expect("the roles have made it");
    let (mut all, mut from) = (Vec::new(), 1);
    while let Ok(message) = stream
        .direct_get_next_for_subject("parked.>", Some(from))
        .await
    {
        from = message.sequence + 1;
        all.push(message);
    }
    all.sort_by_key(|message| {
        message
            .headers
            .get("Nats-Schedule")
            .map(ToString::to_string)
    });
    all
}

async fn parked_longest(rig: &Rig) -> StreamMessage {
    all_parked(rig).await.pop().expect("something is parked")
}

/// Puts a delivery, made from one that is parked, where workers take it.
async fn comes(rig: &Rig, like: &StreamMessage, edit: impl FnOnce(&mut Delivery, &mut Event)) {
    let mut delivery =
        Delivery::decode(like.payload.clone()).expect("what is parked is a delivery");
    let mut event = delivery.event.take().expect("the event is small");
    edit(&mut delivery, &mut event);
    delivery.event = Some(event);
    let target = like
        .headers
        .get("Nats-Schedule-Target")
        .expect("it is parked")
        .to_string();
    let jetstream = rig.jetstream().await;
    let published = jetstream.publish(target, delivery.encode_to_vec().into());
    published
        .await
        .expect("the server answers")
        .await
        .expect("it is stored");
}

/// Does as a worker that has not heard yet that a destination is called again: parks an event as
/// another one was parked before.
async fn park_late(rig: &Rig, like: &StreamMessage, message: &str) {
    let mut delivery =
        Delivery::decode(like.payload.clone()).expect("what is parked is a delivery");
    delivery.event.as_mut().expect("the event is small").message = message.to_owned();
    let mut headers = HeaderMap::new();
    for name in [
        "Nats-Schedule",
        "Nats-Schedule-Target",
        "Tidings-Until-Woken",
    ] {
        headers.insert(
            name,
            like.headers
                .get(name)
                .expect("it is parked until it is woken")
                .to_owned(),
        );
    }
    let (provider, _) = like.subject.rsplit_once('.').expect("a subject has tokens");
    let jetstream = rig.jetstream().await;
    let parked = jetstream.publish_with_headers(
        format!("{provider}.late"),
        headers,
        delivery.encode_to_vec().into(),
    );
    parked
        .await
        .expect("the server answers")
        .await
        .expect("it is stored");
}

#[tokio::test]
async fn a_destination_that_fails_is_only_probed_until_it_answers_and_then_gets_everything() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let retry = json!({"min": "1s", "max": "2s"});
    rig.rules().put([
        provider("hook", receiver.url()).with("retry", retry),
        alert("all", "hook"),
    ]);
    let up = rig.run(Role::up()).await;
    let mut ledger = Ledger::default();
    for number in 0..5 {
        ledger.post(&up, &format!("first {number}")).await;
    }
    is_open(&rig).await;
    let before = receiver.received().len();

    for number in 0..100 {
        ledger.post(&up, &format!("held up {number}")).await;
    }
    parked(&up, "circuit-open", 100.0).await;
    let received = receiver.receives(before + 3).await;

    for pair in received[before..].windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(
            apart >= Duration::from_millis(500),
            "probes come one by one, and two came within {apart:?}"
        );
    }
    receiver.answer_with(Reply::Status(200));
    let balance = ledger.settled(&rig, &receiver).await;
    assert!(
        balance.dead.is_empty() && balance.duplicates().is_empty(),
        "{balance:?}"
    );
    let failed = receiver.received().len() - 105;
    assert!(
        failed < 40,
        "a hundred deliveries that wait for a destination cost it few calls, and cost {failed}"
    );
    assert_eq!(state(&rig).await, None, "it is closed and well");
}

#[tokio::test]
async fn an_open_circuit_outlives_every_worker() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::script([Reply::RetryAfter(429, 3600)]).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut up = rig.run(Role::up()).await;
    up.post(&event("too much")).await.unwrap();
    is_open(&rig).await;

    up.kill().await;
    up.restart().await;
    up.post(&event("held up")).await.unwrap();
    parked(&up, "circuit-open", 1.0).await;
    assert_eq!(receiver.received().len(), 1, "nobody calls it");
    assert!(
        up.metric("tidings_worker_circuit_state", "provider=\"hook\"")
            .await
            > 1.5,
        "it is open"
    );

    providers(&rig, &["resume", "apps/hook"]).await;
    receiver.accepts("held up").await;
}

#[tokio::test]
async fn a_provider_that_is_paused_is_not_called_before_it_is_resumed() {
    let rig = Rig::start(TIDINGS).await;
    let [hook, other] = [Receiver::start().await, Receiver::start().await];
    rig.rules()
        .put([provider("hook", hook.url()), alert("all", "hook")]);
    rig.rules()
        .put([provider("other", other.url()), alert("all-others", "other")]);
    let mut up = rig.run(Role::up()).await;
    let mut ledger = Ledger::default();

    providers(
        &rig,
        &["pause", "apps/hook", "--reason", "the service moves"],
    )
    .await;
    let circuits = providers(&rig, &["circuits"]).await;
    assert!(
        circuits.contains("apps/hook * paused") && circuits.contains("the service moves"),
        "{circuits}"
    );
    up.kill().await;
    up.restart().await;
    for number in 0..30 {
        ledger.post(&up, &format!("event {number}")).await;
    }
    parked(&up, "paused", 30.0).await;
    other.receives(30).await;
    assert!(hook.received().is_empty());

    let told = providers(&rig, &["resume", "apps/hook"]).await;
    assert!(told.contains("30 parked"), "{told}");
    let balance = ledger.settled(&rig, &hook).await;
    assert!(
        balance.duplicates().is_empty() && balance.dead.is_empty(),
        "{balance:?}"
    );
}

#[tokio::test]
async fn what_is_being_parked_while_a_pause_ends_does_not_wait_for_another() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    providers(&rig, &["pause", "apps/hook"]).await;
    up.post(&event("held up")).await.unwrap();
    parked(&up, "paused", 1.0).await;
    let held_up = parked_longest(&rig).await;

    providers(&rig, &["resume", "apps/hook"]).await;
    park_late(&rig, &held_up, "late").await;

    receiver.accepts("late").await;
}

#[tokio::test]
async fn what_is_being_parked_while_a_circuit_closes_does_not_wait_for_another_outage() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::script([Reply::RetryAfter(429, 5)]).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    up.post(&event("too much")).await.unwrap();
    is_open(&rig).await;
    up.post(&event("the next probe")).await.unwrap();
    parked(&up, "circuit-open", 1.0).await;
    up.post(&event("held up")).await.unwrap();
    parked(&up, "circuit-open", 2.0).await;
    let held_up = parked_longest(&rig).await;

    receiver.accepts("held up").await;
    park_late(&rig, &held_up, "late").await;

    receiver.accepts("late").await;
}

#[tokio::test]
async fn a_pause_that_is_lost_with_its_bucket_holds_up_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    let mut ledger = Ledger::default();
    providers(&rig, &["pause", "apps/hook"]).await;
    for number in 0..10 {
        ledger.post(&up, &format!("event {number}")).await;
    }
    parked(&up, "paused", 10.0).await;

    rig.jetstream()
        .await
        .delete_key_value("limits")
        .await
        .expect("the bucket is there");

    let balance = ledger.settled(&rig, &receiver).await;
    assert!(
        balance.duplicates().is_empty() && balance.dead.is_empty(),
        "{balance:?}"
    );
}

#[tokio::test]
async fn a_slot_that_has_come_while_a_provider_is_paused_is_used_once_it_is_resumed() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).with("rateLimit", json!("1/1h")),
        alert("all", "hook"),
    ]);
    let up = rig.run(Role::up()).await;
    up.post(&event("first")).await.unwrap();
    receiver.accepts("first").await;
    up.post(&event("in an hour")).await.unwrap();
    parked(&up, "rate-limited", 1.0).await;
    let limited = parked_longest(&rig).await;
    providers(&rig, &["pause", "apps/hook"]).await;

    comes(&rig, &limited, |delivery, event| {
        (delivery.id, event.message) = ("due".to_owned(), "due".to_owned());
        delivery.slot_ms = jiff::Timestamp::now().as_millisecond();
    })
    .await;
    parked(&up, "paused", 1.0).await;
    providers(&rig, &["resume", "apps/hook"]).await;

    receiver.accepts("due").await;
    assert_eq!(
        receiver.count(),
        2,
        "nobody else has a slot before an hour has passed"
    );
}

#[tokio::test]
async fn what_found_no_seat_is_woken_when_its_provider_is_resumed() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::script([Reply::Stall]).await;
    let hook = provider("hook", receiver.url())
        .with("maxInFlight", json!(1))
        .with("timeout", json!("2m"));
    rig.rules().put([hook, alert("all", "hook")]);
    let up = rig.run(Role::up()).await;
    up.post(&event("hangs")).await.unwrap();
    receiver.receives(1).await;
    up.post(&event("finds no seat")).await.unwrap();
    parked(&up, "no-permit", 1.0).await;

    eventually("it is woken", async || {
        providers(&rig, &["resume", "apps/hook"])
            .await
            .contains("1 parked")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_state_that_waits_is_not_given_up_at_the_age_of_an_older_one() {
    let rig = Rig::start(TIDINGS).await;
    let forge = Forge::start().await;
    Forge::put_secret(rig.rules());
    rig.rules()
        .put([forge.provider("github"), alert("commits", "forge")]);
    let up = rig.run(Role::up()).await;
    providers(&rig, &["pause", "apps/forge"]).await;
    post_all(&up, [reconciled(COMMIT, 10, true)]).await;
    parked(&up, "paused", 1.0).await;
    let newest = parked_longest(&rig).await;
    let planned_at = |message: &StreamMessage| {
        Delivery::decode(message.payload.clone())
            .expect("it is a delivery")
            .planned_at
    };

    comes(&rig, &newest, |delivery, event| {
        delivery.id = "older".to_owned();
        delivery
            .planned_at
            .as_mut()
            .expect("it was planned")
            .seconds -= 3600;
        event
            .timestamp
            .as_mut()
            .expect("the event has a time")
            .seconds -= 5;
    })
    .await;
    parked(&up, "paused", 2.0).await;

    let waits = eventually("the older one has taken the place", async || {
        Some(parked_longest(&rig).await).filter(|parked| parked.sequence > newest.sequence)
    })
    .await;
    assert_eq!(
        planned_at(&waits),
        planned_at(&newest),
        "it waits for the newest state"
    );
}
