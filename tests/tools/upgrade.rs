//! Upgrades: what every earlier version stored on a NATS server is read and processed.
//!
//! `tests/fixtures/<version>` holds the messages of each stream and bucket as that version stored
//! them in a real run. The files never change. A release adds a folder:
//! `UPDATE_FIXTURES=v0.2 cargo test --workspace --test tools -- --ignored records_the_fixtures`.

mod stored;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidings_core::wire::{Circuit, Cluster, Heartbeat, Record, circuit::State as CircuitState};
use tidings_core::{DeadLetter, Delivery, Event, Message, wire};
use tidings_rig::{
    Forge, Manifest, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;
use crate::command::tidings;
use stored::{Stored, read_all, write_all};

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
/// The streams and buckets that are recorded. The positions of consumers and the counts of a stream
/// describe one server, so a restored server begins without them.
const STREAMS: [&str; 4] = ["EVENTS", "DELIVERIES", "OUTCOMES", "DEAD"];
const BUCKETS: [&str; 7] = [
    "KV_latest",
    "KV_limits",
    "KV_suspects",
    "KV_clusters",
    "KV_heartbeats",
    "KV_consumers",
    "KV_counts",
];
/// Buckets of [`BUCKETS`] that only decode.
const OF_ONE_SERVER: [&str; 3] = ["KV_consumers", "KV_counts", "KV_heartbeats"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixtures()).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

/// The rules of the run that was recorded. `Forge` and `Receiver`s of another run have other
/// addresses, which no message holds.
struct Services {
    receiver: Receiver,
    failing: Receiver,
    refusing: Receiver,
    forge: Forge,
}

impl Services {
    async fn start() -> Self {
        Self {
            receiver: Receiver::start().await,
            failing: Receiver::start().await,
            refusing: Receiver::start().await,
            forge: Forge::start().await,
        }
    }

    fn rules(&self) -> [Manifest; 13] {
        let failing = self.failing.url();
        [
            provider("hook", &format!("{}?token=hunter2", self.receiver.url())),
            alert("all", "hook"),
            provider("failing", failing),
            alert("to-failing", "failing"),
            provider("refusing", self.refusing.url()),
            alert("to-refusing", "refusing"),
            provider("paused", self.receiver.url()),
            alert("to-paused", "paused").with("channel", "of-the-alert"),
            // No worker serves this pool while the fixtures are recorded.
            provider("other-pool", self.receiver.url()).with("pool", "other"),
            alert("to-other-pool", "other-pool")
                .with("template", json!({"inline": "{{ event.reason }}"})),
            self.forge.provider("github"),
            alert("commits", "forge"),
            alert("to-missing", "missing"),
        ]
    }
}

/// The events of the run, each about another object, and a large one.
fn events() -> Vec<serde_json::Value> {
    let large = "x".repeat(70 << 10);
    let texts = ["first", "second", &large];
    let events = texts.iter().enumerate().map(|(number, text)| {
        let mut event = event(text);
        event["involvedObject"]["name"] = format!("app-{number}").into();
        event["metadata"] =
            json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
        event
    });
    events.collect()
}

#[tokio::test]
#[ignore = "writes the fixtures of a release"]
async fn records_the_fixtures_of_this_version() {
    let version = std::env::var_os("UPDATE_FIXTURES");
    let folder = fixtures().join(version.expect("UPDATE_FIXTURES names the version"));
    assert!(!folder.exists(), "fixtures never change");
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(1000, "the fixtures hold deliveries in all states");
    let services = Services::start().await;
    services.failing.answer_with(Reply::Status(503));
    services.refusing.answer_with(Reply::Status(400));
    Forge::put_secret(rig.rules());
    rig.rules().put(services.rules());
    let up = rig.run(Role::up().args(["--cluster", "prod"])).await;
    let url = rig.url();
    let pause = [
        "providers",
        "pause",
        "apps/paused",
        "--reason",
        "maintenance",
    ];
    tidings(&[&pause[..], &["--nats", url]].concat())
        .await
        .lines();
    for event in events() {
        assert_eq!(up.post(&event).await.unwrap().status, 202);
    }
    rig.routed().await;
    eventually("all states are reached", async || {
        let dead = rig.dead_letters().await.len() >= 3;
        let received = services.receiver.count() >= 3 && services.failing.count() >= 6;
        let written = !services.forge.states().is_empty();
        (dead && received && written).then_some(())
    })
    .await;
    let jetstream = rig.jetstream().await;
    let cluster = Cluster {
        name: "prod".into(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        ..Cluster::default()
    };
    let key = "$KV.clusters.prod";
    let stored = jetstream.publish(key, cluster.encode_to_vec().into());
    stored.await.unwrap().await.unwrap();
    // The mark of a delivery that was attempted once in a process that died.
    let mark = jetstream.publish("$KV.suspects.delivery-1", 1_u32.encode_to_vec().into());
    mark.await.unwrap().await.unwrap();
    eventually("a heartbeat is reported", async || {
        let bucket = jetstream.get_stream("KV_heartbeats").await.ok()?;
        (bucket.cached_info().state.messages > 0).then_some(())
    })
    .await;
    for stream in STREAMS.iter().chain(&BUCKETS) {
        write_all(&folder, stream, &jetstream).await;
    }
    for secret in ["hidden-token", "hunter2"] {
        let mut streams = STREAMS.iter().chain(&BUCKETS);
        assert_eq!(
            streams.find(|stream| stored::holds(&folder, stream, secret)),
            None
        );
    }
}

fn decoded<M: Message + Default>(folder: &Path, stream: &str) -> Vec<M> {
    let stored = read_all(folder, stream);
    assert!(!stored.is_empty(), "{}: {stream}", folder.display());
    // A removed key has no value.
    let stored = stored
        .into_iter()
        .filter(|message| !message.payload.is_empty());
    let decode = |message: Stored| {
        let decoded = M::decode(&message.payload[..]);
        decoded.unwrap_or_else(|error| panic!("{}: {error}", message.subject))
    };
    stored.map(decode).collect()
}

#[test]
fn the_messages_and_records_of_every_version_decode() {
    let versions = versions();
    assert!(!versions.is_empty());
    for folder in versions {
        for event in decoded::<Event>(&folder, "EVENTS") {
            assert!(!event.id.is_empty() && event.cluster == "prod" && !event.message.is_empty());
        }
        let deliveries = decoded::<Delivery>(&folder, "DELIVERIES");
        let provider = |delivery: &Delivery| delivery.provider.clone().unwrap_or_default().name;
        let names: BTreeSet<String> = deliveries.iter().map(provider).collect();
        let expected = ["failing", "missing", "other-pool", "paused"];
        assert_eq!(names.iter().collect::<Vec<_>>(), expected);
        assert!(
            deliveries
                .iter()
                .any(|delivery| !delivery.attempts.is_empty())
        );
        assert!(deliveries.iter().any(|delivery| delivery.event.is_none()));
        for outcome in decoded::<wire::Outcome>(&folder, "OUTCOMES") {
            assert!(!outcome.attempt.unwrap().outcome.is_empty());
        }
        for letter in decoded::<DeadLetter>(&folder, "DEAD") {
            assert_eq!(letter.reason, "rejected");
            assert_eq!(letter.delivery.unwrap().attempts.len(), 1);
        }
        for record in decoded::<Record>(&folder, "KV_latest") {
            assert!(record.desired.is_some());
        }
        let clusters = decoded::<Cluster>(&folder, "KV_clusters");
        assert_eq!(clusters[0].labels["env"], "prod");
        assert!(
            !decoded::<Heartbeat>(&folder, "KV_heartbeats")[0]
                .version
                .is_empty()
        );
        assert_eq!(decoded::<u32>(&folder, "KV_suspects"), [1]);
        let limits = read_all(&folder, "KV_limits");
        let circuits = limits
            .iter()
            .filter_map(|message| Circuit::decode(&message.payload[..]).ok());
        let is_paused = |circuit: &Circuit| circuit.state() == CircuitState::Paused;
        assert!(circuits.into_iter().any(|circuit| is_paused(&circuit)));
        decoded::<wire::ConsumerPosition>(&folder, "KV_consumers");
        decoded::<wire::DeliveryCounts>(&folder, "KV_counts");
    }
}

#[tokio::test]
async fn the_streams_of_every_version_are_processed() {
    for folder in versions() {
        processes(&folder).await;
    }
}

/// Restores the streams of a version on a new server, and lets this version process them.
async fn processes(folder: &Path) {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url().to_owned();
    let services = Services::start().await;
    Forge::put_secret(rig.rules());
    rig.rules().put(services.rules());
    rig.rules()
        .put([provider("missing", services.receiver.url())]);
    tidings(&["streams", "apply", "--nats", &url]).await.lines();
    let jetstream = rig.jetstream().await;
    for stream in BUCKETS.iter().chain(&STREAMS) {
        if !OF_ONE_SERVER.contains(stream) {
            for message in read_all(folder, stream) {
                message.publish(&jetstream).await;
            }
        }
    }
    let circuits = ["providers", "circuits", "--output", "jsonl", "--nats", &url];
    let circuits = tidings(&circuits).await.json();
    assert!(
        circuits.iter().any(|circuit| circuit["state"] == "paused"),
        "{circuits:?}"
    );
    let dead = tidings(&["dead", "list", "--nats", &url]).await;
    assert_eq!(dead.lines().len(), 3);

    // The position in the stream of another server says nothing about this one.
    let recreate = ["streams", "recreate-consumer", "--from-sequence", "1"];
    tidings(&[&recreate[..], &["--nats", &url]].concat())
        .await
        .lines();

    let roles = Role::up().args(["--cluster", "prod", "--pool", "default", "--pool", "other"]);
    let _up = rig.run(roles).await;
    let resume = ["providers", "resume", "apps/paused", "--nats", &url];
    tidings(&resume).await.lines();
    tidings(&["dead", "replay", "--all", "--nats", &url])
        .await
        .lines();
    rig.drained().await;

    let delivered = |receiver: &Receiver| -> BTreeSet<String> {
        let received = receiver.received().into_iter();
        received
            .filter_map(|request| Some(request.header("idempotency-key")?.to_owned()))
            .collect()
    };
    let mut ids = delivered(&services.receiver);
    ids.extend(delivered(&services.failing));
    for delivery in decoded::<Delivery>(folder, "DELIVERIES") {
        assert!(ids.contains(&delivery.id), "{delivery:?} is delivered");
    }
    // Replayed dead letters, and those of the events that were routed again.
    assert!(services.refusing.count() >= 3);
    let tapped = tidings(&["tap", "--since", "1h", "--no-follow", "--nats", &url]).await;
    assert_eq!(tapped.lines().len(), 3);
}
