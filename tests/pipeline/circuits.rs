//! Circuits: destinations that fail, that ask for a pause, or that a user pauses.

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

/// Runs `tidings providers …` on the rig's bus, and returns its output.
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

/// The only circuit, as `tidings providers circuits` prints it; `None` if it is closed.
async fn circuit(rig: &Rig) -> Option<Value> {
    let output = providers(rig, &["circuits", "--output", "jsonl"]).await;
    let line = output.lines().next()?;
    Some(serde_json::from_str(line).expect("the command prints JSON"))
}

/// Resumes a Provider, and returns the number of parked deliveries that were woken.
async fn resume(rig: &Rig, provider: &str) -> usize {
    let output = providers(rig, &["resume", provider]).await;
    let number = output.split(' ').find_map(|word| word.parse().ok());
    number.expect("the command prints the number of deliveries")
}

async fn is_open(rig: &Rig) {
    eventually("the circuit is open", async || {
        (circuit(rig).await?["state"] == "open").then_some(())
    })
    .await;
}

/// Waits until at least `count` deliveries were parked for this reason.
pub async fn parked(process: &Process, reason: &str, count: f64) {
    let labels = format!("outcome=\"{reason}\"");
    eventually(
        &format!("{count} deliveries are parked: {reason}"),
        async || {
            (process
                .metric("tidings_worker_deliveries_total", &labels)
                .await
                >= count)
                .then_some(())
        },
    )
    .await;
}

/// All parked deliveries, in the order of their retry time.
pub async fn all_parked(rig: &Rig) -> Vec<StreamMessage> {
    let stream = rig
        .jetstream()
        .await
        .get_stream("DELIVERIES")
        .await
        .expect("the roles created the stream");
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

async fn parked_last(rig: &Rig) -> StreamMessage {
    all_parked(rig).await.pop().expect("a delivery is parked")
}

/// Publishes an edited copy of a parked delivery for the workers.
async fn publish_copy(
    rig: &Rig,
    like: &StreamMessage,
    edit: impl FnOnce(&mut Delivery, &mut Event),
) {
    let mut delivery =
        Delivery::decode(like.payload.clone()).expect("a parked message is a delivery");
    let mut event = delivery.event.take().expect("the event is small");
    edit(&mut delivery, &mut event);
    delivery.event = Some(event);
    let target = like
        .headers
        .get("Nats-Schedule-Target")
        .expect("a parked message has a target")
        .to_string();
    let jetstream = rig.jetstream().await;
    let published = jetstream.publish(target, delivery.encode_to_vec().into());
    published
        .await
        .expect("the server responds")
        .await
        .expect("the message is stored");
}

/// Parks another event with the headers of a parked delivery, like a worker that has not noticed
/// yet that the circuit closed.
async fn park_late(rig: &Rig, like: &StreamMessage, message: &str) {
    let mut delivery =
        Delivery::decode(like.payload.clone()).expect("a parked message is a delivery");
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
                .expect("a parked message has the header")
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
        .expect("the server responds")
        .await
        .expect("the message is stored");
}

#[tokio::test]
async fn a_failing_destination_is_only_probed_and_then_receives_everything() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let retry = json!({"min": "1s", "max": "2s"});
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url()).with("retry", retry),
            alert("all", "hook"),
        ],
    )
    .await;
    let mut ledger = Ledger::default();
    for number in 0..5 {
        ledger.post(&up, &format!("first {number}")).await;
    }
    is_open(&rig).await;
    let before = receiver.received().len();

    for number in 0..100 {
        ledger.post(&up, &format!("blocked {number}")).await;
    }
    parked(&up, "circuit-open", 100.0).await;
    let received = receiver.receives(before + 3).await;

    for pair in received[before..].windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(
            apart >= Duration::from_millis(500),
            "probes are at least 500 ms apart, but two came within {apart:?}"
        );
    }
    receiver.answer_with(Reply::Status(200));
    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(
        balance.dead.is_empty() && balance.duplicates().is_empty(),
        "{balance:?}"
    );
    let failed = receiver.received().len() - 105;
    assert!(
        failed < 40,
        "a hundred parked deliveries cause few calls, but caused {failed}"
    );
    assert_eq!(circuit(&rig).await, None, "the circuit is closed");
}

#[tokio::test]
async fn a_requested_wait_of_zero_does_not_replace_the_backoff() {
    let receiver = Receiver::script([Reply::RetryAfter(429, 0)]).await;
    let hook = provider("hook", receiver.url()).with("retry", json!({"min": "1h", "max": "1h"}));
    let (rig, up) = Rig::up(TIDINGS, [hook, alert("all", "hook")]).await;
    rig.leaves_deliveries(1, "the first delivery is parked for up to an hour");
    up.post(&event("too much")).await.unwrap();
    is_open(&rig).await;

    up.post(&event("blocked")).await.unwrap();
    parked(&up, "circuit-open", 1.0).await;
    assert_eq!(
        receiver.received().len(),
        1,
        "the destination is not called"
    );

    resume(&rig, "apps/hook").await;
    receiver.accepts("blocked").await;
}

#[tokio::test]
async fn an_absurd_requested_wait_leaves_each_delivery_one_more_attempt() {
    let wait = Reply::RetryAfter(429, 10 * 365 * 24 * 3600);
    let receiver = Receiver::start().await;
    receiver.answer_with(wait);
    let hook = provider("hook", receiver.url()).with("retry", json!({"maxAge": "30s"}));
    let (rig, up) = Rig::up(TIDINGS, [hook, alert("all", "hook")]).await;
    up.post(&event("first")).await.unwrap();
    receiver.receives(1).await;

    receiver.answer_with(Reply::Status(200));
    up.post(&event("second")).await.unwrap();
    receiver.accepts("first").await;
    receiver.accepts("second").await;
    rig.drained().await;
}

#[tokio::test]
async fn an_open_circuit_survives_a_restart_of_all_workers() {
    let receiver = Receiver::script([Reply::RetryAfter(429, 3600)]).await;
    let (rig, mut up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
    rig.leaves_deliveries(1, "the first delivery is parked for an hour");
    up.post(&event("too much")).await.unwrap();
    is_open(&rig).await;

    up.kill().await;
    up.restart().await;
    up.post(&event("blocked")).await.unwrap();
    parked(&up, "circuit-open", 1.0).await;
    assert_eq!(
        receiver.received().len(),
        1,
        "the destination is not called"
    );
    assert!(
        up.metric("tidings_worker_circuit_state", "provider=\"hook\"")
            .await
            > 1.5,
        "the circuit is open"
    );

    resume(&rig, "apps/hook").await;
    receiver.accepts("blocked").await;
}

#[tokio::test]
async fn a_paused_provider_is_not_called_before_it_is_resumed() {
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
    let paused = circuit(&rig).await.expect("the circuit is listed");
    for (field, expected) in [
        ("namespace", json!("apps")),
        ("provider", json!("hook")),
        ("channel", Value::Null),
        ("state", json!("paused")),
        ("reason", json!("the service moves")),
    ] {
        assert_eq!(paused[field], expected, "{field} of {paused}");
    }
    up.kill().await;
    up.restart().await;
    for number in 0..30 {
        ledger.post(&up, &format!("event {number}")).await;
    }
    parked(&up, "paused", 30.0).await;
    other.receives(30).await;
    assert!(hook.received().is_empty());

    assert_eq!(resume(&rig, "apps/hook").await, 30);
    let balance = ledger.balanced(&rig, &hook).await;
    assert!(
        balance.duplicates().is_empty() && balance.dead.is_empty(),
        "{balance:?}"
    );
}

#[tokio::test]
async fn a_delivery_parked_while_a_pause_ends_is_attempted_at_once() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
    providers(&rig, &["pause", "apps/hook"]).await;
    up.post(&event("blocked")).await.unwrap();
    parked(&up, "paused", 1.0).await;
    let blocked = parked_last(&rig).await;

    resume(&rig, "apps/hook").await;
    park_late(&rig, &blocked, "late").await;

    receiver.accepts("late").await;
}

#[tokio::test]
async fn a_delivery_parked_while_a_circuit_closes_is_attempted_at_once() {
    let receiver = Receiver::script([Reply::RetryAfter(429, 5)]).await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
    up.post(&event("too much")).await.unwrap();
    is_open(&rig).await;
    up.post(&event("the next probe")).await.unwrap();
    parked(&up, "circuit-open", 1.0).await;
    up.post(&event("blocked")).await.unwrap();
    parked(&up, "circuit-open", 2.0).await;
    let blocked = parked_last(&rig).await;

    receiver.accepts("blocked").await;
    park_late(&rig, &blocked, "late").await;

    receiver.accepts("late").await;
}

#[tokio::test]
async fn a_pause_ends_when_its_bucket_is_deleted() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
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
        .expect("the bucket exists");

    let balance = ledger.balanced(&rig, &receiver).await;
    assert!(
        balance.duplicates().is_empty() && balance.dead.is_empty(),
        "{balance:?}"
    );
}

#[tokio::test]
async fn a_reserved_send_time_that_passes_during_a_pause_is_used_after_it() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [
            provider("hook", receiver.url()).with("rateLimit", "1/1h"),
            alert("all", "hook"),
        ],
    )
    .await;
    rig.leaves_deliveries(1, "one delivery is parked until its send time in an hour");
    up.post(&event("first")).await.unwrap();
    receiver.accepts("first").await;
    up.post(&event("in an hour")).await.unwrap();
    parked(&up, "rate-limited", 1.0).await;
    let limited = parked_last(&rig).await;
    providers(&rig, &["pause", "apps/hook"]).await;

    publish_copy(&rig, &limited, |delivery, event| {
        (delivery.id, event.message) = ("due".to_owned(), "due".to_owned());
        delivery.slot_ms = jiff::Timestamp::now().as_millisecond();
    })
    .await;
    parked(&up, "paused", 1.0).await;
    resume(&rig, "apps/hook").await;

    receiver.accepts("due").await;
    assert_eq!(receiver.count(), 2, "the next send time is an hour away");
}

#[tokio::test]
async fn a_delivery_without_a_permit_is_woken_when_its_provider_is_resumed() {
    let receiver = Receiver::script([Reply::Stall]).await;
    let hook = provider("hook", receiver.url())
        .with("maxInFlight", 1)
        .with("timeout", "2m");
    let (rig, up) = Rig::up(TIDINGS, [hook, alert("all", "hook")]).await;
    rig.leaves_deliveries(1, "one delivery hangs and has the only permit");
    up.post(&event("hangs")).await.unwrap();
    receiver.receives(1).await;
    up.post(&event("without a permit")).await.unwrap();
    parked(&up, "no-permit", 1.0).await;

    eventually("the delivery is woken", async || {
        (resume(&rig, "apps/hook").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_parked_state_does_not_expire_at_the_age_of_an_older_one() {
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(1, "the Provider stays paused");
    let forge = Forge::start().await;
    Forge::put_secret(rig.rules());
    rig.rules()
        .put([forge.provider("github"), alert("commits", "forge")]);
    let up = rig.run(Role::up()).await;
    providers(&rig, &["pause", "apps/forge"]).await;
    post_all(&up, [reconciled(COMMIT, 10, true)]).await;
    parked(&up, "paused", 1.0).await;
    let newest = parked_last(&rig).await;
    let planned_at = |message: &StreamMessage| {
        Delivery::decode(message.payload.clone())
            .expect("the message is a delivery")
            .planned_at
    };

    publish_copy(&rig, &newest, |delivery, event| {
        delivery.id = "older".to_owned();
        delivery
            .planned_at
            .as_mut()
            .expect("the delivery has a planning time")
            .seconds -= 3600;
        event
            .timestamp
            .as_mut()
            .expect("the event has a time")
            .seconds -= 5;
    })
    .await;
    parked(&up, "paused", 2.0).await;

    let replaced = eventually("the older one replaced the parked message", async || {
        Some(parked_last(&rig).await).filter(|parked| parked.sequence > newest.sequence)
    })
    .await;
    assert_eq!(
        planned_at(&replaced),
        planned_at(&newest),
        "the age is that of the newest state"
    );
}

/// Runs `tidings providers` with arguments that it refuses, and returns its errors.
async fn refused(rig: &Rig, arguments: &[&str]) -> String {
    let ended = Command::new(TIDINGS)
        .arg("providers")
        .args(arguments)
        .args(["--nats", rig.url()])
        .output()
        .await
        .expect("the tool can be started");
    assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[tokio::test]
async fn a_provider_that_does_not_exist_is_neither_paused_nor_resumed() {
    let rules = [provider("slack", "http://unused.invalid")];
    let (rig, mut up) = Rig::up(TIDINGS, rules).await;
    for command in ["pause", "resume"] {
        let error = refused(&rig, &[command, "apps/slak"]).await;
        assert!(error.contains("apps/slack"), "{error}");
        let error = refused(&rig, &[command, "slack"]).await;
        assert!(error.contains("apps/slack"), "{error}");
    }
    assert_eq!(circuit(&rig).await, None, "nothing is paused");
    providers(&rig, &["pause", "apps/slack"]).await;
    up.kill().await;

    refused(&rig, &["pause", "apps/planned"]).await;
    providers(&rig, &["pause", "apps/planned", "--force"]).await;
    for name in ["apps/planned", "apps/slack"] {
        providers(&rig, &["resume", name]).await;
    }
    assert_eq!(circuit(&rig).await, None);
}

#[tokio::test]
async fn resume_retries_a_delivery_that_waits_as_the_service_asked() {
    let receiver = Receiver::script([Reply::RetryAfter(429, 3600)]).await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
    up.post(&event("too much")).await.unwrap();
    is_open(&rig).await;
    eventually("the delivery is parked", async || {
        (!all_parked(&rig).await.is_empty()).then_some(())
    })
    .await;

    assert_eq!(resume(&rig, "apps/hook").await, 1);

    receiver.accepts("too much").await;
}

#[tokio::test]
async fn resume_says_which_send_times_are_reserved_and_force_sends_now() {
    let receiver = Receiver::start().await;
    let hook = provider("hook", receiver.url()).with("rateLimit", "1/1h");
    let (rig, up) = Rig::up(TIDINGS, [hook, alert("all", "hook")]).await;
    up.post(&event("first")).await.unwrap();
    receiver.accepts("first").await;
    up.post(&event("in an hour")).await.unwrap();
    parked(&up, "rate-limited", 1.0).await;

    let output = providers(&rig, &["resume", "apps/hook"]).await;
    let next_hour = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(58);
    let until = output
        .split_whitespace()
        .find_map(|word| word.trim_end_matches(';').parse::<jiff::Timestamp>().ok());
    assert!(until.is_some_and(|until| until > next_hour), "{output}");
    assert!(output.contains("--force"), "{output}");
    assert_eq!(receiver.count(), 1);

    providers(&rig, &["resume", "apps/hook", "--force"]).await;
    receiver.accepts("in an hour").await;
}
