//! Samples for the tests of the provider types: a Provider, a notification, an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tidings_core::model::retry::RetryPolicy;
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{
    AlertReference, Event, Failure, FailureKind, ObjectReference, ProtoTimestamp, Reason,
};
use tidings_rules::{Family, Kind, ResolvedProvider, SecretData, SecretValue};

use super::contract::{Notifier, ProviderType, Sent};
use crate::http::invalid::Invalid;
use crate::http::{Answer, Http, HttpClients, Request};
use crate::message::Message;
use crate::message::render::RenderedMessage;

/// The Provider `apps/prov` of a type, at `https://hooks.example.com/path`, with what the test changes in it.
pub fn provider(kind: &'static str, edit: impl FnOnce(&mut ResolvedProvider)) -> ResolvedProvider {
    let mut provider = ResolvedProvider {
        namespace: "apps".into(),
        name: "prov".into(),
        uid: "0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a".into(),
        kind: Kind {
            name: kind,
            family: Family::Message,
        },
        address: "https://hooks.example.com/path".into(),
        channel: String::new(),
        username: String::new(),
        timeout: Duration::from_secs(15),
        headers: BTreeMap::new(),
        secret: SecretData::default(),
        tls: None,
        proxy: None,
        commit_status_expr: None,
        rate_limit: None,
        max_in_flight: None,
        commit_status: Default::default(),
        links: None,
        retry: RetryPolicy::default(),
        manifest: serde_json::Value::Null,
        fingerprint: String::new(),
    };
    edit(&mut provider);
    provider
}

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

/// The data of a Secret.
pub fn secret(pairs: &[(&str, &str)]) -> SecretData {
    SecretData(
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), SecretValue::new(*value)))
            .collect(),
    )
}

/// Owns what a [`Message`] borrows. All of it can be changed.
pub struct Sample {
    pub event: Event,
    pub metadata: BTreeMap<String, String>,
    pub alert: AlertReference,
    pub channel: String,
    pub rendered: RenderedMessage,
}

impl Sample {
    /// Severity info of Kustomization `apps/webapp`, with `summary`, `cluster` and `revision` as
    /// metadata and the channel `general`.
    pub fn info() -> Self {
        let object = ObjectReference {
            api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: "webapp".into(),
            uid: "5d0a7b3e-1c55-4e2f-9a70-3b1f2c4d5e6f".into(),
            ..Default::default()
        };
        let event = Event {
            involved_object: Some(object),
            severity: "info".into(),
            timestamp: Some(ProtoTimestamp {
                seconds: 1_773_480_413,
                nanos: 0,
            }),
            message: "Reconciliation finished in 1.35s".into(),
            reason: "ReconciliationSucceeded".into(),
            reporting_controller: "kustomize-controller".into(),
            reporting_instance: "kustomize-controller-6f7c9d8b5-x2k4q".into(),
            ..Default::default()
        };
        let metadata = [
            ("cluster", "prod-1"),
            (
                "revision",
                "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
            ),
            ("summary", "Production is affected"),
        ];
        Self {
            event,
            metadata: metadata
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            alert: AlertReference {
                namespace: "apps".into(),
                name: "webapp-alert".into(),
                ..Default::default()
            },
            channel: "general".into(),
            rendered: RenderedMessage::default(),
        }
    }

    /// The same object with severity error and a message of two lines.
    pub fn error() -> Self {
        let mut sample = Self::info();
        sample.event.severity = "error".into();
        sample.event.reason = "HealthCheckFailed".into();
        sample.event.message = "Health check failed after 30s\nDeployment/web: not ready".into();
        sample
    }

    /// The same with another message.
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.event.message = message.into();
        self
    }

    /// What a notifier is told.
    pub fn notification(&self) -> Message<'_> {
        Message {
            delivery_id: "delivery-1",
            event: &self.event,
            object: self
                .event
                .involved_object
                .as_ref()
                .expect("a sample has an object"),
            metadata: &self.metadata,
            alert: &self.alert,
            channel: &self.channel,
            rendered: &self.rendered,
        }
    }
}

/// An answer of a service.
pub fn answer(status: u16, body: &str) -> Answer {
    Answer {
        host: "service".into(),
        status,
        headers: HeaderMap::new(),
        body: body.into(),
        dry_run: false,
        redactor: Default::default(),
    }
}

/// The same answer with another header.
pub fn with_header(mut answer: Answer, name: &'static str, value: &'static str) -> Answer {
    answer.headers.insert(
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    answer
}

/// What a judgement says, in a form that is short in tables: nothing for success, else the reason,
/// and whether another attempt can help.
pub fn verdict<T>(judged: Result<T, Failure>) -> Option<(Reason, bool)> {
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

/// The requests that a type makes for a notification when the service accepts everything.
pub async fn requests(
    kind: &ProviderType,
    provider: &ResolvedProvider,
    sample: &Sample,
) -> Vec<Request> {
    let http = Http::dry_run();
    let notification = sample.notification();
    match (kind.build)(provider, http.clone()).expect("the sample Provider can be used") {
        Notifier::Message(notifier) => {
            let sent = notifier
                .send(&notification)
                .await
                .expect("a dry run accepts everything");
            assert!(
                matches!(sent, Sent::Accepted { .. }) || http.recorded().is_empty(),
                "skipped after a request"
            );
        }
        Notifier::State(notifier) => {
            notifier
                .prepare(&notification)
                .await
                .expect("a dry run accepts everything");
            if let Some(desired) = notifier
                .desire(&notification)
                .expect("the sample can be told")
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

/// The only request that a type makes for a notification.
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
