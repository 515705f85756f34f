//! `up` and its nats-server stay below `memory.limit`, whatever senders and services do.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tidings_core::model::subject;
use tidings_core::wire::AlertReference;
use tidings_core::{Delivery, Event, Message as _, ProviderReference};
use tidings_rig::{
    Manifest, NAMESPACE, Process, Receiver, Reply, Rig, Role, alert, event, eventually,
    eventually_within, provider,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::TIDINGS;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 512 * MIB;
/// The largest text of an event. Each `<` needs six bytes in the JSON that services get.
const LARGEST: usize = 3 * 1024 * 1024 - 2048;
const DESTINATIONS: usize = 100;

async fn start(rules: &[Manifest]) -> (Rig, Process) {
    let rig = Rig::start(TIDINGS).await;
    for rule in rules {
        rig.rules().put([rule.clone()]);
    }
    let role = Role::up_with_own_server().env("TIDINGS_MEMORY__LIMIT", "512MiB");
    let up = rig.run(role).await;
    (rig, up)
}

/// Providers at this address, each a destination of its own, and an Alert for each. They get the
/// events of their namespace.
fn destinations(count: usize, namespace: &str, receiver: &Receiver) -> Vec<Manifest> {
    let pair = |number: usize| {
        let name = format!("{namespace}-{number}");
        let address = format!("{}/{number}", receiver.url());
        let provider = provider(&name, &address).with("timeout", "5s");
        [
            provider.in_namespace(namespace),
            alert(&name, &name).in_namespace(namespace),
        ]
    };
    (0..count).flat_map(pair).collect()
}

fn in_namespace(namespace: &str, message: &str) -> Value {
    let mut event = event(message);
    event["involvedObject"]["namespace"] = json!(namespace);
    event
}

async fn post_until_accepted(up: &Process, event: &Value) {
    let text = event.to_string();
    eventually("the event is accepted", async || {
        let answer = up.post_text(text.clone()).await.ok()?;
        assert!(matches!(answer.status, 202 | 429 | 503), "{answer:?}");
        (answer.status != 503).then_some(())
    })
    .await;
}

/// Connects, sends all of a large body but its end, and no more.
async fn stall(up: &Process) -> Option<TcpStream> {
    let address = up.address();
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(address).await.ok()?;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGEST}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.ok()?;
    // The server may refuse the rest.
    let _ = connection.write_all(&vec![b' '; LARGEST - 100]).await;
    Some(connection)
}

/// The most memory that a process ever used, in bytes.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes
        .and_then(|text| text.parse().ok())
        .expect("a size");
    kibibytes * 1024
}

fn assert_below_limit(rig: &Rig, up: &Process) {
    let contact = fs::read_to_string(rig.folder().join("data/nats.json")).expect("`up` runs");
    let contact: Value = serde_json::from_str(&contact).expect("it is JSON");
    let server = contact["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    let server = server.expect("it has the id of nats-server");
    let environment = fs::read(format!("/proc/{server}/environ")).expect("nats-server runs");
    let goal = format!("GOMEMLIMIT={}", LIMIT / 4);
    assert!(String::from_utf8_lossy(&environment).contains(&goal));
    let [up, server] = [up.id(), server].map(peak);
    assert!(
        up + server < LIMIT,
        "{} MiB and {} MiB",
        up / MIB,
        server / MIB
    );
}

#[tokio::test]
async fn stalled_senders_and_hanging_destinations_of_large_events_leave_a_neighbor_its_memory() {
    let [hanging, healthy] = [Receiver::start().await, Receiver::start().await];
    hanging.answer_with(Reply::Stall);
    let mut rules = destinations(DESTINATIONS, "large", &hanging);
    rules.extend(destinations(1, "neighbor", &healthy));
    let (rig, up) = start(&rules).await;

    let stalled = futures::future::join_all((0..150).map(|_| stall(&up))).await;
    post_until_accepted(&up, &in_namespace("large", &"<".repeat(LARGEST))).await;
    hanging.receives(1).await;
    eventually("deliveries are held back", async || {
        let held_back = up
            .metric("tidings_worker_deliveries_total", "no-memory")
            .await;
        (held_back > 50.0).then_some(())
    })
    .await;
    for number in 0..100 {
        let small = in_namespace("neighbor", &format!("small {number}"));
        post_until_accepted(&up, &small).await;
    }
    healthy.receives(100).await;
    assert_eq!(
        up.metric("tidings_worker_attempts_total", "dead").await,
        0.0
    );
    drop(stalled);

    hanging.answer_with(Reply::Status(503));
    eventually("parked deliveries hold no memory", async || {
        let parked = up
            .metric("tidings_worker_deliveries_total", "retrying")
            .await;
        let held = up.metric("tidings_worker_memory_bytes", "").await;
        (parked >= 3.0 && held < 0.5).then_some(())
    })
    .await;
    assert_below_limit(&rig, &up);
}

#[tokio::test]
#[ignore = "takes two minutes: `make soak` runs it"]
async fn a_wake_up_of_many_deliveries_after_an_outage_stays_within_the_limit() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    let count = 4;
    let (rig, up) = start(&destinations(count, "large", &receiver)).await;
    let events = 800;
    let text = "n".repeat(55_000);
    for number in 0..events {
        let large = in_namespace("large", &format!("{number} {text}"));
        post_until_accepted(&up, &large).await;
    }
    eventually("all events are routed", async || {
        let planned = up.metric("tidings_router_deliveries_total", "").await;
        (planned >= (count * events) as f64).then_some(())
    })
    .await;

    receiver.answer_with(Reply::Status(200));

    eventually_within(Duration::from_secs(120), "all arrive", async || {
        (receiver
            .tally()
            .values()
            .map(|(count, _)| *count)
            .sum::<usize>()
            >= count * events)
            .then_some(())
    })
    .await;
    assert_below_limit(&rig, &up);
}

#[tokio::test]
async fn large_metadata_reaches_many_destinations_within_the_limit() {
    let receiver = Receiver::start().await;
    let count = 30;
    let (rig, up) = start(&destinations(count, "large", &receiver)).await;
    let mut large = in_namespace("large", "with metadata");
    let (key, value) = ("kustomize.toolkit.fluxcd.io/note", "n".repeat(LARGEST));
    large["metadata"] = json!({key: value, "event.toolkit.fluxcd.io/cluster": "eu"});

    post_until_accepted(&up, &large).await;
    receiver.receives(count).await;

    let metadata = &receiver.received()[0].json()["metadata"];
    assert_eq!(metadata["note"].as_str().map(str::len), Some(LARGEST));
    assert_eq!(metadata["cluster"], "eu");
    assert_below_limit(&rig, &up);
}

#[tokio::test]
async fn a_delivery_that_is_larger_than_a_pull_is_made() {
    let receiver = Receiver::start().await;
    let (rig, _up) = Rig::up(TIDINGS, [provider("hook", receiver.url())]).await;
    let provider = ProviderReference {
        namespace: NAMESPACE.into(),
        name: "hook".into(),
        r#type: "generic".into(),
        pool: "default".into(),
    };
    let event = Event {
        message: "from an older version".into(),
        ..Event::default()
    };
    let delivery = |id: &str, note: usize| Delivery {
        id: id.into(),
        event_id: id.into(),
        alert: Some(AlertReference {
            namespace: NAMESPACE.into(),
            name: "all".into(),
            ..AlertReference::default()
        }),
        event: Some(event.clone()),
        metadata: [("note".into(), "n".repeat(note))].into(),
        provider: Some(provider.clone()),
        ..Delivery::default()
    };
    let jetstream = rig.jetstream().await;
    for (id, note) in [
        ("a", 10),
        ("b", 2 * LARGEST / 3),
        ("c", 10),
        ("d", LARGEST),
        ("e", 10),
    ] {
        let delivery = delivery(id, note).encode_to_vec();
        let subject = subject::delivery(&provider);
        let stored = jetstream.publish(subject, delivery.into()).await.unwrap();
        stored.await.unwrap();
    }
    receiver.receives(5).await;
    rig.drained().await;
}
