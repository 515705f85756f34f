//! `tidings replay --missing`.

use std::time::Duration;

use serde_json::json;
use tidings_rig::{
    Forge, Manifest, Process, Receiver, Reply, Rig, Role, alert, event, eventually, provider,
};

use crate::TIDINGS;
use crate::command::{Ended, text, tidings};

/// A Provider whose failed deliveries stay parked during a test.
fn patient(name: &str, receiver: &Receiver) -> Manifest {
    provider(name, receiver.url()).with("retry", json!({"min": "1h", "max": "2h"}))
}

async fn replay(rig: &Rig, more: &[&str]) -> Ended {
    let rules = rig.rules().folder();
    let all = [
        "replay",
        "--missing",
        "--nats",
        rig.url(),
        "--rules",
        text(rules),
    ];
    tidings(&[&all, more].concat()).await
}

/// Runs it for all events that are stored.
async fn replay_all(rig: &Rig, more: &[&str]) -> Ended {
    replay(rig, &[&["--since", "1h", "--until", "0s"], more].concat()).await
}

async fn post(process: &Process, messages: impl IntoIterator<Item = String>) {
    for message in messages {
        let answer = process.post(&event(&message)).await;
        assert_eq!(answer.expect("ingest responds").status, 202);
    }
}

async fn stored(rig: &Rig, filter: &str) -> u64 {
    let stream = rig
        .jetstream()
        .await
        .get_stream("DELIVERIES")
        .await
        .unwrap();
    let mut next = 1;
    let mut count = 0;
    while let Ok(message) = stream.direct_get_next_for_subject(filter, Some(next)).await {
        (next, count) = (message.sequence + 1, count + 1);
    }
    count
}

async fn are_parked(rig: &Rig, count: u64) {
    eventually(&format!("{count} deliveries are parked"), async || {
        (stored(rig, "parked.>").await == count).then_some(())
    })
    .await;
}

async fn purge(rig: &Rig, filter: &str) {
    let stream = rig
        .jetstream()
        .await
        .get_stream("DELIVERIES")
        .await
        .unwrap();
    stream.purge().filter(filter).await.unwrap();
}

/// The last line says how many were missing.
fn summary(ended: &Ended) -> &str {
    ended.lines().last().copied().unwrap()
}

fn numbered(name: &'static str, count: u32) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{name} {number}"))
}

#[tokio::test]
async fn purged_deliveries_are_replayed_and_no_others() {
    let rig = Rig::start(TIDINGS).await;
    let (delivered, rejected, waiting) = (
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    );
    rejected.answer_with(Reply::Status(400));
    waiting.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("delivered", delivered.url()),
        alert("to-delivered", "delivered"),
        provider("rejected", rejected.url()),
        alert("to-rejected", "rejected"),
    ]);
    rig.rules().put([
        patient("gone", &waiting),
        alert("to-gone", "gone"),
        patient("kept", &waiting),
        alert("to-kept", "kept"),
    ]);
    let up = rig.run(Role::up()).await;
    post(&up, numbered("event", 5)).await;
    are_parked(&rig, 10).await;
    delivered.receives(5).await;
    eventually("the rejected ones are dead letters", async || {
        (rig.dead_letters().await.len() == 5).then_some(())
    })
    .await;
    rig.routed().await;
    let summary_of = async |more: &[&str]| summary(&replay_all(&rig, more).await).to_owned();
    assert_eq!(
        summary_of(&[]).await,
        "0 missing deliveries of 20 planned replayed"
    );

    purge(&rig, "parked.*.*.*.gone.>").await;

    assert_eq!(
        summary_of(&["--dry-run"]).await,
        "5 missing deliveries of 20 planned would be replayed"
    );
    are_parked(&rig, 5).await;
    let of_kept = summary_of(&["--provider", "apps/kept"]).await;
    assert!(of_kept.starts_with("0 missing"), "{of_kept}");
    let ended = replay_all(&rig, &[]).await;
    assert_eq!(
        summary(&ended),
        "5 missing deliveries of 20 planned replayed"
    );
    let lines = &ended.lines()[..5];
    assert!(
        lines.iter().all(|line| line.contains("/gone (generic)")),
        "{lines:?}"
    );

    are_parked(&rig, 10).await;
    assert_eq!(
        summary_of(&[]).await,
        "0 missing deliveries of 20 planned replayed"
    );
    assert_eq!((delivered.count(), rejected.count()), (5, 5));
    assert_eq!(rig.dead_letters().await.len(), 5);
    rig.leaves_deliveries(10, "they are parked for an hour");
    rig.expects_losses("a purge");
}

#[tokio::test]
async fn each_replayed_delivery_arrives_once() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let [_router, ingest] = rig.run_all([Role::router(), Role::ingest()]).await;
    post(&ingest, numbered("event", 20)).await;
    eventually("all deliveries are ready", async || {
        (stored(&rig, "deliveries.>").await == 20).then_some(())
    })
    .await;
    rig.routed().await;
    purge(&rig, "deliveries.>").await;

    let ended = replay_all(&rig, &[]).await;
    assert!(summary(&ended).starts_with("20 missing"), "{ended:?}");
    let _worker = rig.run(Role::worker()).await;

    receiver.receives(20).await;
    rig.drained().await;
    let tally = receiver.tally();
    assert!(tally.len() == 20 && tally.values().all(|(times, _)| *times == 1));
    rig.expects_losses("a purge");
}

#[tokio::test]
async fn recent_events_are_left_out() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let [_router, ingest] = rig.run_all([Role::router(), Role::ingest()]).await;
    post(&ingest, numbered("event", 1)).await;
    eventually("it is stored", async || {
        (stored(&rig, "deliveries.>").await == 1).then_some(())
    })
    .await;
    purge(&rig, "deliveries.>").await;

    let ended = replay(&rig, &["--since", "1h"]).await;

    assert_eq!(
        summary(&ended),
        "0 missing deliveries of 0 planned replayed"
    );
    rig.expects_losses("a purge");
}

#[tokio::test]
async fn a_span_that_outcomes_do_not_cover_is_refused() {
    let (rig, up) = {
        let receiver = Receiver::start().await;
        let rules = [provider("hook", receiver.url()), alert("all", "hook")];
        let (rig, up) = Rig::up(TIDINGS, rules).await;
        post(&up, numbered("event", 2)).await;
        receiver.receives(2).await;
        rig.drained().await;
        (rig, up)
    };
    eventually("there are outcomes", async || {
        (rig.outcomes().await.len() == 2).then_some(())
    })
    .await;
    let outcomes = rig.jetstream().await.get_stream("OUTCOMES").await.unwrap();
    outcomes.purge().await.unwrap();

    replay_all(&rig, &[])
        .await
        .assert_error_names(&["OUTCOMES", "look like missing ones"]);

    // An outcome after the purge: only what came before is refused.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    post(&up, numbered("later", 1)).await;
    rig.drained().await;
    replay_all(&rig, &[])
        .await
        .assert_error_names(&["OUTCOMES", "--since"]);
}

#[tokio::test]
async fn a_wrong_time_span_is_an_error() {
    let rig = Rig::start(TIDINGS).await;
    let _router = rig.run(Role::router()).await;
    for (arguments, names) in [
        (["--since", "soon"], "--since"),
        (["--since", "10s"], "--until 1m"),
    ] {
        replay(&rig, &arguments).await.assert_error_names(&[names]);
    }
}

async fn route_again(rig: &Rig, more: &[&str]) -> Ended {
    let rules = rig.rules().folder();
    let fixed = ["replay", "--nats", rig.url(), "--rules", text(rules)];
    let span = ["--since", "1h", "--until", "0s"];
    tidings(&[&fixed[..], &span, more].concat()).await
}

#[tokio::test]
async fn events_are_routed_again_after_a_rule_was_wrong() {
    let (receiver, forge) = (Receiver::start().await, Forge::start().await);
    let rig = Rig::start(TIDINGS).await;
    Forge::put_secret(rig.rules());
    let wrong = alert("late", "hook").with("inclusionList", ["never"]);
    rig.rules().put([
        provider("hook", receiver.url()),
        wrong,
        forge.provider("github"),
        alert("commits", "forge"),
    ]);
    let up = rig.run(Role::up()).await;
    let revision = "main@sha1:8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";
    for second in 0..5 {
        let mut event = event(&format!("event {second}"));
        event["timestamp"] = format!("2026-01-02T03:00:0{second}Z").into();
        event["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": revision});
        if second < 4 {
            event["severity"] = "error".into();
        }
        assert_eq!(up.post(&event).await.unwrap().status, 202);
    }
    rig.routed().await;
    rig.drained().await;
    let states = forge.states();
    assert_eq!(states.last().map(String::as_str), Some("success"));
    rig.rules().put([alert("late", "hook")]);

    let late = ["--alert", "apps/late"];
    let dry = route_again(&rig, &late).await;
    assert_eq!(
        summary(&dry),
        "5 deliveries would be replayed: pass --yes to replay"
    );
    assert_eq!(receiver.count(), 0, "a dry run stores nothing");
    let none = route_again(&rig, &[&late[..], &["--cluster", "other"]].concat()).await;
    assert!(summary(&none).starts_with("0 deliveries"), "{none:?}");
    let rest = [&late[..], &["--yes", "--resume", "7.4.0.5"]].concat();
    assert_eq!(
        summary(&route_again(&rig, &rest).await),
        "2 deliveries replayed"
    );
    receiver.receives(2).await;
    // Another one stopped after the only delivery of the fourth event. It has no later events than
    // its last one, whatever `--until` selects now.
    let rest = [&late[..], &["--yes", "--resume", "8.4.1.4"]].concat();
    assert!(summary(&route_again(&rig, &rest).await).starts_with("0 deliveries"));
    let rest = [&late[..], &["--yes", "--resume", "8.4.1.5"]].concat();
    assert_eq!(
        summary(&route_again(&rig, &rest).await),
        "1 delivery replayed"
    );
    receiver.receives(3).await;
    let all = [&late[..], &["--yes", "--rate", "100"]].concat();
    assert_eq!(
        summary(&route_again(&rig, &all).await),
        "5 deliveries replayed"
    );
    receiver.receives(8).await;

    let commits = ["--alert", "apps/commits", "--yes", "--rate", "100"];
    assert_eq!(
        summary(&route_again(&rig, &commits).await),
        "5 deliveries replayed"
    );
    rig.drained().await;
    assert_eq!(forge.states(), states, "a replay changes no newer state");
    let replays = eventually("the outcomes of all replays", async || {
        let outcomes = rig.outcomes().await;
        let replays = outcomes
            .iter()
            .filter(|outcome| outcome.planned_at.is_none() && !outcome.event_id.is_empty());
        Some(replays.count()).filter(|count| *count >= 13)
    })
    .await;
    assert_eq!(replays, 13, "replays are marked");

    for wrong in [&[][..], &["--alert", "apps/late", "--resume", "0.1.0.2"]] {
        assert_eq!(route_again(&rig, wrong).await.status, Some(2), "{wrong:?}");
    }
}
