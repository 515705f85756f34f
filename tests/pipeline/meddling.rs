//! Somebody deletes or changes on the server what the roles need, while they run.

use std::time::Duration;

use async_nats::jetstream::consumer::{FromConsumer, PullConsumer, pull};
use async_nats::jetstream::stream::Config;
use futures::StreamExt;
use serde_json::json;
use tidings_rig::{
    Ledger, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

const STREAMS: [&str; 7] = [
    "EVENTS",
    "DELIVERIES",
    "OUTCOMES",
    "DEAD",
    "KV_latest",
    "KV_limits",
    "KV_suspects",
];

type Change = fn(&mut Config);

struct Roles {
    router: Process,
    worker: Process,
    ingest: Process,
}

/// Every role on its own, and a Provider whose limit the workers keep in a bucket.
async fn everything() -> (Receiver, Rig, Roles) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).with("rateLimit", json!("100/1s")),
        alert("all", "hook"),
    ]);
    let [router, worker, ingest] = rig
        .run_all([Role::router(), Role::worker(), Role::ingest()])
        .await;
    (
        receiver,
        rig,
        Roles {
            router,
            worker,
            ingest,
        },
    )
}

async fn config(rig: &Rig, stream: &str) -> Option<Config> {
    let mut config = rig
        .jetstream()
        .await
        .get_stream(stream)
        .await
        .ok()?
        .cached_info()
        .config
        .clone();
    config.metadata.clear();
    Some(config)
}

async fn is_not_ready_because(role: &Process, why: &str) {
    eventually(&format!("the role is not ready: {why}"), async || {
        let answer = role.readiness().await;
        (answer.status == 503 && answer.body.contains(why)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_or_bucket_that_is_deleted_is_made_anew_as_it_was_and_deliveries_go_on() {
    let (
        receiver,
        rig,
        Roles {
            router,
            worker,
            ingest,
        },
    ) = everything().await;
    let mut ledger = Ledger::default();
    for stream in STREAMS {
        ledger
            .post(&ingest, &format!("before {stream} is gone"))
            .await;
        receiver.accepts(&format!("before {stream} is gone")).await;
        rig.drained().await;
        let before = config(&rig, stream).await;

        rig.jetstream()
            .await
            .delete_stream(stream)
            .await
            .expect("it is there");

        eventually(&format!("{stream} is there again"), async || {
            config(&rig, stream).await
        })
        .await;
        assert_eq!(config(&rig, stream).await, before);
        ledger
            .post_insistently(&ingest, [format!("after {stream} is gone")])
            .await;
        receiver.accepts(&format!("after {stream} is gone")).await;
    }
    let balance = ledger.settled(&rig, &receiver).await;
    assert!(
        balance.duplicates().is_empty(),
        "{:?}",
        balance.duplicates()
    );
    for role in [&router, &worker, &ingest] {
        role.ready().await;
    }
    assert_eq!(
        router
            .metric("tidings_router_lost_to_retention_total", "")
            .await,
        0.0,
        "everything was routed before"
    );
    for stream in STREAMS {
        let labels = format!("stream=\"{stream}\"");
        eventually(
            &format!("it is counted that {stream} was made anew"),
            async || {
                let made = async |role: &Process| {
                    role.metric("tidings_bus_streams_recreated_total", &labels)
                        .await
                };
                (made(&router).await + made(&worker).await > 0.5).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_stream_that_is_changed_is_told_by_readiness_until_it_is_as_it_must_be_and_deliveries_go_on()
 {
    let (receiver, rig, roles) = everything().await;
    let jetstream = rig.jetstream().await;
    let changes: [(&str, Change, &str); 3] = [
        (
            "EVENTS",
            |config| config.max_messages = 10,
            "max_msgs is 10, expected unlimited",
        ),
        (
            "DELIVERIES",
            |config| config.duplicate_window = Duration::from_secs(1),
            "duplicate_window is 1s, expected 120s",
        ),
        (
            "KV_limits",
            |config| config.max_age = Duration::from_secs(3600),
            "max_age is 3600s, expected 0ns",
        ),
    ];
    for (stream, change, told) in changes {
        let must = config(&rig, stream).await.expect("it is there");
        let mut changed = must.clone();
        change(&mut changed);
        jetstream
            .update_stream(changed)
            .await
            .expect("it can be changed");

        for role in [&roles.router, &roles.worker] {
            is_not_ready_because(
                role,
                &format!("the configuration of stream {stream} differs: {told}"),
            )
            .await;
            is_not_ready_because(role, "`tidings streams apply` changes it").await;
        }
        roles.ingest.ready().await;
        let message = format!("while {stream} is changed");
        roles
            .ingest
            .post(&event(&message))
            .await
            .expect("ingest answers");
        receiver.accepts(&message).await;

        jetstream
            .update_stream(must)
            .await
            .expect("it can be changed");
        for role in [&roles.router, &roles.worker] {
            role.ready().await;
        }
    }
}

#[tokio::test]
async fn a_consumer_that_is_changed_is_changed_back_and_what_it_has_passed_over_is_delivered() {
    let (receiver, rig, roles) = everything().await;
    let mut stream = rig
        .jetstream()
        .await
        .get_stream("DELIVERIES")
        .await
        .expect("it is there");
    let consumer: PullConsumer = stream
        .get_consumer("default-generic")
        .await
        .expect("it is there");
    let must = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone())
        .expect("it is pulled from");
    let elsewhere = pull::Config {
        filter_subject: "deliveries.elsewhere.>".to_owned(),
        ..must
    };
    stream
        .update_consumer(elsewhere)
        .await
        .expect("it can be changed");

    roles
        .ingest
        .post(&event("while nobody would get it"))
        .await
        .expect("ingest answers");
    eventually("it is routed", async || {
        (stream.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await;
    let mut passed = consumer
        .fetch()
        .max_messages(1)
        .messages()
        .await
        .expect("the server looks for more");
    assert!(passed.next().await.is_none());

    receiver.accepts("while nobody would get it").await;
    let restored = roles.worker.logs("consumer-restored").await;
    let differences = restored.field("differences");
    assert!(
        differences.contains("deliveries.elsewhere.>"),
        "{differences}"
    );
    roles.worker.ready().await;
}

#[tokio::test]
async fn a_role_whose_consumer_is_paused_is_not_ready_until_it_is_resumed() {
    let (receiver, rig, roles) = everything().await;
    let stream = rig
        .jetstream()
        .await
        .get_stream("EVENTS")
        .await
        .expect("it is there");
    let tomorrow = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 3600);
    stream
        .pause_consumer("router", tomorrow)
        .await
        .expect("it can be paused");

    roles
        .ingest
        .post(&event("while it is paused"))
        .await
        .expect("ingest answers");
    is_not_ready_because(&roles.router, "the consumer is paused").await;

    stream
        .resume_consumer("router")
        .await
        .expect("it can be resumed");
    receiver.accepts("while it is paused").await;
    roles.router.ready().await;
}

#[tokio::test]
async fn a_large_event_whose_stream_was_deleted_is_a_dead_letter_and_no_other_event_goes_in_its_place()
 {
    let (receiver, rig, roles) = everything().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules()
        .put([provider("hook", receiver.url()).that_retries_soon()]);
    let too_large_to_travel = "x".repeat(100_000);
    roles
        .ingest
        .post(&event(&too_large_to_travel))
        .await
        .expect("ingest answers");
    receiver.receives(1).await;

    let jetstream = rig.jetstream().await;
    jetstream
        .delete_stream("EVENTS")
        .await
        .expect("it is there");
    let mut ledger = Ledger::default();
    ledger
        .post_insistently(&roles.ingest, ["the first of another stream".to_owned()])
        .await;
    receiver.answer_with(Reply::Status(200));

    receiver.accepts("the first of another stream").await;
    rig.drained().await;
    assert_eq!(receiver.accepted().len(), 1);
    let letters = rig.dead_letters().await;
    let reasons = letters.iter().map(|letter| {
        letter
            .delivery
            .as_ref()?
            .attempts
            .last()
            .map(|attempt| attempt.reason.clone())
    });
    assert_eq!(reasons.collect::<Vec<_>>(), [Some("event-gone".to_owned())]);
}
