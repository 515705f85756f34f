//! `tidings tap`.

use serde_json::{Value, json};
use tidings_rig::{PATIENCE, Process, Receiver, Rig, Role, event, eventually};

use crate::TIDINGS;
use crate::command::{Following, text, tidings};
use crate::json_schema::{assert_valid, cloud_event_schema};

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
    tidings(&["tap", "--nats", url, "--since", "1h", "--until", "2h"])
        .await
        .assert_error_names(&["--since", "--until"]);
    tidings(&["tap", "--nats", url, "--limit", "0"])
        .await
        .assert_error_names(&["--limit", "0"]);
    let unreachable = format!("nats://127.0.0.1:{}", tidings_rig::free_port());
    tidings(&["tap", "--nats", &unreachable])
        .await
        .assert_error_names(&[&unreachable]);
}

/// The messages of the events that a tap printed as JSON until it ended.
async fn printed(rig: &Rig, arguments: &[&str]) -> Vec<String> {
    let fixed = ["tap", "--nats", rig.url(), "--output", "json"];
    let ended = tidings(&[&fixed, arguments].concat()).await;
    let message = |event: &Value| event["message"].as_str().unwrap().to_owned();
    ended.json().iter().map(message).collect()
}

#[tokio::test]
async fn no_follow_and_limit_end_a_tap() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--limit", "1"]);
    tap_has_started(&rig).await;
    post(&up, &event("one")).await;
    assert!(tap.next().await.ends_with(": one"));
    assert_eq!(tap.ended().await.code(), Some(0));
    post(&up, &event("two")).await;
    post(&up, &event("three")).await;

    assert_eq!(
        printed(&rig, &["--no-follow"]).await,
        ["one", "two", "three"]
    );
    assert_eq!(
        printed(&rig, &["--since", "1h", "--limit", "2"]).await,
        ["one", "two"]
    );
    for nothing in [
        &["--no-follow", "--cluster", "unknown"][..],
        &["--no-follow", "--name", "unknown"],
        &["--no-follow", "--since", "0s"],
    ] {
        assert_eq!(
            printed(&rig, nothing).await,
            Vec::<String>::new(),
            "{nothing:?}"
        );
    }
}

#[tokio::test]
async fn until_excludes_later_events_and_ends_a_tap() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    let format = &time::format_description::well_known::Rfc3339;
    let soon = time::OffsetDateTime::now_utc() + std::time::Duration::from_secs(10);
    let soon = soon.format(format).unwrap();
    let mut tap = Following::tidings(&["tap", "--nats", rig.url(), "--until", &soon]);
    tap_has_started(&rig).await;
    post(&up, &event("early")).await;
    assert!(tap.next().await.ends_with(": early"));
    assert_eq!(tap.ended().await.code(), Some(0));
    post(&up, &event("late")).await;
    let events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    let stored = events.get_raw_message(2).await.unwrap().time;
    let until = stored.format(format).unwrap();

    assert_eq!(printed(&rig, &["--until", &until]).await, ["early"]);
    assert_eq!(
        printed(&rig, &["--since", &until, "--no-follow"]).await,
        ["late"]
    );
}

#[tokio::test]
async fn events_as_text_have_their_id_and_as_cloudevents_they_match_the_published_schema() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up().args(["--cluster", "prod eu"])).await;
    let mut full = event("with everything");
    full["severity"] = "error".into();
    full["metadata"] = json!({"event.toolkit.fluxcd.io/team": "a"});
    full["reportingInstance"] = "pod-1".into();
    full["involvedObject"]["resourceVersion"] = "7".into();
    post(&up, &full).await;
    let mut bare = event("without a time");
    bare["timestamp"] = Value::Null;
    post(&up, &bare).await;
    let output = async |format| {
        let fixed = ["tap", "--nats", rig.url(), "--no-follow", "--output"];
        tidings(&[&fixed[..], &[format]].concat()).await
    };

    let events = output("json").await.json();
    let cloud_events = output("cloudevents").await.json();

    let schema = cloud_event_schema();
    for (event, cloud_event) in events.iter().zip(&cloud_events) {
        assert_valid(&schema, cloud_event);
        assert_eq!(&cloud_event["data"], event);
        assert_eq!(cloud_event["id"], event["id"]);
        assert_eq!(
            cloud_event["source"],
            "/clusters/prod%20eu/kustomize-controller"
        );
        assert_eq!(cloud_event["subject"], "Kustomization/apps/apps");
    }
    let severities: Vec<_> = cloud_events
        .iter()
        .map(|event| &event["severity"])
        .collect();
    assert_eq!(severities, ["error", "info"]);
    let text = output("text").await;
    for (line, event) in text.lines().into_iter().zip(&events) {
        let id = event["id"].as_str().unwrap();
        assert_eq!(line.split(' ').nth(1), Some(id), "{line}");
    }
}
