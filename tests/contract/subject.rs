//! The types under test, each with the Provider of its own example.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{AlertReference, Delivery, Event, Failure};
use tidings_rules::{Options, Proxy, ResolvedProvider, Rules, SecretValue, Tls, document};
use tidings_workers::attempt::{Ended, Prepared, attempt_once, prepare};
use tidings_workers::http::{Http, HttpClients};
use tidings_workers::message::Message;
use tidings_workers::message::render::RenderedMessage;
use tidings_workers::notifier::contract::ProviderType;
use tidings_workers::notifier::{PROVIDERS, kinds};

use crate::service::{AUTHORITY, RSA_KEY, Service};

/// The start of secret values in examples, in place of `your`.
pub const MARK: &str = "s3cr3t";

/// The types that use HTTP. The others have tests of their own.
pub fn http_types() -> impl Iterator<Item = &'static ProviderType> {
    PROVIDERS.iter().copied().filter(|row| row.uses_http)
}

/// The example manifest of a type with values that work: real keys, and secrets that the tests
/// recognize.
pub fn filled_example(row: &ProviderType) -> String {
    let example = row.example();
    let (provider, secret) = example.split_once("---\n").unwrap_or((&example, ""));
    let key = serde_json::to_string(&*RSA_KEY).unwrap();
    let secret = secret
        .replace("\"your-private-key\"", &key)
        .replace("your", MARK)
        .replace("public-key", "public-k3y");
    if secret.is_empty() {
        provider.to_owned()
    } else {
        format!("{provider}---\n{secret}")
    }
}

/// The Provider of a manifest, as a worker resolves it.
pub fn resolve(manifest: &str) -> Result<ResolvedProvider, String> {
    match resolve_edited(manifest, |_| ())? {
        (resolved, warnings) if warnings.is_empty() => Ok(resolved),
        (_, warnings) => Err(format!("{warnings:?}")),
    }
}

/// The Provider of a manifest with other keys in its Secret, as a worker resolves it, and the
/// warnings about both.
pub fn resolve_edited(
    manifest: &str,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> Result<(ResolvedProvider, Vec<String>), String> {
    let mut documents = document::read(&"example.yaml".into(), manifest.as_bytes(), usize::MAX);
    if !documents.problems.is_empty() {
        return Err(format!("{:?}", documents.problems));
    }
    let mut secrets = documents.objects.iter_mut();
    let secret = secrets.find(|object| object.identity().kind == "Secret");
    let keys = secret.and_then(|secret| secret.value["stringData"].as_object_mut());
    edit(keys.unwrap_or(&mut Map::new()));
    let rules = Rules::compile(&documents.objects, kinds(), &Options::default());
    let provider = rules.providers().next().ok_or("no Provider")?;
    let resolved = rules
        .resolve(&provider.namespace, &provider.name)
        .map_err(|error| error.to_string())?;
    let warnings = rules.problems().iter().map(ToString::to_string);
    Ok((ResolvedProvider::clone(&resolved), warnings.collect()))
}

/// A type with the Provider of its example, connected to a scripted service.
pub struct Subject {
    pub row: &'static ProviderType,
    pub prepared: Prepared,
}

impl Subject {
    /// Sends to the service with its certificates.
    pub fn new(row: &'static ProviderType, service: &Service, timeout: Duration) -> Self {
        let authorities = Some(SecretValue::new(AUTHORITY.pem()));
        Self::with(
            row,
            service,
            timeout,
            Tls {
                authorities,
                identity: None,
            },
        )
    }

    /// Sends to the service with other certificates.
    pub fn with(
        row: &'static ProviderType,
        service: &Service,
        timeout: Duration,
        tls: Tls,
    ) -> Self {
        Self::edited(row, service, |provider| {
            provider.timeout = timeout;
            provider.tls = Some(tls);
        })
    }

    /// Sends to the service with other properties of the Provider.
    pub fn edited(
        row: &'static ProviderType,
        service: &Service,
        edit: impl FnOnce(&mut ResolvedProvider),
    ) -> Self {
        let mut provider =
            resolve(&filled_example(row)).unwrap_or_else(|error| panic!("{}: {error}", row.kind));
        provider.tls = Some(Tls {
            authorities: Some(SecretValue::new(AUTHORITY.pem())),
            identity: None,
        });
        edit(&mut provider);
        provider.proxy = Some(Proxy {
            address: service.proxy.clone(),
            credentials: None,
            origin: "spec.proxy".into(),
        });
        let http_clients = HttpClients::new(AddressSettings::default()).unwrap();
        let prepared = prepare(Arc::new(provider), |provider| {
            Http::new(provider, &http_clients)
        });
        Self {
            row,
            prepared: prepared.unwrap_or_else(|error| panic!("{}: {error}", row.kind)),
        }
    }

    /// One attempt for an event that no type ignores.
    pub async fn attempt(&self) -> Result<Ended, Failure> {
        attempt(&self.prepared, &event("Health check failed")).await
    }
}

/// One attempt for an event.
pub async fn attempt(prepared: &Prepared, event: &Event) -> Result<Ended, Failure> {
    attempt_with(prepared, event, &BTreeMap::new()).await
}

/// One attempt for an event with more metadata.
pub async fn attempt_with(
    prepared: &Prepared,
    event: &Event,
    metadata: &BTreeMap<String, String>,
) -> Result<Ended, Failure> {
    attempt_rendered(prepared, event, metadata, |_| RenderedMessage::default()).await
}

/// One attempt for an event with more metadata, and with a rendered message.
pub async fn attempt_rendered(
    prepared: &Prepared,
    event: &Event,
    metadata: &BTreeMap<String, String>,
    render: impl FnOnce(&Message<'_>) -> RenderedMessage,
) -> Result<Ended, Failure> {
    let mut delivery = delivery(event);
    delivery.metadata.extend(metadata.clone());
    let alert = delivery.alert.clone().unwrap_or_default();
    let texts = prepared.texts(&delivery, event);
    let message = prepared.message(&delivery, &texts, &alert);
    let rendered = &render(&message);
    attempt_once(
        prepared,
        &Message {
            rendered,
            ..message
        },
    )
    .await
}

/// An event of a Kustomization with severity error.
pub fn event(message: &str) -> Event {
    let mut posted = tidings_rig::event(message);
    posted["severity"] = "error".into();
    posted["reason"] = "HealthCheckFailed".into();
    tidings_ingest::parse_event(
        posted.to_string().as_bytes(),
        "default",
        Timestamp::UNIX_EPOCH,
        None,
    )
    .unwrap()
}

/// A delivery of the event, with a revision and a change request in its metadata.
pub fn delivery(event: &Event) -> Delivery {
    let metadata = json!({
        "change_request": "7",
        "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291",
        "summary": "Production is affected",
    });
    Delivery {
        id: "delivery-1".into(),
        event: Some(event.clone()),
        alert: Some(AlertReference {
            namespace: "apps".into(),
            name: "all".into(),
            ..AlertReference::default()
        }),
        metadata: serde_json::from_value(metadata).unwrap(),
        ..Delivery::default()
    }
}
