//! Responses of the event endpoint.

use serde_json::json;
use tidings_core::runtime::files;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::TIDINGS;

#[tokio::test]
async fn a_body_that_is_not_an_event_is_rejected() {
    let rig = Rig::start(TIDINGS).await;
    // Creates the streams.
    drop(rig.run(Role::up()).await);
    let ingest = rig.run(Role::ingest()).await;

    for body in [
        "",
        "not json",
        "[]",
        "{}",
        "{\"involvedObject\":{\"kind\":\"Kustomization\"}}",
    ] {
        let answer = ingest.post_text(body.to_owned()).await.unwrap();
        assert_eq!(answer.status, 400, "for the body {body:?}");
        assert_eq!(answer.code(), "invalid-event", "for the body {body:?}");
    }
}

#[tokio::test]
async fn a_duplicate_event_is_delivered_once() {
    let receiver = Receiver::start().await;
    let (rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;

    assert_eq!(up.post(&event("once")).await.unwrap().status, 202);
    let second = up.post(&event("once")).await.unwrap();

    assert_eq!(
        (second.status, second.code().as_str()),
        (429, "duplicate-event")
    );
    assert!(second.headers.contains_key("retry-after"));
    receiver.accepts("once").await;
    rig.drained().await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn the_same_message_with_another_severity_is_another_event() {
    let receiver = Receiver::start().await;
    let (_rig, up) = Rig::up(
        TIDINGS,
        [provider("hook", receiver.url()), alert("all", "hook")],
    )
    .await;
    let mut failed = event("same words");
    failed["severity"] = json!("error");

    assert_eq!(up.post(&event("same words")).await.unwrap().status, 202);
    assert_eq!(up.post(&failed).await.unwrap().status, 202);

    receiver.receives(2).await;
}

#[tokio::test]
async fn events_are_rejected_while_nats_server_is_down_and_accepted_when_it_is_back() {
    let mut rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let up = rig.run(Role::up()).await;

    rig.nats().kill().await;
    let rejected = up.post(&event("not stored")).await.unwrap();
    assert_eq!(
        (rejected.status, rejected.code().as_str()),
        (503, "bus-unavailable")
    );
    assert!(rejected.headers.contains_key("retry-after"));

    rig.nats().restart().await;
    eventually("an event is accepted again", async || {
        matches!(
            up.post(&event("stored again")).await.unwrap().status,
            202 | 429
        )
        .then_some(())
    })
    .await;
    receiver.accepts("stored again").await;
}

#[tokio::test]
async fn events_are_rejected_while_the_storage_is_nearly_full() {
    let rig = Rig::start(TIDINGS).await;
    let receiver = Receiver::start().await;
    receiver.answer_with(Reply::Status(503));
    rig.rules().put([
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ]);
    let up = rig
        .run(Role::up().env("TIDINGS_NATS__STORAGE_LIMIT", "1MiB"))
        .await;
    let mut number = 0;
    let mut post = async || {
        number += 1;
        up.post(&event(&format!("{number} {}", "x".repeat(20_000))))
            .await
            .expect("ingest responds")
    };

    eventually("parked deliveries fill the storage", async || {
        let answer = post().await;
        ((answer.status, answer.code().as_str()) == (503, "storage-full")).then_some(())
    })
    .await;
    receiver.answer_with(Reply::Status(200));
    rig.drained().await;
    eventually("there is storage again", async || {
        (post().await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_are_accepted_and_probes_answered_while_ten_thousand_slow_connections_are_open() {
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(Role::up()).await;
    let files = usize::try_from(files::raise_limit()).unwrap_or(usize::MAX);
    let count = (files / 2).min(10_000);
    let address = |url: String| url["http://".len()..].trim_end_matches('/').to_owned();
    let (events, admin) = (address(up.address()), address(up.admin()));

    let mut slow = Vec::new();
    for number in 0..count {
        let server = if number % 10 == 0 { &admin } else { &events };
        let mut connection = TcpStream::connect(server).await.expect("it is accepted");
        let part = [
            "",
            "POST / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
        ];
        // The server may have closed it already.
        let _ = connection.write_all(part[number % 3].as_bytes()).await;
        slow.push(connection);
        if number % 1000 == 0 {
            let answer = up.post(&event(&format!("event {number}"))).await.unwrap();
            assert_eq!(answer.status, 202, "{number}");
        }
    }
    let answer = up.post(&event("the last event")).await.unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(up.readiness().await.status, 200);
    assert!(up.metric("tidings_ingest_connections", "").await <= 1024.0);
    up.counts_any("tidings_http_connections_closed_total", "")
        .await;
}
