//! `tidings tap`.

use serde_json::{Value, json};
use tidings_rig::{PATIENCE, Process, Receiver, Rig, Role, event, eventually};

use crate::TIDINGS;
use crate::command::{Following, text, tidings};

/// An event with another value in one field of its involved object.
fn about(message: &str, field: &str, value: &str) -> Value {
    let mut event = event(message);
    event["involvedObject"][field] = value.into();
    event
}

async fn post(ingest: &Process, event: &Value) {
    assert_eq!(ingest.post(event).await.unwrap().status, 202, "{event}");
}

/// Waits until another consumer than the router reads EVENTS.
async fn tap_has_started(rig: &Rig) {
    let jetstream = rig.jetstream().await;
    eventually("tap reads the stream", async || {
        let mut stream = jetstream.get_stream("EVENTS").await.ok()?;
        (stream.info().await.ok()?.state.consumer_count >= 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_filter_excludes_events_that_differ() {
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
    for (filter, excluded) in [
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
            .filter(|event| !excluded.contains(event))
            .collect();
        assert_eq!(seen, expected, "with {filter:?}");
    }
}

#[tokio::test]
async fn without_since_only_new_events_are_printed_with_one_line_each() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up().args(["--cluster", "hub"])).await;
    post(&up, &event("before")).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url()]);
    tap_has_started(&rig).await;

    post(&up, &event("two\nlines")).await;

    let line = tap.next().await;
    assert!(
        line.ends_with(" hub info Kustomization apps/apps ReconciliationSucceeded: two\\nlines"),
        "{line}"
    );
}

#[tokio::test]
async fn since_excludes_older_events() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    post(&up, &event("early")).await;
    let url = rig.url();

    let mut number = 0;
    eventually("the first line is a later event", async || {
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
async fn ctrl_c_ends_tap_with_status_0_while_it_waits() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    post(&up, &event("only one")).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--since", "1h"]);
    tap.next().await;

    tap.interrupt();

    assert_eq!(tap.ended().await.code(), Some(0));
}

#[tokio::test]
async fn ctrl_c_ends_tap_with_status_0_while_it_prints() {
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
async fn a_closed_pipe_ends_tap_with_status_0_at_the_next_event() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    post(&up, &event("read")).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--since", "1h"]);
    tap.next().await;
    let mut tap = tap.close();

    post(&up, &event("not read")).await;

    let status = tokio::time::timeout(PATIENCE, tap.wait())
        .await
        .expect("tap ends")
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn tap_finds_the_server_of_up_in_the_data_folder() {
    let rig = Rig::start(TIDINGS).await;
    let data = rig.folder().join("data");
    tidings(&["tap", "--data", text(&data)])
        .await
        .assert_error_names(&["--data", "--nats", "`tidings up`"]);
    let up = rig.run(Role::up_with_own_server()).await;
    post(&up, &event("found")).await;

    let mut tap = Following::tidings(&["tap", "--data", text(&data), "--since", "1h"]);

    assert!(tap.next().await.ends_with(": found"));
}

#[tokio::test]
async fn a_tap_whose_output_is_not_read_delays_no_delivery() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules().put([
        tidings_rig::provider("hook", receiver.url()),
        tidings_rig::alert("all", "hook"),
    ]);
    let up = rig.run(Role::up()).await;
    let _tap = Following::tidings(&["tap", "--nats", rig.url(), "--output", "json"]);
    tap_has_started(&rig).await;
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
async fn errors_name_the_stream_the_flag_or_the_server() {
    let rig = Rig::start(TIDINGS).await;
    let url = rig.url();
    tidings(&["tap", "--nats", url])
        .await
        .assert_error_names(&["EVENTS"]);
    let _up = rig.run(Role::up()).await;
    tidings(&["tap", "--nats", url, "--since", "yesterday"])
        .await
        .assert_error_names(&["--since", "yesterday"]);
    let unreachable = format!("nats://127.0.0.1:{}", tidings_rig::free_port());
    tidings(&["tap", "--nats", &unreachable])
        .await
        .assert_error_names(&[&unreachable]);
}
