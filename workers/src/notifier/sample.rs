//! Helpers for the tests of the provider types: requests, responses and what they mean.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{Failure, FailureKind, Reason};
use tidings_rules::ResolvedProvider;

use super::contract::{Notifier, ProviderType, Sent};
use crate::http::invalid::Invalid;
use crate::http::{Http, HttpClients, Request, Response};
pub use crate::message::sample::{Sample, provider, secret};

/// The way out to loopback ports.
pub fn http_clients() -> HttpClients {
    // It fails only where another test was quicker.
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
        dry_run: false,
        redactor: Default::default(),
    }
}

/// The same response with another header.
pub fn with_header(mut response: Response, name: &'static str, value: &'static str) -> Response {
    response.headers.insert(
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    response
}

/// What a judgement says, in a form that is short in tables: nothing for success, else the reason,
/// and whether another attempt can help.
pub fn meaning<T>(judged: Result<T, Failure>) -> Option<(Reason, bool)> {
    let failure = judged.err()?;
    Some((
        failure.reason,
        matches!(failure.kind, FailureKind::Transient { .. }),
    ))
}

/// The seconds that a failure asks to wait.
pub fn wait<T>(judged: Result<T, Failure>) -> Option<f64> {
    match judged.err()?.kind {
        FailureKind::Transient { retry_after } => retry_after.map(|wait| wait.as_secs_f64()),
        FailureKind::Permanent => None,
    }
}

/// The sentence with which a type refuses a Provider.
pub fn refusal(kind: &ProviderType, provider: &ResolvedProvider) -> String {
    let built: Result<Notifier, Invalid> = (kind.build)(provider, Http::dry_run());
    built.err().map(|invalid| invalid.0).unwrap_or_default()
}

/// The requests that a type makes for a message when the service accepts everything.
pub async fn requests(
    kind: &ProviderType,
    provider: &ResolvedProvider,
    sample: &Sample,
) -> Vec<Request> {
    let http = Http::dry_run();
    let message = sample.message();
    match (kind.build)(provider, http.clone()).expect("the sample Provider can be used") {
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
            if let Some(desired) = notifier.desire(&message).expect("the sample can be told") {
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
pub async fn request(kind: &ProviderType, provider: &ResolvedProvider, sample: &Sample) -> Request {
    let mut requests = requests(kind, provider, sample).await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

/// A request's body as JSON.
pub fn body(request: &Request) -> serde_json::Value {
    serde_json::from_slice(&request.body).expect("the body is JSON")
}

/// A request as text for snapshots: method and address, headers by name, and the body, JSON with
/// indents.
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
