//! A Provider together with what its Secrets hold: all that a notifier is built from.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidings_core::model::retry::RetryPolicy;

use crate::kind::Kind;
use crate::provider::{CommitStatusOptions, RateLimit};

/// The bytes of one key of a Secret. They show neither in `Debug` nor in errors.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Takes the bytes as they are stored.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, exactly as stored.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text without white space around it, as it goes into headers and addresses; nothing where
    /// it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().map(str::trim)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// All keys of one Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SecretData(pub BTreeMap<String, SecretValue>);

impl SecretData {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&SecretValue> {
        self.0.get(key)
    }

    /// The trimmed text of a key; empty and absent are the same.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)
            .and_then(SecretValue::text)
            .filter(|text| !text.is_empty())
    }

    /// The key `token`, trimmed.
    pub fn token(&self) -> Option<&str> {
        self.text("token")
    }

    /// The keys `username` and `password`. One without the other is refused when the Provider is
    /// resolved.
    pub fn basic(&self) -> Option<(&str, &str)> {
        Some((
            self.text("username")?,
            self.get("password")
                .and_then(|value| std::str::from_utf8(value.bytes()).ok())?,
        ))
    }
}

/// Certificates as PEM. A client certificate always comes with its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The only authorities that are trusted then; the system's where there are none.
    pub authorities: Option<SecretValue>,
    /// The client's certificate chain and its key.
    pub identity: Option<(SecretValue, SecretValue)>,
}

/// The proxy of a Provider. It goes before the one of the environment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// http, https or socks5; may hold a user and a password.
    pub address: String,
    /// From `proxySecretRef`.
    pub credentials: Option<(String, SecretValue)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Proxy([redacted])")
    }
}

/// A Provider with all that its Secrets hold, read at the moment of an attempt.
#[derive(Clone)]
pub struct ResolvedProvider {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; UUIDv5 of kind, namespace and name where the manifest has none.
    pub uid: String,
    /// Its type.
    pub kind: Kind,
    /// The Secret's `address` or `url`, trimmed, else that of the spec; may be empty.
    pub address: String,
    /// `spec.channel`; the Alert's own goes before it.
    pub channel: String,
    /// The Secret's `username`, else that of the spec; may be empty.
    pub username: String,
    /// Of one attempt. 15 s by default; `0s` means the default too.
    pub timeout: Duration,
    /// The Secret's `headers`, checked: names and values are valid in HTTP.
    pub headers: BTreeMap<String, String>,
    /// The Secret of `secretRef`; empty where there is none.
    pub secret: SecretData,
    /// Certificates of `certSecretRef` (for commit statuses also of `secretRef`).
    pub tls: Option<Tls>,
    /// The proxy of `proxySecretRef`, the Secret's `proxy` or the spec's, in this order.
    pub proxy: Option<Proxy>,
    /// The CEL expression for the commit status id; an empty one counts as none.
    pub commit_status_expr: Option<String>,
    /// At most so many deliveries in such a time, for all workers together; it takes the place of
    /// the type's own limits.
    pub rate_limit: Option<RateLimit>,
    /// At most so many deliveries at a time, for all workers together.
    pub max_in_flight: Option<u32>,
    /// What commit statuses say beside their state.
    pub commit_status: CommitStatusOptions,
    /// Whether messages get links; nothing: as the settings say.
    pub links: Option<bool>,
    /// The bounds of retries.
    pub retry: RetryPolicy,
    /// The Provider as it was written (apiVersion, kind, metadata, spec), for expressions and
    /// templates.
    pub manifest: serde_json::Value,
    /// Changes when anything above changes, secrets included; tells nothing about them.
    pub fingerprint: String,
}

impl fmt::Debug for ResolvedProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "ResolvedProvider({} {}/{})",
            self.kind.name, self.namespace, self.name
        )
    }
}

/// Why a Provider can't be resolved. The sentences name objects, keys and what to do, and no
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It, or a Secret it needs, does not exist; it may be about to be created.
    #[error("{0}")]
    Missing(String),
    /// It can't be used as it is.
    #[error("{0}")]
    Invalid(String),
    /// `suspend: true`.
    #[error("{0}")]
    Suspended(String),
}
