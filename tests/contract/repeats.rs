//! The same delivery twice.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;

use crate::service::{Behaviour, Received, Service};
use crate::subject::{Subject, http_types};

/// Sentry's envelopes say when they are sent.
static SENT_AT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""sent_at":"[^"]*","#).expect("the pattern is valid"));

/// Everything of a request but credentials and the time of sending, which are made for the moment.
fn told(requests: &[Received]) -> Vec<String> {
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

/// A replica that takes over says the same, so services that know what they have been told know it
/// again. Field by field: nothing is in a random order.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_made_twice_says_the_same_twice() {
    let service = Service::start(Behaviour::Well).await;
    for row in http_types() {
        let mut said = Vec::new();
        for _ in 0..2 {
            Subject::new(row, &service, Duration::from_secs(60))
                .attempt()
                .await
                .unwrap();
            said.push(told(&service.take_received()));
        }
        assert_eq!(said[0], said[1], "{}", row.kind);
    }
}
