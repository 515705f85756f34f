//! `ingest.…`: how events are received.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::read::Reader;
use super::server::ServerTlsSettings;
use super::value::{self, Severity};
use crate::runtime::kubernetes::kind::ObjectKind;

/// The kinds of objects that Flux posts events about.
const FLUX_KINDS: &[&str] = &[
    "Kustomization.kustomize.toolkit.fluxcd.io",
    "HelmRelease.helm.toolkit.fluxcd.io",
    "GitRepository.source.toolkit.fluxcd.io",
    "OCIRepository.source.toolkit.fluxcd.io",
    "HelmRepository.source.toolkit.fluxcd.io",
    "HelmChart.source.toolkit.fluxcd.io",
    "Bucket.source.toolkit.fluxcd.io",
    "ExternalArtifact.source.toolkit.fluxcd.io",
    "ArtifactGenerator.source.extensions.fluxcd.io",
    "ImageRepository.image.toolkit.fluxcd.io",
    "ImagePolicy.image.toolkit.fluxcd.io",
    "ImageUpdateAutomation.image.toolkit.fluxcd.io",
];

/// How events are received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IngestSettings {
    /// `ingest.dedupe_interval`: how long the same event is a duplicate.
    #[serde(serialize_with = "value::write_duration")]
    pub dedupe_interval: Duration,
    /// `ingest.connections`: the most connections at a time; default: as memory and file
    /// descriptors allow.
    pub connections: Option<usize>,
    /// `ingest.tls.…`
    pub tls: ServerTlsSettings,
    /// `ingest.auth.…`
    pub auth: AuthSettings,
    /// `ingest.edge`: whether to store events on an own server, and forward them.
    pub edge: bool,
    /// `ingest.tee.…`
    pub tee: TeeSettings,
    /// `ingest.labels`: whether to read the labels of objects; default: if a cluster is configured.
    pub labels: Option<bool>,
    /// `ingest.label_kinds`: the kinds of objects whose labels are read.
    pub label_kinds: Vec<ObjectKind>,
    /// `ingest.kubernetes_events.…`
    pub kubernetes_events: KubernetesEventsSettings,
}

/// Who may send events. Without tokens and reviews: everybody who reaches the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthSettings {
    /// `ingest.auth.tokens`: a file or folder of bearer tokens.
    pub tokens: Option<PathBuf>,
    /// `ingest.auth.token_review.…`
    pub token_review: TokenReviewSettings,
}

/// Which tokens of the Kubernetes API are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenReviewSettings {
    /// `ingest.auth.token_review.enabled`: whether the API is asked.
    pub enabled: bool,
    /// `ingest.auth.token_review.audiences`: a token must have one of them.
    pub audiences: Vec<String>,
    /// `ingest.auth.token_review.users`: globs of names; empty for all users.
    pub users: Vec<String>,
}

impl AuthSettings {
    /// Whether senders need a token.
    pub fn is_required(&self) -> bool {
        self.tokens.is_some() || self.token_review.enabled
    }
}

/// Where copies of events go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TeeSettings {
    /// `ingest.tee.url`: an http or https URL without credentials.
    pub url: Option<Url>,
}

/// Which Kubernetes Events are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesEventsSettings {
    /// `ingest.kubernetes_events.watch`: whether Events are read.
    pub watch: bool,
    /// `ingest.kubernetes_events.flux_objects`: also Events about Flux's objects, which Flux posts
    /// itself.
    pub flux_objects: bool,
    /// `ingest.kubernetes_events.types`: Warning, Normal. In this and the next three, `!NAME`
    /// excludes a name.
    pub types: Vec<String>,
    /// `ingest.kubernetes_events.kinds`: of the object; empty for all.
    pub kinds: Vec<String>,
    /// `ingest.kubernetes_events.namespaces`: of the Event; empty for all.
    pub namespaces: Vec<String>,
    /// `ingest.kubernetes_events.reasons`: empty for all.
    pub reasons: Vec<String>,
    /// `ingest.kubernetes_events.severities`: by reason or type; default: by type.
    pub severities: Vec<Severity>,
    /// `ingest.kubernetes_events.repeat_interval`: an Event whose count increases is a new
    /// event once in this time.
    #[serde(serialize_with = "value::write_duration")]
    pub repeat_interval: Duration,
    /// `ingest.kubernetes_events.lease`: the Lease of the replica that reads Events.
    pub lease: String,
}

impl IngestSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            dedupe_interval: reader.value("ingest.dedupe_interval", value::interval),
            connections: reader.optional("ingest.connections", value::count),
            tls: ServerTlsSettings::read(reader, "ingest.tls.cert", "ingest.tls.key"),
            auth: AuthSettings {
                tokens: reader.optional("ingest.auth.tokens", value::path),
                token_review: TokenReviewSettings {
                    enabled: reader.value("ingest.auth.token_review.enabled", value::switch),
                    audiences: reader.list("ingest.auth.token_review.audiences"),
                    users: reader.list("ingest.auth.token_review.users"),
                },
            },
            edge: reader.value("ingest.edge", value::switch),
            tee: TeeSettings {
                url: reader.optional_secret("ingest.tee.url", value::http_url),
            },
            labels: reader.optional("ingest.labels", value::switch),
            label_kinds: reader.list_or("ingest.label_kinds", FLUX_KINDS, value::object_kind),
            kubernetes_events: KubernetesEventsSettings::read(reader),
        }
    }
}

impl KubernetesEventsSettings {
    fn read(reader: &mut Reader) -> Self {
        Self {
            watch: reader.value("ingest.kubernetes_events.watch", value::switch),
            flux_objects: reader.value("ingest.kubernetes_events.flux_objects", value::switch),
            types: reader.list("ingest.kubernetes_events.types"),
            kinds: reader.list("ingest.kubernetes_events.kinds"),
            namespaces: reader.list("ingest.kubernetes_events.namespaces"),
            reasons: reader.list("ingest.kubernetes_events.reasons"),
            severities: reader.list_of("ingest.kubernetes_events.severities", value::severity),
            repeat_interval: reader
                .value("ingest.kubernetes_events.repeat_interval", value::interval),
            lease: reader.value("ingest.kubernetes_events.lease", value::text),
        }
    }
}
