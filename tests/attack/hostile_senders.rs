//! What hostile senders post, again and again.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tidings_rig::event;
use tidings_rules::testing::disorder;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::hostile_rules::TENANT;

/// The number of senders that stall within a body.
const STALLED: usize = 150;
/// What each of them sends before it stalls.
const SENT_BYTES: usize = 3_000_000;

/// An event about one of the tenant's objects.
pub fn tenants_event(object: &str, message: &str) -> Value {
    let mut event = event(message);
    event["involvedObject"]["namespace"] = TENANT.into();
    event["involvedObject"]["name"] = object.into();
    event["severity"] = "error".into();
    event["metadata"] = serde_json::json!({
        "kustomize.toolkit.fluxcd.io/revision":
            "main@sha1:0123456789abcdef0123456789abcdef01234567",
    });
    event
}

/// Starts all senders. They stop when the set is dropped.
pub fn start(endpoint: &str) -> JoinSet<()> {
    let address: SocketAddr = endpoint
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .expect("the endpoint is an address and a port");
    let mut senders = JoinSet::new();
    for _ in 0..STALLED {
        senders.spawn(stall(address));
    }
    for (object, message) in [
        ("commit", "short".to_owned()),
        ("letters", disorder(1, 400_000)),
        ("markup", "<".repeat(3_000_000)),
    ] {
        senders.spawn(post(endpoint.to_owned(), object, message));
    }
    senders
}

/// Sends most of a large body and then nothing, on a new connection each time.
async fn stall(address: SocketAddr) {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        SENT_BYTES + 1
    );
    let part = vec![b' '; 64 << 10];
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let mut sent = 0;
            let mut result = stream.write_all(head.as_bytes()).await;
            while result.is_ok() && sent < SENT_BYTES {
                let length = part.len().min(SENT_BYTES - sent);
                result = stream.write_all(&part[..length]).await;
                sent += length;
            }
            // Ingest ends the connection in the end.
            if result.is_ok() {
                let _ = stream.readable().await;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Posts an event, each time with another message.
async fn post(endpoint: String, object: &'static str, message: String) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("the client's settings are valid");
    for number in 0_u64.. {
        let event = tenants_event(object, &format!("{number} {message}"));
        // Ingest may refuse it.
        let _ = client
            .post(&endpoint)
            .header("content-type", "application/json")
            .body(event.to_string())
            .send()
            .await;
        sleep(Duration::from_millis(500)).await;
    }
}
