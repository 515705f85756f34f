//! Rules from several clusters: a hub and two members, each with a real API server, and a folder.
//! NATS has the accounts and credentials of `tidings fleet`.

mod bed;
mod cut;
mod outages;

use serde_json::{Value, json};
use tidings_core::{Event, Message};
use tidings_rig::{Forge, Process, Receiver, Reply, event, eventually};

use crate::bed::{alert, provider, secret};
use bed::{Fleet, MEMBERS};

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

/// The same names in each cluster: an Alert for everything, and a Provider whose Secret has the
/// address.
fn rules(address: &str) -> [Value; 3] {
    [
        secret("url", json!({"address": address})),
        provider("hook", json!({"secretRef": {"name": "url"}})),
        alert("all", "hook"),
    ]
}

#[tokio::test]
async fn each_cluster_and_a_folder_have_their_own_rules_under_equal_names() {
    let fleet = Fleet::start().await;
    fleet.run(&["label", "eu", "env=prod"]).await;
    fleet.run(&["label", "us", "env=dev"]).await;
    let [hub, folder, prod, eu, us] = receivers().await;
    us.answer_with(Reply::Status(400));
    fleet.hub.apply(&rules(hub.url())).await;
    let selector = json!({"matchLabels": {"env": "prod"}});
    let mut of_prod = alert("prod", "prod");
    of_prod["spec"]["clusterSelector"] = selector;
    let to_prod = provider("prod", json!({"address": prod.url()}));
    fleet.hub.apply(&[of_prod, to_prod]).await;
    fleet.eu.apply(&rules(eu.url())).await;
    fleet.us.apply(&rules(us.url())).await;
    fleet.rig.rules().put([
        tidings_rig::provider("hook", folder.url()),
        tidings_rig::alert("all", "hook"),
    ]);
    let [router, worker] = fleet.roles().await;
    let members = fleet.members().await;

    for (name, member) in MEMBERS.iter().zip(&members) {
        let response = member.post(&event(&format!("of {name}"))).await;
        assert_eq!(response.expect("ingest responds").status, 202);
    }
    fleet.drained().await;

    let both = vec!["of eu".to_owned(), "of us".to_owned()];
    assert_eq!(messages(&hub), both);
    assert_eq!(messages(&folder), both);
    assert_eq!(messages(&prod), ["of eu"]);
    assert_eq!(messages(&eu), ["of eu"]);
    assert_eq!(messages(&us), ["of us"]);
    let verdicts = "tidings_router_verdicts_total";
    router
        .counts(verdicts, "not-the-members-cluster", 2.0)
        .await;
    for source in ["cluster", "folder", "eu", "us"] {
        for process in [&router, &worker] {
            assert_eq!(source_up(process, source).await, 1.0, "{source}");
        }
    }

    // Tools name the source, and take it.
    let explained = fleet.explain("eu", &event("asked")).await;
    let verdict = |alert: &str| {
        let alerts = explained["alerts"].as_array().into_iter().flatten();
        let mut named = alerts.filter(|it| it["alert"] == alert);
        named
            .next()
            .map(|it| it["verdict"].clone())
            .unwrap_or_default()
    };
    for (alert, expected) in [
        ("apps/all", "matched"),
        ("folder:apps/all", "matched"),
        ("eu:apps/all", "matched"),
        ("us:apps/all", "not-the-members-cluster"),
    ] {
        assert_eq!(verdict(alert), expected, "{alert}: {explained}");
    }
    fleet.tool(&["providers", "pause", "eu:apps/hook"]).await;
    fleet.tool(&["providers", "resume", "eu:apps/hook"]).await;

    // A member cannot pass for another one: neither by the subject nor by the body.
    forge_events(&fleet).await;
    let outcomes = "tidings_router_events_total";
    eventually("the forged event is refused", async || {
        (router.metric(outcomes, "other-cluster").await > 0.0).then_some(())
    })
    .await;
    fleet.drained().await;
    assert_eq!(messages(&us), ["of us"]);

    // Each status is written where the object lives.
    for (server, fails) in [(&fleet.hub, false), (&fleet.eu, false), (&fleet.us, true)] {
        for (kind, name) in [("Alert", "all"), ("Provider", "hook")] {
            let field = if fails {
                "lastError"
            } else {
                "lastDeliveryTime"
            };
            let status = server.status_with(kind, name, field).await;
            let other = if fails {
                "lastDeliveryTime"
            } else {
                "lastError"
            };
            assert!(status[other].is_null(), "{kind}: {status}");
        }
        let events = server.dead_letter_events().await;
        assert_eq!(events.len(), usize::from(fails), "{events:?}");
    }
    let dead = fleet.dead_letters().await;
    let named = dead
        .iter()
        .filter_map(|dead| dead.delivery.as_ref()?.alert.as_ref());
    let named: Vec<_> = named.map(|alert| alert.namespace.as_str()).collect();
    assert_eq!(named, ["us:apps"]);
}

#[tokio::test]
async fn statuses_of_two_clusters_conflict_until_their_ids_are_qualified() {
    let fleet = Fleet::start().await;
    let forge = Forge::start().await;
    let own = |fields: Value| {
        let provider = forge.provider("github").with_fields(fields);
        crate::bed::without_namespace(provider)
    };
    let token = secret("forge", json!({"token": "hidden-token"}));
    // The members' Providers have uids of their own, which the default id contains.
    for server in [&fleet.hub, &fleet.eu, &fleet.us] {
        let rules = [own(json!({})), token.clone(), alert("commits", "forge")];
        server.apply(&rules).await;
    }
    let _roles = fleet.roles().await;
    let members = fleet.members().await;
    let report = async |seconds: [u32; 2]| {
        for (second, member) in seconds.into_iter().zip(&members) {
            let response = member.post(&reconciled(second)).await;
            assert_eq!(response.expect("ingest responds").status, 202);
            fleet.drained().await;
        }
    };

    report([1, 2]).await;
    assert_eq!(ids(&forge).len(), 3, "hub, eu and us");
    let status = fleet
        .hub
        .status_with("Provider", "forge", "lastError")
        .await;
    assert_eq!(status["lastError"]["reason"], "conflict");
    let message = status["lastError"]["message"].to_string();
    assert!(message.contains("commitStatus.id: qualified"), "{message}");
    for member in [&fleet.eu, &fleet.us] {
        let status = member
            .status_with("Provider", "forge", "lastDeliveryTime")
            .await;
        assert!(status["lastError"].is_null(), "{status}");
    }

    let qualified = own(json!({"commitStatus": {"id": "qualified"}}));
    fleet.hub.apply(&[qualified]).await;
    let mut second = 10;
    eventually("each cluster has a status of its own", async || {
        second += 2;
        report([second, second + 1]).await;
        (ids(&forge).len() == 5).then_some(())
    })
    .await;
}

/// Whether the rules of a source are read and can be read.
async fn source_up(process: &Process, source: &str) -> f64 {
    let label = format!("source=\"{source}\"");
    process.metric("tidings_rules_source_up", &label).await
}

async fn receivers() -> [Receiver; 5] {
    [
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    ]
}

/// The messages that a receiver got, sorted.
fn messages(receiver: &Receiver) -> Vec<String> {
    let received = receiver.received();
    let mut messages: Vec<_> = received.iter().map(|it| it.message()).collect();
    messages.sort();
    messages
}

/// The ids of all commit statuses.
fn ids(forge: &Forge) -> std::collections::BTreeSet<String> {
    let contents = forge.contents();
    let statuses = contents.statuses.iter();
    statuses
        .map(|status| status.entry["context"].to_string())
        .collect()
}

/// An event about a commit, which fails and succeeds in turn, so that each is written.
fn reconciled(second: u32) -> Value {
    let mut event = event(&format!("reconciled at {second}"));
    event["timestamp"] = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60).into();
    let revision = format!("main@sha1:{COMMIT}");
    event["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": revision});
    if (second / 2).is_multiple_of(2) {
        event["severity"] = "error".into();
        event["reason"] = "HealthCheckFailed".into();
    }
    event
}

/// With the credentials of `eu`: publishes an event under the subject of `us`, which the server
/// refuses, and one under its own subject that names `us`.
#[expect(
    clippy::disallowed_methods,
    reason = "no ingest publishes such a message"
)]
async fn forge_events(fleet: &Fleet) {
    let forged = Event {
        id: "forged".into(),
        cluster: "us".into(),
        message: "forged".into(),
        severity: "info".into(),
        involved_object: Some(tidings_core::ObjectReference {
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: "apps".into(),
            ..Default::default()
        }),
        ..Event::default()
    };
    let (client, violations) = fleet.client("eu").await;
    for cluster in ["us", "eu"] {
        let subject = format!("events.{cluster}.apps.Kustomization.info");
        let payload = forged.encode_to_vec().into();
        client.publish(subject, payload).await.expect("it connects");
    }
    client.flush().await.expect("it is connected");
    eventually("the server refuses the subject", async || {
        let violations = violations.lock();
        let mut violations = violations.iter();
        violations
            .any(|it| it.contains("events.us.apps"))
            .then_some(())
    })
    .await;
}
