//! Notices: the watchdog, and the fallback that reports what failed.

use std::time::Duration;

use async_nats::jetstream::kv::Store;
use serde_json::json;
use tidings_core::model::time::to_proto;
use tidings_core::wire::NoticeState;
use tidings_core::{AlertReference, Delivery, Event, Message as _, ProviderReference};
use tidings_rig::{
    Process, Received, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

const WATCHDOG: &str = "notice=\"watchdog\"";
const OF_DEAD_LETTER: &str = "what=\"dead-letter\"";
const OF_CIRCUIT: &str = "what=\"circuit\"";

/// A role with a watchdog: `apps/watchdog`.
fn with_watchdog(role: Role, interval: &str) -> Role {
    role.env("TIDINGS_WATCHDOG__PROVIDER", "apps/watchdog")
        .env("TIDINGS_WATCHDOG__INTERVAL", interval)
}

/// `tidings up` with a fallback, `apps/fallback`, that sends one notice an hour.
fn with_fallback() -> Role {
    Role::up()
        .env("TIDINGS_FALLBACK__PROVIDER", "apps/fallback")
        .env("TIDINGS_FALLBACK__INTERVAL", "1h")
        .env("TIDINGS_FALLBACK__CIRCUIT_OPEN_FOR", "1s")
}

/// Deliveries to `apps/hook` fail, and the fallback reports that.
struct Bed {
    rig: Rig,
    up: Process,
    hook: Receiver,
    fallback: Receiver,
}

impl Bed {
    async fn start() -> Self {
        let rig = Rig::start(TIDINGS).await;
        let [hook, fallback] = [Receiver::start().await, Receiver::start().await];
        hook.answer_with(Reply::Status(404));
        let retry = json!({"min": "1s", "max": "1s"});
        rig.rules().put([
            provider("hook", hook.url()).with("retry", retry.clone()),
            provider("fallback", fallback.url()).with("retry", retry),
            alert("all", "hook"),
        ]);
        let up = rig.run(with_fallback()).await;
        let bed = Self {
            rig,
            up,
            hook,
            fallback,
        };
        bed.looks().await;
        bed
    }

    async fn bucket(&self) -> Store {
        let bucket = self.rig.jetstream().await.get_key_value("consumers").await;
        bucket.expect("the roles created the bucket")
    }

    async fn state(&self) -> Option<NoticeState> {
        let value = self.bucket().await.get("notice.fallback").await.ok()??;
        Some(NoticeState::decode(value).expect("the record is a state"))
    }

    /// Waits until a router looks for failures from now on.
    async fn looks(&self) {
        eventually("a router looks for failures", async || self.state().await).await;
    }

    /// Posts events, and waits until their deliveries are dead.
    async fn dies(&self, messages: impl IntoIterator<Item = String>) {
        let before = self.rig.dead_letters().await.len();
        let mut posted = 0;
        for message in messages {
            assert_eq!(
                self.up
                    .post(&event(&message))
                    .await
                    .expect("it responds")
                    .status,
                202
            );
            posted += 1;
        }
        self.has_dead(before + posted).await;
    }

    async fn has_dead(&self, count: usize) {
        eventually(&format!("{count} dead letters"), async || {
            (self.rig.dead_letters().await.len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until the last notice is stored, and makes it as old as the interval is long.
    async fn an_hour_passes(&self) {
        let bucket = self.bucket().await;
        eventually("the last notice is an hour old", async || {
            let entry = bucket.entry("notice.fallback").await.ok()??;
            let state = NoticeState::decode(entry.value).ok()?;
            let last = jiff::Timestamp::now() - Duration::from_secs(7200);
            let older = NoticeState {
                last: Some(to_proto(last)),
                ..state.clone()
            };
            let is_stored = state.pending.is_none() && state.last.is_some();
            let update = bucket.update(
                "notice.fallback",
                older.encode_to_vec().into(),
                entry.revision,
            );
            (is_stored && update.await.is_ok()).then_some(())
        })
        .await;
    }

    async fn excluded(&self, what: &str, count: f64) {
        eventually(&format!("{count} are excluded: {what}"), async || {
            let name = "tidings_router_notices_excluded_total";
            (self.up.metric(name, what).await == count).then_some(())
        })
        .await;
    }
}

fn named(count: usize, prefix: &str) -> Vec<String> {
    let names = (0..count).map(|number| format!("{prefix} {number}"));
    names.collect()
}

fn key(received: &Received) -> String {
    let key = received.header("idempotency-key");
    key.expect("a generic provider receives the key").to_owned()
}

#[tokio::test]
async fn the_watchdog_comes_once_in_each_interval_from_two_routers() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([provider("watchdog", receiver.url())]);
    let router = || with_watchdog(Role::router(), "1s");
    let [mut first, mut second, _worker] = rig.run_all([router(), router(), Role::worker()]).await;

    receiver.receives(5).await;
    let mut stored = 0.0;
    for router in [&mut first, &mut second] {
        stored += router
            .metric("tidings_router_notices_total", WATCHDOG)
            .await;
        router.terminate().await;
    }
    rig.drained().await;

    let received = receiver.received();
    let mut keys: Vec<_> = received.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), received.len(), "each notice comes once");
    assert!(stored >= 4.0, "{stored} were stored");
    let body = received[0].json();
    assert_eq!(body["reason"], "Watchdog");
    assert_eq!(body["severity"], "info");
    assert_eq!(body["reportingController"], "tidings");
    assert!(rig.dead_letters().await.is_empty());
}

#[tokio::test]
async fn a_watchdogs_notice_that_is_late_is_not_sent() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([provider("watchdog", receiver.url())]);
    let mut router = rig.run(with_watchdog(Role::router(), "1s")).await;
    eventually("three notices wait", async || {
        let stored = router.metric("tidings_router_notices_total", WATCHDOG);
        (stored.await >= 3.0).then_some(())
    })
    .await;
    let _worker = rig.run(Role::worker()).await;
    receiver.receives(1).await;
    router.terminate().await;
    rig.drained().await;

    eventually("an outcome of each notice is published", async || {
        let outcomes = rig.outcomes().await.into_iter();
        let names = outcomes.filter_map(|outcome| Some(outcome.attempt?.outcome));
        let names: Vec<_> = names.collect();
        let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
        (count("superseded") >= 2 && count("delivered") == receiver.count()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_causes_one_notice_and_many_in_an_interval_cause_one() {
    let mut bed = Bed::start().await;
    bed.dies(named(1, "first")).await;
    let first = bed.fallback.receives(1).await[0].json();
    let message = first["message"].as_str().unwrap();
    assert!(message.contains("- apps/hook: not-found (1)"), "{message}");
    assert_eq!(first["severity"], "error");
    assert!(
        !message.contains(bed.hook.url()),
        "an address may be a secret: {message}"
    );

    bed.dies(named(20, "many")).await;
    assert!(bed.up.terminate().await.success());
    bed.up.restart().await;
    assert_eq!(bed.fallback.count(), 1, "the interval did not pass");
    bed.an_hour_passes().await;
    let second = bed.fallback.receives(2).await[1].message();
    assert!(second.contains("- apps/hook: not-found (20)"), "{second}");

    // Dead letters that no router has read are reported after a restart, and others are not again.
    bed.an_hour_passes().await;
    assert!(bed.up.terminate().await.success());
    bed.up.restart().await;
    bed.dies(named(1, "last")).await;
    let third = bed.fallback.receives(3).await[2].message();
    assert!(third.contains("- apps/hook: not-found (1)"), "{third}");
    bed.rig.drained().await;
    assert_eq!(bed.fallback.count(), 3);
}

#[tokio::test]
async fn the_end_of_a_notice_causes_no_notice() {
    let bed = Bed::start().await;
    bed.fallback.answer_with(Reply::Status(404));
    bed.dies(named(1, "first")).await;
    bed.fallback.receives(1).await;
    bed.has_dead(2).await;
    bed.an_hour_passes().await;
    bed.excluded(OF_DEAD_LETTER, 1.0).await;
    bed.up.logs("notice-failed").await;

    bed.fallback.answer_with(Reply::Status(200));
    bed.dies(named(1, "second")).await;
    let second = bed.fallback.receives(2).await[1].message();
    assert!(second.starts_with("1 delivery was given up"), "{second}");
    assert!(!second.contains("fallback"), "{second}");
}

#[tokio::test]
async fn a_circuit_that_stays_open_is_reported_once() {
    let bed = Bed::start().await;
    bed.hook.answer_with(Reply::Status(503));
    for message in named(5, "unavailable") {
        assert_eq!(bed.up.post(&event(&message)).await.unwrap().status, 202);
    }
    let first = bed.fallback.receives(1).await[0].message();
    assert!(
        first.contains("1 circuit is open for 1s") && first.contains("- apps/hook, since "),
        "{first}"
    );

    bed.an_hour_passes().await;
    let gone = Receiver::start().await;
    gone.answer_with(Reply::Status(404));
    let rules = [provider("gone", gone.url()), alert("other", "gone")];
    bed.rig.rules().put(rules);
    eventually("a delivery to the other Provider is dead", async || {
        let message = format!("dead {:?}", std::time::Instant::now());
        bed.up.post(&event(&message)).await.ok()?;
        let dead = bed.rig.dead_letters().await;
        (!dead.is_empty()).then_some(())
    })
    .await;
    let second = bed.fallback.receives(2).await[1].message();
    assert!(second.contains("- apps/gone: not-found"), "{second}");
    assert!(!second.contains("circuit"), "{second}");
    bed.hook.answer_with(Reply::Status(200));
    bed.rig.drained().await;
}

#[tokio::test]
async fn the_circuit_of_the_fallback_is_only_counted() {
    let bed = Bed::start().await;
    bed.fallback.answer_with(Reply::Status(503));
    bed.dies(named(1, "first")).await;
    bed.fallback.receives(5).await;
    bed.an_hour_passes().await;
    bed.excluded(OF_CIRCUIT, 1.0).await;

    bed.fallback.answer_with(Reply::Status(200));
    bed.rig.drained().await;
    assert_eq!(bed.fallback.accepted().len(), 1);
    assert_eq!(bed.rig.dead_letters().await.len(), 1);
}

#[tokio::test]
async fn a_notice_that_another_router_planned_is_stored_once() {
    let mut bed = Bed::start().await;
    bed.up.kill().await;
    let provider = ProviderReference {
        namespace: "apps".into(),
        name: "fallback".into(),
        r#type: "generic".into(),
        pool: "default".into(),
    };
    let alert = AlertReference {
        namespace: "apps".into(),
        name: "tidings:fallback".into(),
        ..AlertReference::default()
    };
    let planned = Event {
        id: "planned".into(),
        message: "planned before the crash".into(),
        ..Event::default()
    };
    let state = NoticeState {
        last: Some(to_proto(jiff::Timestamp::now())),
        pending: Some(Delivery {
            id: "planned".into(),
            event_id: planned.id.clone(),
            event: Some(planned),
            alert: Some(alert),
            provider: Some(provider),
            notice: "fallback".into(),
            ..Delivery::default()
        }),
        ..bed.state().await.unwrap()
    };
    let bucket = bed.bucket().await;
    let put = bucket.put("notice.fallback", state.encode_to_vec().into());
    put.await.expect("the bucket takes a record");

    bed.up.respawn();
    bed.up.ready().await;
    let message = bed.fallback.receives(1).await[0].message();
    assert_eq!(message, "planned before the crash");
    eventually("the notice is not pending", async || {
        bed.state().await?.pending.is_none().then_some(())
    })
    .await;
    bed.rig.drained().await;
    assert_eq!(bed.fallback.count(), 1);
}
