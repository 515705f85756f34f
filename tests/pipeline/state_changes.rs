//! A state that is reported again after it changed is no duplicate, within the dedupe interval.

use serde_json::Value;
use tidings_rig::{Process, Rig, Role, event, eventually};

use crate::states::{COMMIT, reconciled, start};

const SUCCESS: &str = "reconciled";
const FAILURE: &str = "not healthy";

/// An event of the Kustomization with the text, which decides the state.
fn report(text: &str, second: u32) -> Value {
    let mut event = reconciled(COMMIT, second, text == SUCCESS);
    event["message"] = text.into();
    event
}

async fn status(process: &Process, event: &Value) -> u16 {
    process.post(event).await.expect("ingest responds").status
}

/// Waits until all events have been routed and delivered.
async fn finished(rig: &Rig) {
    rig.routed().await;
    rig.drained().await;
}

#[tokio::test]
async fn every_change_of_the_state_is_written_although_its_text_repeats() {
    let (forge, rig, up) = start().await;

    for (second, text) in (0..).zip([FAILURE, SUCCESS, FAILURE, SUCCESS, FAILURE, SUCCESS]) {
        assert_eq!(status(&up, &report(text, second)).await, 202, "{second}");
        assert_eq!(status(&up, &report(text, second)).await, 429, "a retry");
        rig.drained().await;
    }

    assert_eq!(
        forge.states(),
        [
            "failure", "success", "failure", "success", "failure", "success"
        ]
    );
}

#[tokio::test]
async fn a_repeated_state_without_a_change_in_between_is_a_duplicate() {
    let (_forge, rig, up) = start().await;
    let mut other = report(SUCCESS, 1);
    other["involvedObject"]["name"] = "other".into();
    let mut waits = report(SUCCESS, 2);
    waits["reason"] = "DependencyNotReady".into();
    let mut progressing = report(SUCCESS, 3);
    progressing["reason"] = "Progressing".into();

    for event in [report(FAILURE, 0), other, waits, progressing] {
        assert_eq!(status(&up, &event).await, 202);
    }

    assert_eq!(status(&up, &report(FAILURE, 9)).await, 429);
    finished(&rig).await;
}

#[tokio::test]
async fn only_a_report_that_is_later_than_the_change_counts() {
    let (_forge, rig, up) = start().await;

    assert_eq!(status(&up, &report(FAILURE, 0)).await, 202);
    assert_eq!(status(&up, &report(SUCCESS, 10)).await, 202);

    // A Kubernetes Event is a copy with the time of the first report, and may come late.
    for second in [0, 9, 10] {
        assert_eq!(status(&up, &report(FAILURE, second)).await, 429, "{second}");
    }
    assert_eq!(status(&up, &report(FAILURE, 11)).await, 202);
    finished(&rig).await;
}

#[tokio::test]
async fn a_second_ingest_gives_the_same_answers() {
    let (_forge, rig, up) = start().await;
    let second = rig.run(Role::ingest()).await;

    for (time, text) in (0..).zip([FAILURE, SUCCESS, FAILURE, SUCCESS]) {
        let (first, other) = if time % 2 == 0 {
            (&up, &second)
        } else {
            (&second, &up)
        };
        assert_eq!(status(first, &report(text, time)).await, 202, "{time}");
        assert_eq!(status(other, &report(text, time)).await, 429, "{time}");
    }
    let third = rig.run(Role::ingest()).await;
    assert_eq!(status(&third, &report(SUCCESS, 3)).await, 429, "cold");
    assert_eq!(status(&third, &report(FAILURE, 4)).await, 202, "cold");
    finished(&rig).await;
}

#[tokio::test]
async fn a_duplicate_is_stored_once_if_too_many_events_follow_its_first_copy() {
    let (_forge, rig, up) = start().await;
    // Both remember what they have read.
    let [warm, other] = [rig.run(Role::ingest()).await, rig.run(Role::ingest()).await];
    assert_eq!(status(&up, &report(FAILURE, 0)).await, 202);
    for number in 0..1_001 {
        let mut later = event(&format!("event {number}"));
        later["involvedObject"]["name"] = "other".into();
        assert_eq!(status(&up, &later).await, 202);
        if number % 600 == 0 {
            for ingest in [&warm, &other] {
                assert_eq!(status(ingest, &report(FAILURE, 1)).await, 429, "all read");
            }
        }
    }
    let cold = rig.run(Role::ingest()).await;

    for ingest in [&warm, &cold] {
        let copy = report(FAILURE, 0);
        assert_eq!(status(ingest, &copy).await, 429, "as old as the first");
    }
    // The first question of this ingest that exceeds the bound.
    assert_eq!(
        status(&other, &report(FAILURE, 1)).await,
        202,
        "not all read"
    );
    for ingest in [&warm, &cold, &up, &other] {
        let again = report(FAILURE, 1);
        assert_eq!(status(ingest, &again).await, 429, "one id for all replicas");
    }
    finished(&rig).await;
}

#[tokio::test]
async fn a_recreated_stream_is_read_anew() {
    let (_forge, rig, up) = start().await;
    assert_eq!(status(&up, &report(FAILURE, 0)).await, 202);
    for second in 1..9 {
        let mut progressing = report(&format!("step {second}"), second);
        progressing["reason"] = "Progressing".into();
        assert_eq!(status(&up, &progressing).await, 202);
    }
    assert_eq!(status(&up, &report(FAILURE, 9)).await, 429, "now warm");
    finished(&rig).await;

    let jetstream = rig.jetstream().await;
    jetstream.delete_stream("EVENTS").await.expect("it exists");
    eventually("EVENTS is recreated", async || {
        jetstream.get_stream("EVENTS").await.ok().map(drop)
    })
    .await;
    assert_eq!(status(&up, &report(FAILURE, 20)).await, 202);
    assert_eq!(status(&up, &report(SUCCESS, 30)).await, 202);
    assert_eq!(status(&up, &report(FAILURE, 40)).await, 202);
    assert_eq!(status(&up, &report(FAILURE, 40)).await, 429);
    finished(&rig).await;
}

#[tokio::test]
async fn no_consumer_is_left() {
    let (_forge, rig, up) = start().await;
    for (second, text) in (0..).zip([FAILURE, SUCCESS, FAILURE, FAILURE]) {
        up.post(&report(text, second))
            .await
            .expect("ingest responds");
    }
    let jetstream = rig.jetstream().await;
    eventually("EVENTS has the consumer of the routers only", async || {
        let mut events = jetstream.get_stream("EVENTS").await.ok()?;
        (events.info().await.ok()?.state.consumer_count == 1).then_some(())
    })
    .await;
    finished(&rig).await;
}
