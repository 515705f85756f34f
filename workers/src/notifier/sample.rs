//! Helpers for the tests of the provider types: requests, responses and what they mean.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{Failure, FailureKind, Reason};
use tidings_rules::ResolvedProvider;

use super::contract::{Notifier, ProviderType, Sent};
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, HttpClients, Request, Response};
pub use crate::message::sample::{Sample, provider, secret};

/// Clients that may connect to loopback ports.
pub fn http_clients() -> HttpClients {
    // This fails only if another test has installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let addresses = AddressSettings {
        allow: Vec::new(),
        deny: Vec::new(),
        loopback: true,
    };
    HttpClients::new(addresses).expect("the system's certificates can be read")
}

/// A response of a service.
pub fn response(status: u16, body: &str) -> Response {
    Response {
        host: "service".into(),
        status,
        headers: HeaderMap::new(),
        body: body.into(),
        is_read: false,
        confirmation: Confirmation::Status,
        accepted_redirect: false,
        dry_run: false,
        redactor: Default::default(),
    }
}

/// The response with another header.
pub fn with_header(mut response: Response, name: &'static str, value: &'static str) -> Response {
    response.headers.insert(
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    response
}

/// A result in a short form for tables: `None` for success, else the reason and whether a retry can
/// help.
pub fn meaning<T>(result: Result<T, Failure>) -> Option<(Reason, bool)> {
    let failure = result.err()?;
    Some((
        failure.reason,
        matches!(failure.kind, FailureKind::Transient { .. }),
    ))
}

/// The wait of a failure in seconds.
pub fn wait<T>(result: Result<T, Failure>) -> Option<f64> {
    match result.err()?.kind {
        FailureKind::Transient { retry_after } => retry_after.map(|wait| wait.as_secs_f64()),
        FailureKind::Permanent => None,
    }
}

/// The error with which a type rejects a Provider; empty if it is valid.
pub fn build_error(row: &ProviderType, provider: &ResolvedProvider) -> String {
    let built: Result<Notifier, Invalid> = (row.build)(provider, Http::dry_run());
    built.err().map(|invalid| invalid.0).unwrap_or_default()
}

/// The requests that a type makes for a message when the service accepts everything.
pub async fn requests(
    row: &ProviderType,
    provider: &ResolvedProvider,
    sample: &Sample,
) -> Vec<Request> {
    let http = Http::dry_run().with_headers_of(provider);
    let message = sample.message();
    match (row.build)(provider, http.clone()).expect("the sample Provider is valid") {
        Notifier::Message(notifier) => {
            let sent = notifier
                .send(&message)
                .await
                .expect("a dry run accepts everything");
            assert!(
                matches!(sent, Sent::Accepted { .. }) || http.recorded().is_empty(),
                "skipped after a request"
            );
        }
        Notifier::State(notifier) => {
            notifier
                .prepare(&message)
                .await
                .expect("a dry run accepts everything");
            if let Some(desired) = notifier
                .desire(&message)
                .await
                .expect("the sample has a state")
            {
                notifier
                    .read(&desired)
                    .await
                    .expect("a dry run accepts everything");
                notifier
                    .write(&desired, None)
                    .await
                    .expect("a dry run accepts everything");
            }
        }
    }
    http.recorded()
}

/// The only request that a type makes for a message.
pub async fn request(row: &ProviderType, provider: &ResolvedProvider, sample: &Sample) -> Request {
    let mut requests = requests(row, provider, sample).await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

/// A request's body as JSON.
pub fn body(request: &Request) -> serde_json::Value {
    serde_json::from_slice(&request.body).expect("the body is JSON")
}

/// A request as text for snapshots: method and URL, headers by name, and the body.
pub fn shown(request: &Request) -> String {
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let secret = if value.is_sensitive() {
                " (secret)"
            } else {
                ""
            };
            format!(
                "{name}: {}{secret}\n",
                String::from_utf8_lossy(value.as_bytes())
            )
        })
        .collect();
    headers.sort();
    let body = serde_json::from_slice::<serde_json::Value>(&request.body)
        .map(|json| format!("{json:#}"))
        .unwrap_or_else(|_| String::from_utf8_lossy(&request.body).into_owned());
    format!(
        "{} {}\n{}\n{body}",
        request.method,
        request.url,
        headers.concat()
    )
}
