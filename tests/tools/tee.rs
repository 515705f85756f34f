//! `ingest --tee`: copies of stored events for another receiver.

use std::time::Duration;

use tidings_rig::{Process, Receiver, Reply, Rig, Role, event, eventually};

use crate::TIDINGS;

async fn count(process: &Process, outcome: &str) -> u64 {
    let labels = format!("outcome=\"{outcome}\"");
    process.metric("tidings_ingest_tee_total", &labels).await as u64
}

async fn counts(process: &Process, outcome: &str, least: u64) {
    let what = format!("{least} copies are {outcome}");
    eventually(&what, async || {
        (count(process, outcome).await >= least).then_some(())
    })
    .await;
}

/// Posts a body as a controller does, and returns the status.
async fn post(process: &Process, content_type: &str, body: Vec<u8>) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(process.address())
        .header("Content-Type", content_type);
    request.body(body).send().await.unwrap().status().as_u16()
}

fn large(message: &str) -> Vec<u8> {
    let text = format!("{message} {}", "x".repeat(2 << 20));
    event(&text).to_string().into_bytes()
}

#[tokio::test]
async fn the_tee_posts_the_bytes_of_each_stored_event_once() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let _router = rig.run(Role::router()).await;
    let ingest = rig.run(Role::ingest().args(["--tee", url])).await;
    // Spaces, order and unknown fields are those of the sender.
    let mut body = b"  {\"unknown\": [1,  2], ".to_vec();
    body.extend_from_slice(&event("copied").to_string().as_bytes()[1..]);

    let kind = "application/json; charset=UTF-8";
    assert_eq!(post(&ingest, kind, body.clone()).await, 202);
    assert_eq!(post(&ingest, kind, body.clone()).await, 429);
    assert_eq!(post(&ingest, kind, b"{}".to_vec()).await, 400);

    let received = receiver.receives(1).await;
    assert_eq!(received[0].body, body);
    assert_eq!(received[0].target, "POST /hook");
    assert_eq!(received[0].header("content-type"), Some(kind));
    counts(&ingest, "sent", 1).await;
    assert_eq!(post(&ingest, kind, large("another")).await, 202);
    assert_eq!(receiver.receives(2).await.len(), 2, "no duplicate is sent");
    rig.routed().await;
}

#[tokio::test]
async fn a_copy_is_repeated_after_a_failure_and_not_after_a_refusal() {
    let rig = Rig::start(TIDINGS).await;
    let elsewhere = "http://127.0.0.1:9/";
    let receiver = Receiver::script([
        Reply::Status(503),
        Reply::Close,
        Reply::Status(202),
        Reply::Status(400),
        Reply::Redirect(307, elsewhere),
        Reply::Status(429),
    ])
    .await;
    let _router = rig.run(Role::router()).await;
    let ingest = rig
        .run(Role::ingest().args(["--tee", receiver.url()]))
        .await;
    for (message, outcome, least, requests) in [
        ("repeated", "sent", 1, 3),
        ("refused", "failed", 1, 4),
        ("redirected", "failed", 2, 5),
        ("known", "sent", 2, 6),
    ] {
        ingest.post(&event(message)).await.unwrap();
        counts(&ingest, outcome, least).await;
        assert_eq!(receiver.count(), requests, "{message}");
    }
    ingest.logs("tee-failed").await;
    let shows_path = |line: &String| line.contains("tee-failed") && line.contains("hook");
    assert!(!ingest.log().iter().any(shows_path));
    rig.routed().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_sender_and_copies_are_dropped() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Stall);
    let _router = rig.run(Role::router()).await;
    let role = Role::ingest().args(["--tee", receiver.url()]);
    let ingest = rig.run(role.env("TIDINGS_MEMORY__LIMIT", "128MiB")).await;
    // The copies have 4 MiB of memory.
    for number in 0..4 {
        let status = post(&ingest, "application/json", large(&number.to_string())).await;
        assert_eq!(status, 202);
    }
    counts(&ingest, "dropped", 3).await;
    ingest.logs("tee-dropped").await;
    receiver.answer_in_turn([Reply::Slow(Duration::from_millis(200)), Reply::Status(200)]);
    counts(&ingest, "sent", 1).await;
    rig.routed().await;
}

#[tokio::test]
async fn an_invalid_url_of_the_tee_is_refused_without_repeating_it() {
    let rig = Rig::start(TIDINGS).await;
    for url in ["http://me:hunter2@host/", "http://host/?token=hunter2"] {
        let mut ingest = rig.spawn(Role::ingest().args(["--tee", url]));
        assert!(!ingest.ended().await.success());
        let error = ingest.prints("--tee").await;
        assert!(!error.contains("hunter2"), "{error}");
    }
}
