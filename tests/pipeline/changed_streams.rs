//! Streams, buckets and consumers that another client deletes or changes while the roles run.

use std::time::Duration;

use async_nats::jetstream::consumer::{FromConsumer, PullConsumer, pull};
use async_nats::jetstream::stream::Config;
use futures::StreamExt;
use tidings_rig::{
    Ledger, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;

const STREAMS: [&str; 14] = [
    "EVENTS",
    "DELIVERIES",
    "OUTCOMES",
    "DEAD",
    "AUDIT",
    "KV_latest",
    "KV_limits",
    "KV_suspects",
    "KV_counts",
    "KV_extensions",
    "KV_consumers",
    "KV_clusters",
    "KV_heartbeats",
    "KV_hub",
];

/// A restart of the server empties these, so their recreation is no loss.
const IN_MEMORY: [&str; 2] = ["KV_heartbeats", "KV_hub"];

fn logged(role: &Process, stream: &str) -> bool {
    let events = role.log_events("memory-stream-recreated");
    events.iter().any(|event| event.field("stream") == stream)
}

type Change = fn(&mut Config);

struct Roles {
    router: Process,
    worker: Process,
    ingest: Process,
}

/// Starts a process of each role, with a Provider whose rate limit uses the bucket `limits`.
async fn start_roles() -> (Receiver, Rig, Roles) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()).with("rateLimit", "100/1s"),
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

#[tokio::test]
async fn a_deleted_stream_or_bucket_is_recreated_and_deliveries_continue() {
    let (
        receiver,
        rig,
        Roles {
            router,
            worker,
            ingest,
        },
    ) = start_roles().await;
    let mut ledger = Ledger::default();
    for stream in STREAMS {
        ledger
            .post(&ingest, &format!("before {stream} is deleted"))
            .await;
        receiver
            .accepts(&format!("before {stream} is deleted"))
            .await;
        rig.drained().await;
        let before = config(&rig, stream).await;

        rig.jetstream()
            .await
            .delete_stream(stream)
            .await
            .expect("it exists");

        eventually(&format!("{stream} is recreated"), async || {
            config(&rig, stream).await
        })
        .await;
        assert_eq!(config(&rig, stream).await, before);
        ledger
            .post_until_accepted(&ingest, [format!("after {stream} is deleted")])
            .await;
        receiver
            .accepts(&format!("after {stream} is deleted"))
            .await;
    }
    let balance = ledger.balanced(&rig, &receiver).await;
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
            &format!("the recreation of {stream} is counted, or logged"),
            async || {
                let recreated = async |role: &Process| match IN_MEMORY.contains(&stream) {
                    true => logged(role, stream),
                    false => {
                        let metric = "tidings_bus_streams_recreated_total";
                        role.metric(metric, &labels).await > 0.5
                    }
                };
                (recreated(&router).await || recreated(&worker).await).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test]
async fn roles_are_not_ready_while_a_stream_is_changed_and_deliveries_continue() {
    let (receiver, rig, roles) = start_roles().await;
    let jetstream = rig.jetstream().await;
    let changes: [(&str, Change, &str); 3] = [
        ("EVENTS", |config| config.max_messages = 10, "max_msgs"),
        (
            "DELIVERIES",
            |config| config.duplicate_window = Duration::from_secs(1),
            "duplicate_window",
        ),
        (
            "KV_limits",
            |config| config.max_age = Duration::from_secs(3600),
            "max_age",
        ),
    ];
    for (stream, change, field) in changes {
        let original = config(&rig, stream).await.expect("it exists");
        let mut changed = original.clone();
        change(&mut changed);
        jetstream
            .update_stream(changed)
            .await
            .expect("the configuration can be changed");

        for role in [&roles.router, &roles.worker] {
            role.is_not_ready("bus", stream).await;
            role.is_not_ready("bus", field).await;
        }
        roles.ingest.ready().await;
        let message = format!("while {stream} is changed");
        roles
            .ingest
            .post(&event(&message))
            .await
            .expect("ingest responds");
        receiver.accepts(&message).await;

        jetstream
            .update_stream(original)
            .await
            .expect("the configuration can be changed");
        for role in [&roles.router, &roles.worker] {
            role.ready().await;
        }
    }
}

#[tokio::test]
async fn a_changed_consumer_is_restored_and_skipped_deliveries_are_delivered() {
    let (receiver, rig, roles) = start_roles().await;
    let mut stream = rig
        .jetstream()
        .await
        .get_stream("DELIVERIES")
        .await
        .expect("it exists");
    let consumer: PullConsumer = stream
        .get_consumer("default-generic")
        .await
        .expect("it exists");
    let original = pull::Config::try_from_consumer_config(consumer.cached_info().config.clone())
        .expect("it is a pull consumer");
    let elsewhere = pull::Config {
        filter_subject: "deliveries.elsewhere.>".to_owned(),
        ..original
    };
    stream
        .update_consumer(elsewhere)
        .await
        .expect("the configuration can be changed");

    roles
        .ingest
        .post(&event("skipped by the consumer"))
        .await
        .expect("ingest responds");
    eventually("the event is routed", async || {
        (stream.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await;
    let mut fetched = consumer
        .fetch()
        .max_messages(1)
        .messages()
        .await
        .expect("the consumer can be read");
    assert!(fetched.next().await.is_none());

    receiver.accepts("skipped by the consumer").await;
    let restored = roles.worker.logs("consumer-restored").await;
    let differences = restored.field("differences");
    assert!(
        differences.contains("deliveries.elsewhere.>"),
        "{differences}"
    );
    roles.worker.ready().await;
}

#[tokio::test]
async fn a_role_is_not_ready_while_its_consumer_is_paused() {
    let (receiver, rig, roles) = start_roles().await;
    let stream = rig
        .jetstream()
        .await
        .get_stream("EVENTS")
        .await
        .expect("it exists");
    let tomorrow = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 3600);
    stream
        .pause_consumer("router", tomorrow)
        .await
        .expect("the consumer can be paused");

    roles
        .ingest
        .post(&event("while it is paused"))
        .await
        .expect("ingest responds");
    roles.router.is_not_ready("pull router", "paused").await;

    stream
        .resume_consumer("router")
        .await
        .expect("the consumer can be resumed");
    receiver.accepts("while it is paused").await;
    roles.router.ready().await;
}

#[tokio::test]
async fn a_delivery_of_a_large_event_is_a_dead_letter_if_its_stream_was_deleted() {
    let (receiver, rig, roles) = start_roles().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules()
        .put([provider("hook", receiver.url()).that_retries_soon()]);
    let larger_than_a_delivery = "x".repeat(100_000);
    roles
        .ingest
        .post(&event(&larger_than_a_delivery))
        .await
        .expect("ingest responds");
    receiver.receives(1).await;

    let jetstream = rig.jetstream().await;
    jetstream.delete_stream("EVENTS").await.expect("it exists");
    let mut ledger = Ledger::default();
    ledger
        .post_until_accepted(&roles.ingest, ["the first of a new stream".to_owned()])
        .await;
    receiver.answer_with(Reply::Status(200));

    receiver.accepts("the first of a new stream").await;
    rig.drained().await;
    assert_eq!(receiver.accepted().len(), 1);
    let dead = rig.dead_letters().await;
    let reasons = dead.iter().map(|dead| {
        dead.delivery
            .as_ref()?
            .attempts
            .last()
            .map(|attempt| attempt.reason.clone())
    });
    assert_eq!(reasons.collect::<Vec<_>>(), [Some("event-gone".to_owned())]);
}
