//! `tidings bridge`.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use serde_json::Value;
use tidings_core::runtime::failpoint::BRIDGE_POINTS;
use tidings_rig::{Process, Receiver, Reply, Rig, Role, event, eventually};

use crate::TIDINGS;
use crate::command::tidings;
use crate::json_schema::{assert_valid, cloud_event_schema};

/// The events of the tests that kill the bridge.
const MANY: usize = 200;

async fn post(ingest: &Process, message: &str) {
    assert_eq!(ingest.post(&event(message)).await.unwrap().status, 202);
}

fn messages(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("event {number}")).collect()
}

/// A message of the stream CLOUDEVENTS.
struct Republished {
    subject: String,
    id: String,
    content_type: String,
    body: Value,
}

impl Republished {
    fn message(&self) -> String {
        self.body["data"]["message"].as_str().unwrap().to_owned()
    }
}

/// All messages of the stream CLOUDEVENTS, oldest first.
async fn republished(rig: &Rig) -> Vec<Republished> {
    let Ok(mut stream) = rig.jetstream().await.get_stream("CLOUDEVENTS").await else {
        return Vec::new();
    };
    let count = stream.info().await.unwrap().state.messages;
    let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap();
    let messages = messages.take(usize::try_from(count).unwrap());
    let read = messages.map(|message| {
        let message = message.unwrap();
        let header = |name| {
            let headers = message.headers.as_ref().unwrap();
            headers.get(name).unwrap().as_str().to_owned()
        };
        Republished {
            subject: message.subject.to_string(),
            id: header("Nats-Msg-Id"),
            content_type: header("Content-Type"),
            body: serde_json::from_slice(&message.payload).unwrap(),
        }
    });
    read.collect().await
}

async fn republishes(rig: &Rig, count: usize) -> Vec<Republished> {
    eventually("the stream CLOUDEVENTS has the events", async || {
        let republished = republished(rig).await;
        (republished.len() >= count).then_some(republished)
    })
    .await
}

/// The messages of the events that a URL accepted.
fn accepted(receiver: &Receiver) -> BTreeSet<String> {
    let accepted = receiver.accepted();
    let message = |body: Value| body["data"]["message"].as_str().unwrap().to_owned();
    accepted
        .iter()
        .map(|request| message(request.json()))
        .collect()
}

/// Posts events and forwards them with a bridge that is killed (SIGKILL) at a fail point, while
/// other events are in flight, and then started again.
async fn kill_at(point: &str, rig: &Rig, up: &Process, bridge: Role) {
    for number in 0..MANY {
        post(up, &format!("event {number}")).await;
    }
    let bridge = bridge.args(["--name", "lake", "--in-flight", "16", "--from", "all"]);
    let mut bridge = rig.spawn(bridge.env("FAIL_POINT", &format!("{point}@50")));
    bridge.reaches_fail_point(point).await;
    bridge.ended().await;
    bridge.restart_without(&["FAIL_POINT"]).await;
    eventually("the bridge has finished all events", async || {
        let events = rig.jetstream().await.get_stream("EVENTS").await.ok()?;
        let state = events.consumer_info("lake").await.ok()?;
        (state.num_pending == 0 && state.num_ack_pending == 0).then_some(())
    })
    .await;
}

async fn republishes_every_event_once_although_killed_at(point: &str) {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up().args(["--cluster", "hub"])).await;

    kill_at(point, &rig, &up, Role::bridge().args(["--create-stream"])).await;

    let republished = republished(&rig).await;
    let seen: BTreeSet<_> = republished.iter().map(Republished::message).collect();
    assert!(seen == messages(MANY), "{point}: {} events", seen.len());
    assert_eq!(republished.len(), MANY, "the stream drops duplicates");
    let schema = cloud_event_schema();
    for one in &republished {
        assert_eq!(one.subject, "cloudevents.hub.apps.Kustomization.info");
        assert_eq!(one.content_type, "application/cloudevents+json");
        assert_eq!(one.body["id"], one.id);
        assert_valid(&schema, &one.body);
    }
}

async fn posts_every_event_although_killed_at(point: &str) {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_in_turn([
        Reply::Slow(Duration::from_millis(50)),
        Reply::Status(503),
        Reply::Slow(Duration::from_millis(20)),
        Reply::Status(200),
        Reply::Close,
        Reply::Status(200),
        Reply::Status(200),
    ]);
    let up = rig.run(Role::up()).await;

    kill_at(
        point,
        &rig,
        &up,
        Role::bridge().args(["--url", receiver.url()]),
    )
    .await;

    let seen = accepted(&receiver);
    assert!(seen == messages(MANY), "{point}: {} events", seen.len());
    let schema = cloud_event_schema();
    let mut ids = BTreeSet::new();
    for request in receiver.accepted() {
        assert_eq!(
            request.header("content-type"),
            Some("application/cloudevents+json")
        );
        assert_valid(&schema, &request.json());
        ids.insert(request.json()["id"].to_string());
    }
    assert_eq!(ids.len(), MANY, "a repeated event has the same id");
}

#[tokio::test]
async fn a_bridge_that_is_killed_anywhere_republishes_every_event_once() {
    let points = BRIDGE_POINTS.iter();
    join_all(points.map(|point| republishes_every_event_once_although_killed_at(point))).await;
}

#[tokio::test]
async fn a_bridge_that_is_killed_anywhere_posts_every_event() {
    let points = BRIDGE_POINTS.iter();
    join_all(points.map(|point| posts_every_event_although_killed_at(point))).await;
}

#[tokio::test]
async fn a_stopped_bridge_resumes_after_the_last_event_and_forwards_none_twice() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let up = rig.run(Role::up()).await;
    post(&up, "before the first start").await;
    let role = Role::bridge().args(["--name", "lake", "--url", receiver.url()]);
    let mut bridge = rig.run(role).await;
    bridge.logs("bridge-started").await;
    post(&up, "while it runs").await;
    receiver.receives(1).await;

    assert!(bridge.terminate().await.success());
    post(&up, "while it is stopped").await;
    bridge.restart().await;

    receiver.receives(2).await;
    post(&up, "after its restart").await;
    let received = receiver.receives(3).await;
    let messages: Vec<_> = received.iter().map(|request| request.json()).collect();
    let messages: Vec<_> = messages
        .iter()
        .map(|body| &body["data"]["message"])
        .collect();
    assert_eq!(
        messages,
        ["while it runs", "while it is stopped", "after its restart"]
    );
}

#[tokio::test]
async fn a_rejected_event_is_counted_and_the_next_one_is_forwarded() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::script([Reply::Status(422); 5]).await;
    let up = rig.run(Role::up()).await;
    let role = Role::bridge().args(["--name", "lake", "--url", receiver.url()]);
    let bridge = rig
        .run(role.args(["--in-flight", "1", "--from", "all"]))
        .await;

    post(&up, "rejected").await;
    post(&up, "accepted").await;

    receiver.receives(6).await;
    assert_eq!(accepted(&receiver), BTreeSet::from(["accepted".to_owned()]));
    bridge.logs("bridge-rejected").await;
    eventually("both events are counted", async || {
        let count = async |outcome| bridge.metric("tidings_bridge_events_total", outcome).await;
        let counts = [count("rejected").await, count("forwarded").await];
        (counts == [1.0, 1.0]).then_some(())
    })
    .await;
    bridge.counts("tidings_bridge_retries_total", "", 4.0).await;
    bridge.ready().await;
}

#[tokio::test]
async fn an_error_that_is_not_about_the_event_is_retried_until_it_is_gone() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::script([Reply::Status(401); 4]).await;
    let up = rig.run(Role::up()).await;
    let file = rig.folder().join("headers");
    std::fs::write(&file, "Authorization: Bearer hunter2\n").unwrap();
    let role = Role::bridge().args(["--name", "lake", "--url", receiver.url()]);
    let role = role.args(["--headers-file", file.to_str().unwrap(), "--from", "all"]);
    let bridge = rig.run(role).await;

    post(&up, "waits").await;
    bridge.is_not_ready("target", "401").await;

    for request in receiver.receives(5).await {
        assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
    }
    bridge.ready().await;
    assert!(bridge.log().iter().all(|line| !line.contains("hunter2")));
}

#[tokio::test]
async fn a_bridge_without_a_stream_is_not_ready_and_loses_nothing() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    let bridge = rig
        .run(Role::bridge().args(["--name", "lake", "--from", "all"]))
        .await;
    post(&up, "waits").await;
    bridge.logs("bridge-retrying").await;
    bridge.is_not_ready("target", "").await;

    let config = async_nats::jetstream::stream::Config {
        name: "CLOUDEVENTS".to_owned(),
        subjects: vec!["cloudevents.>".to_owned()],
        ..Default::default()
    };
    rig.jetstream().await.create_stream(config).await.unwrap();

    assert_eq!(republishes(&rig, 1).await[0].message(), "waits");
    bridge.ready().await;
}

#[tokio::test]
async fn a_filter_selects_events_and_a_new_one_applies_to_later_events() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let [first, second] = rig
        .run_all([
            Role::up().args(["--cluster", "one"]),
            Role::ingest().args(["--cluster", "two"]),
        ])
        .await;
    let role = |filter| {
        let role = Role::bridge().args(["--name", "lake", "--url", receiver.url()]);
        role.args(["--from", "all", "--filter", filter])
    };
    let mut bridge = rig.run(role("events.one.>")).await;
    post(&second, "excluded").await;
    post(&first, "included").await;
    receiver.receives(1).await;
    bridge.terminate().await;

    let _bridge = rig.run(role("events.two.>")).await;
    post(&first, "excluded now").await;
    post(&second, "included now").await;

    receiver.receives(2).await;
    let expected = ["included", "included now"].map(str::to_owned);
    assert_eq!(accepted(&receiver), BTreeSet::from(expected));
}

/// The permissions in docs/tap.md for the bridge `lake`.
const PERMISSIONS: &str = r#"publish: { allow: [
    "$JS.API.STREAM.INFO.EVENTS",
    "$JS.API.CONSUMER.CREATE.EVENTS.lake.>",
    "$JS.API.CONSUMER.INFO.EVENTS.lake",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.lake",
    "$JS.ACK.EVENTS.lake.>",
    "$JS.API.STREAM.CREATE.CLOUDEVENTS",
    "$JS.API.STREAM.INFO.CLOUDEVENTS",
    "cloudevents.>",
    "$KV.heartbeats.=.bridge.*",
] }, subscribe: "_INBOX.>""#;

#[tokio::test]
async fn the_documented_permissions_suffice() {
    let users = format!(
        "no_auth_user: admin\nauthorization {{ users: [\n\
         {{ user: admin, password: admin }},\n\
         {{ user: bridge, password: bridge, permissions: {{ {PERMISSIONS} }} }}\n] }}"
    );
    let rig = Rig::start_with(TIDINGS, |_| users).await;
    let up = rig.run(Role::up()).await;
    let role = Role::bridge().args(["--name", "lake", "--create-stream"]);
    let role = role
        .env("TIDINGS_NATS__USERNAME", "bridge")
        .env("TIDINGS_NATS__PASSWORD", "bridge");
    let mut bridge = rig.run(role).await;
    post(&up, "before a restart").await;
    republishes(&rig, 1).await;
    bridge.terminate().await;
    post(&up, "after a restart").await;
    bridge.restart().await;

    assert_eq!(republishes(&rig, 2).await[1].message(), "after a restart");
    bridge.counts("tidings_bus_up", "", 1.0).await;
    let denied = bridge.log_events("nats-server-error");
    assert!(denied.is_empty(), "{} requests are denied", denied.len());
}

#[tokio::test]
async fn errors_name_the_flag() {
    let rig = Rig::start(TIDINGS).await;
    let _up = rig.run(Role::up()).await;
    let events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    let config = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("mine".to_owned()),
        ..Default::default()
    };
    events.create_consumer(config).await.unwrap();
    let admin = format!("127.0.0.1:{}", tidings_rig::free_port());
    for (arguments, named) in [
        (&["--name", "router"][..], &["--name", "router"][..]),
        (&["--name", "default-slack"], &["--name", "default-slack"]),
        (&["--name", "a.b"], &["--name", "a.b"]),
        (&["--name", "mine"], &["--name", "mine", "EVENTS"]),
        (
            &["--name", "x", "--filter", "dead.>"],
            &["--filter", "dead.>"],
        ),
        (
            &["--name", "x", "--from", "yesterday"],
            &["--from", "yesterday"],
        ),
        (&["--name", "x", "--url", "ftp://a"], &["--url", "http"]),
        (
            &["--name", "x", "--url", "http://a", "--headers-file", "/no"],
            &["--headers-file", "/no"],
        ),
    ] {
        let fixed = [
            "bridge",
            "--nats",
            rig.url(),
            "--admin",
            &admin,
            "--log-level",
            "error",
        ];
        let ended = tidings(&[&fixed, arguments].concat()).await;
        ended.assert_error_names(named);
    }
}
