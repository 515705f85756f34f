//! `tidings tap`.

use serde_json::{Value, json};
use tidings_rig::{PATIENCE, Process, Receiver, Rig, Role, event, eventually};

use crate::TIDINGS;
use crate::command::{Following, text, tidings};

/// An event whose involved object has another value in one field.
fn about(message: &str, field: &str, value: &str) -> Value {
    let mut event = event(message);
    event["involvedObject"][field] = value.into();
    event
}

async fn post(ingest: &Process, event: &Value) {
    assert_eq!(ingest.post(event).await.unwrap().status, 202, "{event}");
}

/// Waits until somebody beside the router reads events.
async fn is_tapped(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    eventually("a tap follows", async || {
        let mut stream = jetstream.get_stream("EVENTS").await.ok()?;
        (stream.info().await.ok()?.state.consumer_count >= 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_filter_leaves_out_what_differs_and_clusters_are_told_apart() {
    let rig = Rig::start(TIDINGS).await;
    let hub = rig.run(Role::up().args(["--cluster", "hub"])).await;
    let member = rig.run(Role::ingest().args(["--cluster", "member"])).await;
    let mut error = event("other severity");
    error["severity"] = "error".into();
    post(&member, &event("wanted")).await;
    post(&hub, &about("other namespace", "namespace", "infra")).await;
    post(&hub, &about("other kind", "kind", "HelmRelease")).await;
    post(&hub, &about("other name", "name", "web")).await;
    post(&hub, &error).await;
    post(&hub, &event("wanted")).await;

    let all = [
        "member wanted",
        "hub other namespace",
        "hub other kind",
        "hub other name",
        "hub other severity",
        "hub wanted",
    ];
    let url = rig.url();
    for (filter, left_out) in [
        (&[][..], &[][..]),
        (&["--cluster", "hub"], &["member wanted"]),
        (&["--namespace", "apps"], &["hub other namespace"]),
        (&["--kind", "Kustomization"], &["hub other kind"]),
        (&["--name", "apps"], &["hub other name"]),
        (&["--severity", "info"], &["hub other severity"]),
        (
            &[
                "--cluster",
                "hub",
                "--namespace",
                "apps",
                "--kind",
                "Kustomization",
                "--name",
                "apps",
                "--severity",
                "info",
            ],
            &all[..5],
        ),
    ] {
        let fixed = ["tap", "--nats", url, "--since", "1h", "--output", "json"];
        let mut tap = Following::tidings(&[&fixed, filter].concat());
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "hub wanted") {
            let line: Value = serde_json::from_str(&tap.next().await).expect("each line is JSON");
            assert!(
                line["id"].as_str().is_some_and(|id| !id.is_empty())
                    && line["receivedAt"].is_string(),
                "{line}"
            );
            assert_eq!(
                line["involvedObject"]["apiVersion"],
                "kustomize.toolkit.fluxcd.io/v1"
            );
            seen.push(format!(
                "{} {}",
                line["cluster"].as_str().unwrap(),
                line["message"].as_str().unwrap()
            ));
        }
        let expected: Vec<_> = all
            .into_iter()
            .filter(|event| !left_out.contains(event))
            .collect();
        assert_eq!(seen, expected, "with {filter:?}");
    }
}

#[tokio::test]
async fn without_since_it_begins_now_and_prints_a_line_for_people() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
    post(&up, &event("before")).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url()]);
    is_tapped(&rig).await;

    post(&up, &event("two\nlines")).await;

    let line = tap.next().await;
    assert!(
        line.ends_with(" hub info Kustomization apps/apps ReconciliationSucceeded: two lines"),
        "{line}"
    );
}

#[tokio::test]
async fn since_leaves_out_what_is_older() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    post(&up, &event("early")).await;
    let url = rig.url();

    let mut number = 0;
    eventually("the first line is of a later event", async || {
        number += 1;
        post(&up, &event(&format!("late {number}"))).await;
        let mut tap = Following::tidings(&["tap", "--nats", url, "--since", "1s"]);
        tap.next().await.contains(": late ").then_some(())
    })
    .await;

    let all = Following::tidings(&["tap", "--nats", url, "--since", "1h"])
        .until(": late ")
        .await;
    assert!(all[0].ends_with(": early"), "{all:?}");
}

#[tokio::test]
async fn ctrl_c_ends_it_cleanly_while_it_waits() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    post(&up, &event("only one")).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--since", "1h"]);
    tap.next().await;

    tap.interrupt();

    assert_eq!(tap.ended().await.code(), Some(0));
}

#[tokio::test]
async fn ctrl_c_ends_it_cleanly_while_it_prints() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    for number in 0..1000 {
        post(&up, &event(&format!("one of many {number}"))).await;
    }
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--since", "1h"]);
    tap.next().await;

    tap.interrupt();

    assert_eq!(tap.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_closed_pipe_ends_it_cleanly_at_the_next_event() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    post(&up, &event("read")).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--since", "1h"]);
    tap.next().await;
    let mut tap = tap.close();

    post(&up, &event("nobody reads this")).await;

    let status = tokio::time::timeout(PATIENCE, tap.wait())
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn it_finds_the_server_of_up_by_its_data_folder() {
    let rig = Rig::start(TIDINGS).await;
    let data = rig.folder().join("data");
    tidings(&["tap", "--data", text(&data)])
        .await
        .failed_naming(&["--data", "--nats", "`tidings up`"]);
    let up = rig.run(Role::up_alone()).await;
    post(&up, &event("found")).await;

    let mut tap = Following::tidings(&["tap", "--data", text(&data), "--since", "1h"]);

    assert!(tap.next().await.ends_with(": found"));
}

#[tokio::test]
async fn a_tap_that_nobody_reads_slows_no_producer() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        tidings_rig::provider("hook", receiver.url()),
        tidings_rig::alert("all", "hook"),
    ]);
    let up = rig.run(Role::up()).await;
    let _tap = Following::tidings(&["tap", "--nats", rig.url(), "--output", "json"]);
    is_tapped(&rig).await;
    let padding = "x".repeat(10_000);

    for number in 0..100 {
        post(
            &up,
            &about(
                &format!("event {number} {padding}"),
                "uid",
                &json!(number).to_string(),
            ),
        )
        .await;
    }

    receiver.receives(100).await;
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url();
    tidings(&["tap", "--nats", url])
        .await
        .failed_naming(&["stream EVENTS"]);
    let _up = rig.run(Role::up()).await;
    tidings(&["tap", "--nats", url, "--since", "yesterday"])
        .await
        .failed_naming(&["--since", "yesterday", "30m"]);
    let nobody = format!("nats://127.0.0.1:{}", tidings_rig::free_port());
    tidings(&["tap", "--nats", &nobody])
        .await
        .failed_naming(&["NATS server", &nobody]);
}
