//! Taps: what their credentials permit, with `tidings tap` and with consumers of others.

use std::path::Path;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::StreamExt;
use serde_json::{Value, json};
use tidings_core::{Event, Message as _};
use tidings_rig::{Process, event};
use tokio::process::Command;

use super::client::Intruder;
use super::forbidden::stored;
use super::{Fleet, mode};
use crate::command::{Ended, Following, text, tidings_with};
use crate::consumers::examples;

const FILTER: &str = "events.prod-eu.>";

/// A hub with two members, which have posted an event each, and the tap `audit` of one of them.
struct Bed {
    fleet: Fleet,
    _hub: [Process; 2],
    dev: Process,
    prod: Process,
}

impl Bed {
    async fn start() -> Self {
        let fleet = Fleet::start().await;
        for name in ["dev-1", "prod-eu"] {
            fleet.add(name).await;
        }
        let hub = fleet.hub().await;
        let dev = fleet.rig.run(fleet.ingest("dev-1")).await;
        let prod = fleet.rig.run(fleet.ingest("prod-eu")).await;
        let added = fleet.run(&["add-tap", "audit", "--filter", FILTER]).await;
        assert_eq!(added.status, Some(0), "{added:?}");
        let bed = Self {
            fleet,
            _hub: hub,
            dev,
            prod,
        };
        bed.post("first").await;
        bed
    }

    /// Posts an event in each cluster.
    async fn post(&self, message: &str) {
        for (ingest, cluster) in [(&self.dev, "dev"), (&self.prod, "prod")] {
            let posted = event(&format!("{message} of {cluster}"));
            assert_eq!(ingest.post(&posted).await.unwrap().status, 202);
        }
    }

    async fn tap(&self, more: &[&str]) -> Ended {
        let file = self.fleet.credentials("audit");
        let variables = [("TIDINGS_NATS__CREDENTIALS", text(&file))];
        let tap = ["tap", "--nats", self.fleet.rig.url()];
        tidings_with(&variables, &[&tap[..], more].concat()).await
    }
}

#[tokio::test]
async fn tidings_tap_shows_the_events_of_the_filter_and_no_others() {
    let bed = Bed::start().await;
    let stored = bed.tap(&["--since", "1h", "--no-follow"]).await;
    let lines = stored.lines();
    assert!(
        lines.len() == 1 && lines[0].ends_with(": first of prod"),
        "{stored:?}"
    );
    let stderr = stored.stderr.to_lowercase();
    assert!(!stderr.contains("violation"), "{stderr}");

    let narrow = bed.tap(&["--no-follow", "--severity", "error"]).await;
    assert_eq!(
        (narrow.status, narrow.lines().len()),
        (Some(0), 0),
        "{narrow:?}"
    );
    bed.tap(&["--cluster", "dev-1", "--no-follow"])
        .await
        .assert_error_names(&[FILTER, "events.dev-1."]);

    let mut follow = Command::new(crate::TIDINGS);
    follow
        .args(["tap", "--nats", bed.fleet.rig.url(), "--since", "1h"])
        .env("TIDINGS_NATS__CREDENTIALS", bed.fleet.credentials("audit"));
    let mut follow = Following::start(follow);
    assert!(follow.next().await.ends_with(": first of prod"));
    bed.post("second").await;
    assert!(follow.next().await.ends_with(": second of prod"));
}

/// A durable consumer as programs of others create it, with JetStream's usual API.
async fn durable(client: &async_nats::Client, name: &str) -> PullConsumer {
    let stream = jetstream::new(client.clone())
        .get_stream_no_info("EVENTS")
        .await;
    let config = pull::Config {
        durable_name: Some(name.to_owned()),
        filter_subject: FILTER.to_owned(),
        ..pull::Config::default()
    };
    let consumer = stream.unwrap().get_or_create_consumer(name, config).await;
    consumer.unwrap()
}

async fn connect(url: &str, credentials: &Path) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_credentials_file(credentials).await;
    options.unwrap().connect(url).await.unwrap()
}

/// The messages of the next events, which are acknowledged.
async fn read(consumer: &PullConsumer, count: usize) -> Vec<String> {
    let mut messages = consumer.messages().await.unwrap();
    let mut read = Vec::new();
    while read.len() < count {
        let message = messages.next().await.unwrap().unwrap();
        message.double_ack().await.unwrap();
        read.push(Event::decode(message.payload.clone()).unwrap().message);
    }
    read
}

#[tokio::test]
async fn a_durable_consumer_of_others_works_and_continues_after_its_last_acknowledgement() {
    let bed = Bed::start().await;
    let (url, file) = (bed.fleet.rig.url(), bed.fleet.credentials("audit"));
    let client = connect(url, &file).await;
    let consumer = durable(&client, "tap-audit-0").await;
    assert_eq!(read(&consumer, 1).await, ["first of prod"]);
    drop((consumer, client));

    bed.post("second").await;
    let client = connect(url, &file).await;
    let consumer = durable(&client, "tap-audit-0").await;
    assert_eq!(read(&consumer, 1).await, ["second of prod"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_in_three_languages_work_with_the_credentials_of_a_tap() {
    let built = tempfile::tempdir().unwrap();
    let examples = examples(built.path()).await;
    let bed = Bed::start().await;
    let mut following = Vec::new();
    for (number, example) in examples.iter().enumerate() {
        let name = format!("tap-audit-{number}");
        let mut command = example.command(&[bed.fleet.rig.url(), &name]);
        command
            .env("NATS_CREDS", bed.fleet.credentials("audit"))
            .env("FILTER", FILTER);
        let mut consumer = Following::start(command);
        let line = consumer.next().await;
        assert!(
            line.contains("first of prod"),
            "{}: {line}",
            example.language
        );
        following.push((example.language, consumer));
    }
    bed.post("second").await;
    for (language, consumer) in &mut following {
        let line = consumer.next().await;
        assert!(line.contains("second of prod"), "{language}: {line}");
    }
}

#[tokio::test]
async fn a_tap_can_do_nothing_but_read_its_filter() {
    let fleet = Fleet::start().await;
    fleet.add("prod-eu").await;
    for (name, filter) in [("audit", FILTER), ("other", "events.dev-1.>")] {
        let added = fleet.run(&["add-tap", name, "--filter", filter]).await;
        assert_eq!(added.lines().len(), 1, "{added:?}");
    }
    let file = fleet.credentials("audit");
    let tap = Intruder::of_tap(fleet.rig.url(), &file).await;
    for subject in [
        "events.prod-eu.apps.Kustomization.info",
        "events.dev-1.apps.Kustomization.info",
        "deliveries.default.slack.apps.hook",
        "dead.slack.apps.hook",
        "$KV.heartbeats.prod-eu.ingest.a",
        "$KV.clusters.prod-eu",
        "$KV.limits.circuit.apps.slack",
        "tidings.names",
        "tidings.checks",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$JS.ACK.EVENTS.router.1.1.1.1.0",
        "$JS.ACK.EVENTS.tap-other-0.1.1.1.1.0",
    ] {
        tap.may_not_publish(subject).await;
    }
    for request in [
        "INFO",
        "DIRECT.GET.EVENTS",
        "DIRECT.GET.EVENTS.events.prod-eu.apps.Kustomization.info",
        "DIRECT.GET.KV_clusters.$KV.clusters.prod-eu",
        "STREAM.INFO.EVENTS",
        "STREAM.LIST",
        "STREAM.NAMES",
        "STREAM.CREATE.MINE",
        "STREAM.UPDATE.EVENTS",
        "STREAM.PURGE.EVENTS",
        "STREAM.DELETE.EVENTS",
        "STREAM.MSG.GET.EVENTS",
        "STREAM.MSG.DELETE.EVENTS",
        "CONSUMER.LIST.EVENTS",
        "CONSUMER.NAMES.EVENTS",
        "CONSUMER.CREATE.EVENTS",
        "CONSUMER.CREATE.EVENTS.tap-audit-0",
        "CONSUMER.CREATE.EVENTS.tap-audit-0.>",
        "CONSUMER.CREATE.EVENTS.tap-audit-0.events.>",
        "CONSUMER.CREATE.EVENTS.tap-audit-0.events.dev-1.>",
        "CONSUMER.CREATE.EVENTS.tap-audit-9.events.prod-eu.>",
        "CONSUMER.CREATE.EVENTS.tap-other-0.events.prod-eu.>",
        "CONSUMER.CREATE.EVENTS.router.events.prod-eu.>",
        "CONSUMER.CREATE.DELIVERIES.tap-audit-0.events.prod-eu.>",
        "CONSUMER.DURABLE.CREATE.EVENTS.tap-audit-0",
        "CONSUMER.MSG.NEXT.EVENTS.router",
        "CONSUMER.MSG.NEXT.EVENTS.tap-other-0",
        "CONSUMER.DELETE.EVENTS.router",
        "CONSUMER.DELETE.EVENTS.tap-other-0",
        "CONSUMER.INFO.EVENTS.router",
        "CONSUMER.PAUSE.EVENTS.router",
    ] {
        // The account maps the one to the other, and the server checks what results.
        let mapped = Intruder::of_tap(fleet.rig.url(), &file).await;
        let result = format!("tidings.api.{request}");
        let usual = format!("$JS.API.{request}");
        mapped.may_not_publish_mapped(&usual, &result).await;
        tap.may_not_publish(&result).await;
    }
    for subject in [
        ">",
        "events.>",
        "events.prod-eu.>",
        "$JS.>",
        "$KV.>",
        "tidings.>",
    ] {
        tap.may_not_subscribe(subject).await;
    }
}

#[tokio::test]
async fn the_body_of_a_request_of_a_tap_cannot_name_another_filter_or_consumer() {
    let bed = Bed::start().await;
    let client = connect(bed.fleet.rig.url(), &bed.fleet.credentials("audit")).await;
    for more in [
        json!({"filter_subject": "events.dev-1.>"}),
        json!({"filter_subject": "events.>"}),
        json!({"filter_subject": "", "filter_subjects": [FILTER, "events.dev-1.>"]}),
        json!({"name": "router", "durable_name": "router"}),
    ] {
        let mut config = json!({
            "name": "tap-audit-2",
            "filter_subject": FILTER,
            "ack_policy": "none",
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let request = json!({"stream_name": "EVENTS", "config": config, "action": "create"});
        let subject = format!("$JS.API.CONSUMER.CREATE.EVENTS.tap-audit-2.{FILTER}");
        let answer = client.request(subject, request.to_string().into()).await;
        let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert!(answer["error"]["code"].is_number(), "{more} {answer}");
    }
}

#[tokio::test]
async fn a_tap_cannot_reach_other_subjects_with_the_reply_of_a_request() {
    let bed = Bed::start().await;
    let hub = bed.fleet.streams().await;
    let client = connect(bed.fleet.rig.url(), &bed.fleet.credentials("audit")).await;
    durable(&client, "tap-audit-0").await;
    let before = stored(&hub).await;
    let config = json!({"name": "tap-audit-1", "filter_subject": FILTER, "ack_policy": "explicit"});
    let create = json!({"stream_name": "EVENTS", "config": config, "action": "create"});
    let next = json!({"batch": 1, "no_wait": true});
    let replies = [
        "events.dev-1.apps.Kustomization.info",
        "deliveries.default.slack.apps.hook",
        "dead.slack.apps.hook",
        "$KV.limits.circuit.apps.slack",
        "$KV.clusters.prod-eu",
    ];
    for reply in replies {
        for (subject, body) in [
            (
                format!("$JS.API.CONSUMER.CREATE.EVENTS.tap-audit-1.{FILTER}"),
                create.to_string(),
            ),
            (
                "$JS.API.CONSUMER.MSG.NEXT.EVENTS.tap-audit-0".to_owned(),
                next.to_string(),
            ),
            (
                "$JS.ACK.EVENTS.tap-audit-0.1.2.1.1.0".to_owned(),
                "+NXT".to_owned(),
            ),
        ] {
            let published = client.publish_with_reply(subject, reply, body.into()).await;
            published.unwrap();
        }
    }
    // The server handles the requests of a connection in order.
    durable(&client, "tap-audit-3").await;
    assert_eq!(before, stored(&hub).await);
    let events = hub.get_stream("EVENTS").await.unwrap();
    let created = events.consumer_info("tap-audit-1").await;
    assert!(created.is_ok(), "the requests were handled: {created:?}");
}

#[tokio::test]
async fn taps_are_listed_rotated_revoked_updated_and_removed() {
    let bed = Bed::start().await;
    let fleet = &bed.fleet;
    let file = fleet.credentials("audit");
    assert_eq!(mode(&file), 0o600);
    let listed = fleet.run(&["list", "--output", "jsonl"]).await.json();
    let kinds: Vec<_> = listed.iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["member", "member", "tap"]);
    assert_eq!(
        (&listed[2]["name"], &listed[2]["filter"]),
        (&"audit".into(), &FILTER.into())
    );
    let lines = fleet.run(&["list"]).await;
    assert!(lines.lines()[2].starts_with("tap audit valid"), "{lines:?}");

    let former = std::fs::read_to_string(&file).unwrap();
    let rotated = fleet.run(&["rotate", "audit"]).await;
    assert_eq!(rotated.status, Some(0), "{rotated:?}");
    assert_ne!(std::fs::read_to_string(&file).unwrap(), former);
    let old = fleet.rig.folder().join("old.creds");
    std::fs::write(&old, former).unwrap();
    let options = async_nats::ConnectOptions::with_credentials_file(&old).await;
    assert!(options.unwrap().connect(fleet.rig.url()).await.is_err());
    let updated = fleet.run(&["update"]).await;
    assert_eq!(updated.status, Some(0), "{updated:?}");

    let client = connect(fleet.rig.url(), &file).await;
    let consumer = durable(&client, "tap-audit-3").await;
    assert_eq!(read(&consumer, 1).await, ["first of prod"]);

    let revoked = fleet.run(&["revoke", "audit"]).await;
    assert_eq!(revoked.status, Some(0), "{revoked:?}");
    let listed = fleet.run(&["list", "--output", "jsonl"]).await.json();
    assert!(listed[2]["revokedAt"].is_string(), "{listed:?}");
    let options = async_nats::ConnectOptions::with_credentials_file(&file).await;
    assert!(options.unwrap().connect(fleet.rig.url()).await.is_err());

    let removal = ["remove", "audit", "--output", "json"];
    let refused = fleet.run(&removal).await;
    assert_ne!(refused.status, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    let planned = fleet.run(&[&removal[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned.json()[0]["done"], false);
    assert!(file.exists());
    let removed = fleet.run(&[&removal[..], &["--yes"]].concat()).await;
    assert_eq!(removed.json()[0]["done"], true);
    assert_eq!(fleet.run(&["list"]).await.lines().len(), 2);
    assert!(!file.exists());
    let events = fleet.streams().await.get_stream("EVENTS").await.unwrap();
    assert!(events.consumer_info("tap-audit-3").await.is_err());
}

#[tokio::test]
async fn a_tap_has_a_name_of_its_own_and_a_filter_for_events() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let add =
        async |name: &str, filter: &str| fleet.run(&["add-tap", name, "--filter", filter]).await;
    add("dev-1", FILTER)
        .await
        .assert_error_names(&["dev-1", "a cluster has this name"]);
    add("tools", FILTER)
        .await
        .assert_error_names(&["tools", "reserved"]);
    for filter in ["events.*", "deliveries.>", "events.prod.eu.apps.Pod.info"] {
        add("audit", filter)
            .await
            .assert_error_names(&["--filter", filter]);
    }
    let added = fleet
        .run(&["add-tap", "audit", "--cluster", "prod.eu"])
        .await;
    assert!(added.lines()[0].contains("events.prod=2Eeu.>"), "{added:?}");
    add("audit", FILTER)
        .await
        .assert_error_names(&["audit", "rotate"]);
    fleet
        .run(&["add", "audit"])
        .await
        .assert_error_names(&["audit", "a tap has this name"]);
    fleet
        .run(&["rename", "dev-1", "audit", "--yes"])
        .await
        .assert_error_names(&["audit", "a tap has this name"]);
}
