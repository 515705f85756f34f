//! `tidings trace`: every verdict and every outcome, as the running pipeline stored them.

use serde_json::{Value, json};
use tidings_core::model::token::Token;
use tidings_core::model::verdict::Verdict;
use tidings_core::wire::Cluster;
use tidings_core::{Event, Message as _, ObjectLabels, Outcome, object_labels};
use tidings_rig::{
    Forge, Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};
use tidings_rules::testing::disorder;

use crate::TIDINGS;
use crate::command::{Ended, text, tidings};

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
const OBJECT: &str = "Kustomization/apps/apps";

/// An event for the commit, `second` seconds after 03:00.
fn reconciled(message: &str, second: u32) -> Value {
    let mut event = event(message);
    event["timestamp"] = format!("2026-01-02T03:00:{second:02}Z").into();
    event["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
    event
}

async fn trace_with(rig: &Rig, more: &[&str]) -> Ended {
    tidings(&[&["trace", "--nats", rig.url()], more].concat()).await
}

async fn trace(rig: &Rig, more: &[&str]) -> Value {
    let rules = rig.rules().folder();
    let fixed = ["--output", "json", "--rules", text(rules)];
    let ended = trace_with(rig, &[&fixed, more].concat()).await;
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The traced event with this message.
fn of<'a>(trace: &'a Value, message: &str) -> &'a Value {
    let events = trace["events"].as_array().expect("a list of events");
    let found = events.iter().find(|event| event["message"] == message);
    found.unwrap_or_else(|| panic!("the event {message:?} is traced: {trace}"))
}

fn named<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let items = list.as_array().expect("a list");
    let found = items.iter().find(|item| item[key] == value);
    found.unwrap_or_else(|| panic!("{key} {value}: {list}"))
}

/// What today's rules decide, also if a delivery proves that the Alert matched.
fn today(verdict: &Value) -> &Value {
    match &verdict["today"] {
        Value::Null => &verdict["verdict"],
        today => today,
    }
}

fn codes(event: &Value) -> Vec<&str> {
    let entries = event["timeline"].as_array().expect("a timeline");
    let codes = entries.iter().map(|entry| entry["code"].as_str().unwrap());
    codes.collect()
}

async fn post(up: &Process, event: &Value) {
    assert_eq!(up.post(event).await.expect("ingest responds").status, 202);
}

fn from_source(name: &str, provider: &str, source: Value) -> Manifest {
    alert(name, provider).with("eventSources", json!([source]))
}

#[tokio::test]
async fn every_outcome_is_traced_with_its_attempts() {
    let rig = Rig::start(TIDINGS).await;
    let forge = Forge::start().await;
    Forge::put_secret(rig.rules());
    let retried = Receiver::script([Reply::Status(503)]).await;
    let (rejected, waiting) = (Receiver::start().await, Receiver::start().await);
    rejected.answer_with(Reply::Status(400));
    waiting.answer_with(Reply::Status(429));
    rig.rules().put([
        forge.provider("github"),
        alert("commits", "forge"),
        provider("retried", retried.url()).that_retries_soon(),
        alert("to-retried", "retried"),
        provider("rejected", rejected.url()),
        alert("to-rejected", "rejected"),
        provider("waiting", waiting.url()).with("retry", json!({"min": "1h", "max": "2h"})),
        alert("to-waiting", "waiting"),
        provider("telemetry", retried.url()).with("type", "otel"),
        from_source(
            "to-telemetry",
            "telemetry",
            json!({"kind": "HelmRepository", "name": "*"}),
        ),
    ]);
    let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
    let forge_ended = async |count: usize| {
        eventually("the forge's deliveries end", async || {
            let outcomes = rig.outcomes().await;
            let ended = outcomes.iter().filter(|outcome| {
                let provider = outcome.provider.clone().unwrap_or_default();
                provider.name == "forge"
            });
            (ended.count() == count).then_some(())
        })
        .await;
    };
    post(&up, &reconciled("first", 30)).await;
    forge_ended(1).await;
    post(&up, &reconciled("again", 40)).await;
    forge_ended(2).await;
    let mut older = reconciled("older", 10);
    older["severity"] = "error".into();
    older["reason"] = "HealthCheckFailed".into();
    post(&up, &older).await;
    forge_ended(3).await;
    let mut helm = event("helm");
    helm["involvedObject"]["kind"] = "HelmRepository".into();
    post(&up, &helm).await;
    retried.accepts("first").await;
    waiting.receives(1).await;
    let traced = eventually("all outcomes are stored", async || {
        let traced = trace(&rig, &["--object", OBJECT]).await;
        let first = of(&traced, "first");
        let settled = |provider: &str, state: &str| {
            named(&first["deliveries"], "provider", provider)["state"] == state
        };
        (settled("apps/retried", "delivered")
            && settled("apps/rejected", "dead")
            && settled("apps/waiting", "parked"))
        .then_some(traced)
    })
    .await;
    let skipped = eventually("the skipped one ended", async || {
        let object = "HelmRepository/apps/apps";
        let traced = trace(&rig, &["--object", object]).await;
        let state = of(&traced, "helm")["deliveries"][0]["state"].clone();
        (state == "skipped").then_some(traced)
    })
    .await;

    let mut seen = Vec::new();
    for (event, provider, state) in [
        (of(&traced, "first"), "apps/forge", "delivered"),
        (of(&traced, "again"), "apps/forge", "duplicate"),
        (of(&traced, "older"), "apps/forge", "superseded"),
        (of(&skipped, "helm"), "apps/telemetry", "skipped"),
        (of(&traced, "first"), "apps/rejected", "dead"),
    ] {
        let delivery = named(&event["deliveries"], "provider", provider);
        assert_eq!(delivery["state"], state, "{delivery}");
        assert_eq!(delivery["generation"], 0, "{delivery}");
        assert_eq!(
            delivery["attempts"].as_array().unwrap().len(),
            1,
            "{delivery}"
        );
        assert_eq!(event["routing"], "routed");
        seen.push(state);
    }
    let first = of(&traced, "first");
    let dead = named(&first["deliveries"], "provider", "apps/rejected");
    assert_eq!(
        (&dead["reason"], &dead["attempts"][0]["status"]),
        (&json!("rejected"), &json!(400))
    );

    let retried = named(&first["deliveries"], "provider", "apps/retried");
    let outcomes = |delivery: &Value| -> Vec<Value> {
        let attempts = delivery["attempts"].as_array().unwrap();
        attempts.iter().map(|it| it["outcome"].clone()).collect()
    };
    assert_eq!(outcomes(retried), ["retrying", "delivered"]);
    assert_eq!(retried["attempts"][0]["status"], 503);
    assert!(retried["attempts"][1]["waitedMs"].is_u64(), "{retried}");
    seen.push("retrying");

    let parked = named(&first["deliveries"], "provider", "apps/waiting");
    assert!(parked["nextAttemptAt"].is_string(), "{parked}");
    assert!(
        ["retry", "circuit"].contains(&parked["waitsFor"].as_str().unwrap()),
        "{parked}"
    );
    for outcome in Outcome::ALL {
        assert!(seen.contains(&outcome.as_str()), "{outcome} is tried");
    }

    assert_eq!(first["cluster"], "hub");
    assert_eq!(first["source"], "kustomize-controller");
    let codes = codes(first);
    assert_eq!(codes[..3], ["happened", "received", "stored"]);
    assert_eq!(codes.iter().filter(|code| **code == "attempt").count(), 5);
    assert_eq!(codes.last(), Some(&"next-attempt"));

    let by_commit = trace(&rig, &["--commit", &COMMIT[..8]]).await;
    assert_eq!(by_commit["events"].as_array().unwrap().len(), 3);
    let id = first["id"].as_str().unwrap();
    let by_id = trace(&rig, &["--event", &id[..12]]).await;
    assert_eq!(by_id["events"], json!([first]));
    let delivery = first["deliveries"][0]["id"].as_str().unwrap();
    let by_delivery = trace(&rig, &["--event", &delivery[..12]]).await;
    assert_eq!(by_delivery["events"], json!([first]));

    an_event_that_is_gone_is_traced_by_its_deliveries(&rig, id).await;
    rig.leaves_deliveries(3, "the deliveries to `waiting` are parked for an hour");
}

async fn an_event_that_is_gone_is_traced_by_its_deliveries(rig: &Rig, id: &str) {
    let events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    events.purge().await.unwrap();
    let traced = trace(rig, &["--event", id]).await;
    let event = of(&traced, "first");
    assert_eq!(event["isStored"], false);
    assert_eq!(event["deliveries"].as_array().unwrap().len(), 4, "{event}");
    let delivery = event["deliveries"][3]["id"].as_str().unwrap();
    let by_delivery = trace(rig, &["--event", delivery]).await;
    assert_eq!(by_delivery["events"], traced["events"]);
}

/// The Alerts of the rules, each with its verdict about the event.
fn with_verdicts() -> Vec<(Manifest, Verdict)> {
    let source = |more: Value| {
        let mut source = json!({"kind": "Kustomization", "name": "*"});
        source
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        source
    };
    let costly = (0..40).map(|number| format!("[ab]*a[ab]{{900}}c{number}"));
    vec![
        (alert("matched", "hook"), Verdict::Matched),
        (
            alert("suspended", "hook").with("suspend", true),
            Verdict::AlertSuspended,
        ),
        (
            from_source("other", "hook", json!({"kind": "HelmRelease", "name": "*"})),
            Verdict::NoEventSourceMatches,
        ),
        (
            alert("severe", "hook").with("eventSeverity", "error"),
            Verdict::BelowSeverity,
        ),
        (
            from_source(
                "labels",
                "hook",
                source(json!({"matchLabels": {"tier": "web"}})),
            ),
            Verdict::LabelsDiffer,
        ),
        (
            alert("included", "hook").with("inclusionList", ["never"]),
            Verdict::MessageNotIncluded,
        ),
        (
            alert("excluded", "hook").with("exclusionList", ["a"]),
            Verdict::MessageExcluded,
        ),
        (
            alert("costly", "hook").with("inclusionList", costly.collect::<Vec<_>>()),
            Verdict::PatternTooCostly,
        ),
        (
            alert("elsewhere", "hook").with("clusters", ["prod"]),
            Verdict::OtherCluster,
        ),
        (
            alert("foreign", "hook").with(
                "providerRef",
                json!({"name": "theirs", "namespace": "other"}),
            ),
            Verdict::ProviderNotGranted,
        ),
        (
            alert("to-suspended", "suspended"),
            Verdict::ProviderSuspended,
        ),
        (alert("to-forge", "forge"), Verdict::NoCommit),
        (alert("to-comments", "comments"), Verdict::NoChangeRequest),
    ]
}

/// Stores an event as ingest does, with labels.
async fn store(rig: &Rig, event: Event) {
    let subject = tidings_core::model::subject::event(&event);
    let jetstream = rig.jetstream().await;
    let published = jetstream
        .publish(subject, event.encode_to_vec().into())
        .await;
    published.unwrap().await.unwrap();
}

fn stored_event(id: &str, message: &str) -> Event {
    let posted = event(message);
    let object = posted["involvedObject"].clone();
    let text = |key: &str| object[key].as_str().unwrap().to_owned();
    Event {
        id: id.repeat(32),
        cluster: "hub".into(),
        severity: "info".into(),
        message: message.into(),
        reason: "ReconciliationSucceeded".into(),
        involved_object: Some(tidings_core::ObjectReference {
            api_version: text("apiVersion"),
            kind: text("kind"),
            namespace: text("namespace"),
            name: text("name"),
            ..Default::default()
        }),
        labels: Some(ObjectLabels {
            state: object_labels::State::Known.into(),
            labels: [("tier".to_owned(), "db".to_owned())].into(),
        }),
        ..Event::default()
    }
}

#[tokio::test]
async fn every_verdict_is_traced_with_its_reason() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let forge = Forge::start().await;
    Forge::put_secret(rig.rules());
    rig.rules().put([
        provider("hook", receiver.url()),
        provider("suspended", receiver.url()).with("suspend", true),
        provider("theirs", receiver.url()).in_namespace("other"),
        forge.provider("github"),
        forge
            .provider("githubpullrequestcomment")
            .set("/metadata/name", "comments"),
    ]);
    let mut seen = Vec::new();
    for (manifest, verdict) in with_verdicts() {
        rig.rules().put([manifest]);
        seen.push(verdict);
    }
    let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
    store(&rig, stored_event("a", &disorder(1, 400_000))).await;
    receiver.receives(1).await;
    rig.drained().await;
    let verdict_of = async |more: &[&str], alert: &str| {
        let traced = trace(&rig, more).await;
        let event = &traced["events"][0];
        named(&event["verdicts"], "alert", &format!("apps/{alert}")).clone()
    };
    let id = "a".repeat(32);
    let by_id = ["--event", &id];
    for (manifest, verdict) in with_verdicts() {
        let name = manifest.value()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let found = verdict_of(&by_id, &name).await;
        assert_eq!(found["verdict"], verdict.as_str(), "{found}");
        // A delivery proves that an Alert matched.
        assert_eq!(
            found["isRecomputed"],
            verdict != Verdict::Matched,
            "{found}"
        );
        assert_ne!(found["detail"], "", "{found}");
    }

    rig.rules().put([
        provider("chat", receiver.url()).with("type", "slack"),
        alert("to-chat", "chat"),
    ]);
    let mut unknown = stored_event("b", "labels are unknown");
    unknown.labels = None;
    let key = "kustomize.toolkit.fluxcd.io/commit_status".to_owned();
    unknown.metadata.insert(key, "update".to_owned());
    store(&rig, unknown).await;
    let id = "b".repeat(32);
    let by_id = ["--event", &id];
    let local = [&by_id[..], &["--local-cluster-only"]].concat();
    let same = [&by_id[..], &["--no-cross-namespace-refs"]].concat();
    rig.rules().put([from_source(
        "far",
        "hook",
        json!({"kind": "Kustomization", "name": "*", "namespace": "apps"}),
    )
    .with("clusters", ["hub"])
    .in_namespace("far")]);
    for (more, alert, verdict) in [
        (&by_id[..], "apps/labels", Verdict::LabelsUnknown),
        (&by_id, "apps/suspended", Verdict::AlertSuspended),
        (&by_id, "apps/severe", Verdict::BelowSeverity),
        (&by_id, "apps/to-chat", Verdict::NotACommitStatusProvider),
        (&local, "apps/to-forge", Verdict::NotTheLocalCluster),
        (&by_id, "apps/to-forge", Verdict::Matched),
        (&same, "far/far", Verdict::CrossNamespaceRefused),
    ] {
        let traced = trace(&rig, more).await;
        let found = named(&traced["events"][0]["verdicts"], "alert", alert);
        assert_eq!(*today(found), verdict.as_str(), "{found}");
        seen.push(verdict);
    }
    let hidden = Cluster {
        name: "hub".into(),
        visible_to: vec!["far".into()],
        ..Cluster::default()
    };
    let bucket = rig
        .jetstream()
        .await
        .get_key_value("clusters")
        .await
        .unwrap();
    let key = Token::new("hub");
    bucket
        .put(key.as_str(), hidden.encode_to_vec().into())
        .await
        .unwrap();
    let found = verdict_of(&by_id, "to-forge").await;
    assert_eq!(*today(&found), "cluster-not-visible", "{found}");
    seen.push(Verdict::ClusterNotVisible);
    drop(up);

    // This one needs the API server of a member.
    let elsewhere = [Verdict::NotTheMembersCluster];
    for verdict in Verdict::ALL {
        assert!(
            seen.contains(verdict) || elsewhere.contains(verdict),
            "{verdict} is tried"
        );
    }
    rig.leaves_deliveries(2, "the events that were stored last may not be delivered");
}

#[tokio::test]
async fn an_event_that_never_arrived_is_explained() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        provider("hook", receiver.url()),
        alert("all", "hook"),
        from_source(
            "others",
            "hook",
            json!({"kind": "HelmRelease", "name": "*"}),
        ),
    ]);
    let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
    let explained = async |more: &[&str]| trace(&rig, more).await["absence"].clone();

    let never = eventually("the cluster reports", async || {
        let absence = explained(&["--object", OBJECT]).await;
        (absence["clusters"] != json!([])).then_some(absence)
    })
    .await;
    assert_eq!(never["lastEvents"], json!([]));
    assert_eq!(never["tried"]["isLastEvent"], false);
    let cluster = named(&never["clusters"], "name", "hub");
    assert_eq!(
        (&cluster["ingests"], &cluster["lastEventAt"]),
        (&json!(1), &Value::Null)
    );
    let verdict = named(&never["wouldMatch"], "alert", "apps/all");
    assert_eq!(
        (&verdict["verdict"], &verdict["isRecomputed"]),
        (&json!("matched"), &json!(true))
    );
    assert_eq!(never["otherAlerts"], 1);

    post(&up, &event("an earlier event")).await;
    receiver.accepts("an earlier event").await;
    rig.drained().await;
    let earlier = explained(&["--object", OBJECT, "--since", "0s"]).await;
    assert_eq!(earlier["lastEvents"][0]["message"], "an earlier event");
    assert_eq!(earlier["tried"]["isLastEvent"], true);
    let other = explained(&["--object", "Kustomization/apps/unknown"]).await;
    assert_eq!(
        other["lastEvents"],
        json!([]),
        "another name is another object"
    );

    let mut up = up;
    up.kill().await;
    let silent = eventually("the cluster is not connected", async || {
        let absence = explained(&["--object", OBJECT, "--since", "0s"]).await;
        (named(&absence["clusters"], "name", "hub")["ingests"] == 0).then_some(absence)
    })
    .await;
    named(&silent["problems"], "code", "no-ingest");

    let ended = trace_with(&rig, &["--object", OBJECT, "--since", "0s"]).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    for wrong in [
        &["--event", "short"][..],
        &["--object", "apps/"],
        &["--commit", "main"],
        &[],
        &["--event", "0123456", "--commit", "0123456"],
    ] {
        assert_eq!(trace_with(&rig, wrong).await.status, Some(2), "{wrong:?}");
    }
}
