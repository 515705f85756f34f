//! The same delivery, sent twice.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;

use crate::service::{Behavior, Received, Service};
use crate::subject::{Subject, http_types};

/// Sentry's envelopes hold the time of sending.
static SENT_AT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""sent_at":"[^"]*","#).expect("the pattern is valid"));

/// The requests without credentials and the time of sending, which differ for each attempt.
fn comparable(requests: &[Received]) -> Vec<String> {
    let header = |request: &Received, name: &str| format!("{:?}", request.headers.get(name));
    requests
        .iter()
        .map(|request| {
            let body = String::from_utf8_lossy(&request.body);
            let body = SENT_AT.replace(&body, "");
            let [key, kind] = ["idempotency-key", "content-type"].map(|name| header(request, name));
            format!("{} {} {key} {kind} {body}", request.method, request.url)
        })
        .collect()
}

/// A replica that takes over sends the same bytes, so that services can deduplicate. No part of a
/// request has a random order.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_sent_twice_has_the_same_requests() {
    let service = Service::start(Behavior::Healthy).await;
    for row in http_types() {
        let mut sent = Vec::new();
        for _ in 0..2 {
            Subject::new(row, &service, Duration::from_secs(60))
                .attempt()
                .await
                .unwrap();
            sent.push(comparable(&service.take_received()));
        }
        assert_eq!(sent[0], sent[1], "{}", row.kind);
    }
}
