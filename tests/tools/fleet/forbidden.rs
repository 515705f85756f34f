//! What the credentials of a member and of the roles do not permit.

use async_nats::{HeaderMap, jetstream};
use serde_json::{Value, json};
use tidings_core::Message as _;
use tidings_core::wire::{Event, Heartbeat};
use tidings_rig::eventually;

use super::Fleet;
use super::client::Intruder;
use crate::command::{text, tidings_with};

/// The number of messages that each stream ever stored, by name. The bucket of the routers' own
/// progress is not among them: they may write there at any time.
pub async fn stored(hub: &jetstream::Context) -> Vec<(String, u64)> {
    let mut stored = Vec::new();
    for name in [
        "EVENTS",
        "DELIVERIES",
        "OUTCOMES",
        "DEAD",
        "KV_limits",
        "KV_latest",
    ]
    .into_iter()
    .chain(["KV_clusters", "KV_suspects"])
    {
        let mut stream = hub.get_stream(name).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        stored.push((name.to_owned(), state.last_sequence));
    }
    stored
}

fn event(cluster: &str) -> Event {
    Event {
        id: "an-id".to_owned(),
        cluster: cluster.to_owned(),
        ..Event::default()
    }
}

#[tokio::test]
async fn a_member_can_do_nothing_but_its_own() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    fleet.add("prod-eu").await;
    let member = Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    for subject in [
        "events.prod-eu.apps.Kustomization.info",
        "events.dev-10.apps.Kustomization.info",
        "$KV.heartbeats.prod-eu.ingest.a",
        "$KV.clusters.dev-1",
        "$KV.limits.circuit.apps.slack",
        "$KV.latest.a",
        "$KV.hub.events",
        "$KV.counts.deliveries",
        "deliveries.default.slack.apps.hook",
        "parked.default.slack.apps.hook.a",
        "outcomes.slack.apps.hook.delivered",
        "dead.slack.apps.hook",
        "tidings.names",
        "tidings.checks",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$JS.API.INFO",
        "$JS.ACK.EVENTS.router.1.1.1.1.0",
    ] {
        member.may_not_publish(subject).await;
    }
    let requests = [
        "DIRECT.GET.EVENTS",
        "DIRECT.GET.EVENTS.events.dev-1.apps.Kustomization.info",
        "DIRECT.GET.DELIVERIES",
        "DIRECT.GET.KV_counts",
        "DIRECT.GET.KV_counts.$KV.counts.deliveries",
        "DIRECT.GET.KV_clusters.$KV.clusters.prod-eu",
        "DIRECT.GET.KV_heartbeats.$KV.heartbeats.prod-eu.ingest.a",
        "DIRECT.GET.KV_limits.$KV.limits.a",
        "STREAM.INFO.EVENTS",
        "STREAM.LIST",
        "STREAM.CREATE.MINE",
        "STREAM.UPDATE.EVENTS",
        "STREAM.PURGE.EVENTS",
        "STREAM.DELETE.EVENTS",
        "STREAM.MSG.GET.EVENTS",
        "STREAM.MSG.DELETE.EVENTS",
        "CONSUMER.CREATE.EVENTS",
        "CONSUMER.CREATE.EVENTS.ingest-dev-1-0",
        "CONSUMER.CREATE.EVENTS.ingest-dev-1-0.events.prod-eu.>",
        "CONSUMER.CREATE.EVENTS.ingest-dev-1-0.>",
        "CONSUMER.CREATE.EVENTS.ingest-prod-eu-0.events.dev-1.>",
        "CONSUMER.CREATE.EVENTS.router.events.dev-1.>",
        "CONSUMER.CREATE.DELIVERIES.ingest-dev-1-0.events.dev-1.>",
        "CONSUMER.DURABLE.CREATE.EVENTS.router",
        "CONSUMER.MSG.NEXT.EVENTS.router",
        "CONSUMER.MSG.NEXT.EVENTS.ingest-prod-eu-0",
        "CONSUMER.DELETE.EVENTS.router",
        "CONSUMER.INFO.EVENTS.router",
    ];
    for request in requests {
        for api in ["$JS.API", "tidings.api"] {
            member.may_not_publish(&format!("{api}.{request}")).await;
        }
    }
    for subject in [
        ">",
        "events.>",
        "events.dev-1.>",
        "_INBOX.>",
        "_INBOX_prod-eu.>",
        "_INBOX_router.>",
        "$JS.>",
        "$KV.>",
        "deliveries.>",
        "tidings.>",
        "$SYS.>",
    ] {
        member.may_not_subscribe(subject).await;
    }
}

#[tokio::test]
async fn a_member_cannot_reach_other_subjects_with_the_reply_of_a_request() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let member = Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    let hub = fleet.streams().await;
    let before = stored(&hub).await;
    let own = "events.dev-1.apps.Kustomization.info";
    let replies = [
        "events.prod-eu.apps.Kustomization.info",
        "deliveries.default.slack.apps.hook",
        "dead.slack.apps.hook",
        "outcomes.slack.apps.hook.delivered",
        "$KV.limits.circuit.apps.slack",
        "$KV.latest.a",
        "$KV.clusters.prod-eu",
        "$KV.consumers.router",
        "$KV.suspects.a",
    ];
    for reply in replies {
        let body = event("dev-1").encode_to_vec();
        let published = member
            .client
            .publish_with_reply(own, reply, body.into())
            .await;
        published.unwrap();
    }
    // Its own consumer pulls to these subjects, too.
    let create = consumer_request(json!({}));
    let created = member
        .client
        .request(own_consumer("CREATE", ".events.dev-1.>"), create.into())
        .await
        .unwrap();
    assert!(!created.payload.windows(7).any(|part| part == b"\"error\""));
    for reply in replies {
        let next = json!({"batch": 1, "no_wait": true}).to_string();
        let pulled = member
            .client
            .publish_with_reply(own_consumer("MSG.NEXT", ""), reply, next.into())
            .await;
        pulled.unwrap();
    }
    let body = event("dev-1").encode_to_vec();
    let last = member.client.request(own, body.into()).await.unwrap();
    let last: Value = serde_json::from_slice(&last.payload).unwrap();

    let after = stored(&hub).await;

    assert_eq!(last["seq"], replies.len() as u64 + 1, "all were stored");
    assert_eq!(after[0], ("EVENTS".to_owned(), replies.len() as u64 + 1));
    assert_eq!(before[1..], after[1..], "nothing else was stored");
    let position = hub.get_key_value("consumers").await.unwrap();
    let position = position.get("router").await.unwrap();
    let text = String::from_utf8_lossy(position.as_deref().unwrap_or_default()).into_owned();
    assert!(
        !text.contains("\"stream\"") && !text.contains("dev-1"),
        "the routers' position is their own: {text}"
    );
}

#[tokio::test]
async fn a_member_cannot_make_an_event_of_another_cluster_a_duplicate() {
    let fleet = Fleet::start().await;
    fleet.add("prod-eu").await;
    let _hub = fleet.hub().await;
    let ingest = fleet.rig.run(fleet.ingest("prod-eu")).await;
    let hub = fleet.streams().await;

    let posted = tidings_rig::event("once");
    for status in [202, 429] {
        assert_eq!(ingest.post(&posted).await.unwrap().status, status);
    }

    let stream = hub.get_stream("EVENTS").await.unwrap();
    let stored = stream.direct_get(1).await.unwrap();
    let key = Event::decode(stored.payload).unwrap().dedupe_key;
    let id = stored.headers.get("Nats-Msg-Id").unwrap().as_str();
    let secret = id.strip_prefix(&format!("{key}#")).unwrap();
    assert_eq!(secret.len(), 32, "the id cannot be computed from the event");
    assert_eq!(stream.get_info().await.unwrap().state.last_sequence, 1);
}

#[tokio::test]
async fn a_member_cannot_delete_the_heartbeats_of_others() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let member = Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    for (rollup, is_stored) in [(None, true), (Some("all"), false), (Some("sub"), false)] {
        let mut headers = HeaderMap::new();
        if let Some(rollup) = rollup {
            headers.insert("Nats-Rollup", rollup);
        }
        let subject = "$KV.heartbeats.dev-1.ingest.a";
        let request = member
            .client
            .request_with_headers(subject, headers, "x".into());
        let answer: Value = serde_json::from_slice(&request.await.unwrap().payload).unwrap();
        assert_eq!(answer["error"].is_null(), is_stored, "{rollup:?} {answer}");
    }
}

#[tokio::test]
async fn the_heartbeats_of_a_member_are_few_and_small_and_hide_no_process_of_the_hub() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let member = Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    let large = "x".repeat(5 << 10);
    let request = member
        .client
        .request("$KV.heartbeats.dev-1.ingest.a", large.into());
    let answer: Value = serde_json::from_slice(&request.await.unwrap().payload).unwrap();
    assert!(!answer["error"].is_null(), "{answer}");

    for number in 0..30_000 {
        let heartbeat = Heartbeat {
            role: "ingest".into(),
            cluster: "dev-1".into(),
            process: number.to_string(),
            ..Heartbeat::default()
        };
        let subject = format!("$KV.heartbeats.dev-1.ingest.{number}");
        let (inbox, body) = (member.client.new_inbox(), heartbeat.encode_to_vec());
        let published = member
            .client
            .publish_with_reply(subject, inbox, body.into());
        published.await.unwrap();
    }
    member.client.flush().await.unwrap();

    eventually("status shows router and worker", async || {
        let tools = fleet.credentials("tools");
        let variables = [("TIDINGS_NATS__CREDENTIALS", text(&tools))];
        let url = fleet.rig.url();
        let status = ["status", "--nats", url, "--output", "json"];
        let ended = tidings_with(&variables, &status).await;
        let status: Value = serde_json::from_str(&ended.stdout).ok()?;
        let problems = status["problems"].as_array()?;
        let is_missing =
            |problem: &Value| problem["code"] == "no-router" || problem["code"] == "no-worker";
        (!problems.iter().any(is_missing)).then_some(())
    })
    .await;
    let mut bucket = fleet
        .streams()
        .await
        .get_stream("KV_heartbeats")
        .await
        .unwrap();
    let stored = bucket.info().await.unwrap().state.messages;
    assert!(stored <= 20_000, "{stored}");
}

fn own_consumer(action: &str, filter: &str) -> String {
    format!("tidings.api.CONSUMER.{action}.EVENTS.ingest-dev-1-0{filter}")
}

/// A request to create the consumer of the member, with more fields.
fn consumer_request(more: Value) -> String {
    let mut config = json!({
        "name": "ingest-dev-1-0",
        "filter_subject": "events.dev-1.>",
        "ack_policy": "none",
        "deliver_policy": "all",
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    json!({"stream_name": "EVENTS", "config": config, "action": "create"}).to_string()
}

#[tokio::test]
async fn the_body_of_a_request_cannot_name_another_filter_than_its_subject() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let member = Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    for more in [
        json!({"filter_subject": "events.prod-eu.>"}),
        json!({"filter_subject": "events.>"}),
        json!({"filter_subject": "", "filter_subjects": ["events.dev-1.>", "events.prod-eu.>"]}),
    ] {
        let subject = own_consumer("CREATE", ".events.dev-1.>");
        let request = consumer_request(more.clone());
        let answer = member.client.request(subject, request.into()).await;
        let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert!(answer["error"]["code"].is_number(), "{more} {answer}");
    }
    for more in [json!({"name": "router"}), json!({"durable_name": "router"})] {
        let subject = own_consumer("CREATE", ".events.dev-1.>");
        let request = consumer_request(more.clone());
        let answer = member.client.request(subject, request.into()).await;
        let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert!(answer["error"]["code"].is_number(), "{more} {answer}");
    }
}

/// Fields with which a consumer would act on the hub by itself, or take much memory there. Each
/// consumer subscribes to requests about it, and a message that is pushed there is a request.
fn hostile_fields() -> Vec<Value> {
    let targets = [
        "deliveries.default.slack.apps.hook",
        "$KV.limits.circuit.a",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.router",
        "$JS.API.CONSUMER.RESET.EVENTS.router",
        "$JS.API.CONSUMER.RESET.DELIVERIES.default-generic",
        "tidings.names",
    ];
    let pushes = targets.map(|target| json!({"deliver_subject": target}));
    let others = [
        json!({"max_waiting": 100_000_000}),
        json!({"max_ack_pending": -1}),
        json!({"deliver_subject": targets[2], "headers_only": true}),
    ];
    pushes.into_iter().chain(others).collect()
}

#[tokio::test]
async fn a_member_cannot_push_its_events_to_anything_in_the_hub() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let _hub = fleet.hub().await;
    let member = Intruder::connect(fleet.rig.url(), &fleet.credentials("dev-1")).await;
    let hub = fleet.streams().await;
    let own = "events.dev-1.apps.Kustomization.info";
    let body = event("dev-1").encode_to_vec();
    member.client.request(own, body.into()).await.unwrap();
    for more in hostile_fields() {
        let request = consumer_request(more.clone());
        let subject = own_consumer("CREATE", ".events.dev-1.>");
        let answer = member.client.request(subject, request.into()).await;
        let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
        assert!(answer["error"]["code"].is_number(), "{more} {answer}");
        let stream = hub.get_stream("EVENTS").await.unwrap();
        assert!(
            stream.consumer_info("ingest-dev-1-0").await.is_err(),
            "{more}"
        );
    }
}

#[tokio::test]
async fn a_tap_cannot_push_events_to_anything_in_the_hub() {
    let fleet = Fleet::start().await;
    let _hub = fleet.hub().await;
    let added = fleet
        .run(&["add-tap", "audit", "--filter", "events.dev-1.>"])
        .await;
    assert_eq!(added.status, Some(0), "{added:?}");
    let (url, file) = (fleet.rig.url(), fleet.credentials("audit"));
    let tap = Intruder::with_inbox(url, &file, "_INBOX").await;
    let hub = fleet.streams().await;
    for more in hostile_fields() {
        let mut config = json!({"name": "tap-audit-0", "ack_policy": "explicit"});
        for (name, value) in more.as_object().unwrap() {
            config[name] = value.clone();
        }
        let request = json!({"stream_name": "EVENTS", "config": config}).to_string();
        for api in ["$JS.API", "tidings.api"] {
            let subject = format!("{api}.CONSUMER.CREATE.EVENTS.tap-audit-0.events.dev-1.>");
            let answer = tap.client.request(subject, request.clone().into()).await;
            let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
            assert!(answer["error"]["code"].is_number(), "{more} {answer}");
        }
        let stream = hub.get_stream("EVENTS").await.unwrap();
        assert!(stream.consumer_info("tap-audit-0").await.is_err(), "{more}");
    }
}

#[tokio::test]
async fn a_role_of_the_hub_has_the_least_permissions() {
    let fleet = Fleet::start().await;
    fleet.add("dev-1").await;
    let url = fleet.rig.url();
    let never = [
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.DELETE.DELIVERIES",
        "$JS.API.STREAM.PURGE.EVENTS",
        "$JS.API.STREAM.PURGE.DELIVERIES",
        "events.dev-1.apps.Kustomization.info",
        "$SYS.REQ.CLAIMS.UPDATE",
    ];
    for (role, also) in [
        (
            "router",
            &[
                "$KV.clusters.dev-1",
                "$KV.heartbeats.dev-1.ingest.a",
                "$KV.latest.a",
                "dead.slack.apps.hook",
                "$JS.API.STREAM.UPDATE.EVENTS",
                "$JS.API.CONSUMER.MSG.NEXT.DELIVERIES.default-slack",
            ][..],
        ),
        (
            "worker",
            &[
                "$KV.clusters.dev-1",
                "$KV.heartbeats.dev-1.ingest.a",
                "$JS.API.STREAM.UPDATE.DELIVERIES",
                "$JS.API.CONSUMER.CREATE.EVENTS.router",
                "$JS.API.CONSUMER.MSG.NEXT.EVENTS.router",
                "$JS.ACK.EVENTS.router.1.1.1.1.0",
            ],
        ),
        ("tools", &["$JS.API.STREAM.DELETE.DEAD"]),
    ] {
        let client = Intruder::connect(url, &fleet.credentials(role)).await;
        for subject in never.iter().chain(also) {
            client.may_not_publish(subject).await;
        }
        for subject in [">", "events.>", "_INBOX.>", "_INBOX_dev-1.>"] {
            client.may_not_subscribe(subject).await;
        }
    }
}
