//! Samples for tests: a Provider and a message.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::model::retry::RetryPolicy;
use tidings_core::{AlertReference, Event, ObjectReference, ProtoTimestamp};
use tidings_rules::{Family, Kind, ResolvedProvider, SecretData, SecretValue};

use crate::message::Message;
use crate::message::mentions::OwnMentions;
use crate::message::render::RenderedMessage;
use crate::notifier::kinds;

/// The Provider `apps/prov` of a type, at `https://hooks.example.com/path`. `edit` changes it.
pub fn provider(kind: &'static str, edit: impl FnOnce(&mut ResolvedProvider)) -> ResolvedProvider {
    let mut provider = ResolvedProvider {
        namespace: "apps".into(),
        name: "prov".into(),
        uid: "0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a".into(),
        kind: kind_of(kind),
        address: "https://hooks.example.com/path".into(),
        api_address: None,
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
        accept_redirects: false,
        cluster_field: false,
        reason_states: Default::default(),
        links: None,
        retry: RetryPolicy::default(),
        manifest: serde_json::Value::Null,
        fingerprint: String::new(),
    };
    edit(&mut provider);
    provider
}

/// The type of this name; another name is a type that reads nothing.
fn kind_of(name: &'static str) -> Kind {
    let known = kinds().iter().find(|kind| kind.name == name);
    known.copied().unwrap_or(Kind::new(name, Family::Message))
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

/// Owns the data that a [`Message`] borrows.
pub struct Sample {
    pub event: Event,
    pub metadata: BTreeMap<String, String>,
    pub alert: AlertReference,
    pub channel: String,
    pub rendered: RenderedMessage,
    pub former_clusters: Vec<String>,
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
            former_clusters: Vec::new(),
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

    /// The message that a notifier sends.
    pub fn message(&self) -> Message<'_> {
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
            own_mentions: OwnMentions::NONE,
            rendered: &self.rendered,
            former_clusters: &self.former_clusters,
        }
    }
}
