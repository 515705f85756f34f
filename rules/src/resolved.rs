//! A Provider with the contents of its Secrets: the input of a notifier.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidings_core::Destination;
use tidings_core::model::object_state::ReasonStates;
use tidings_core::model::retry::RetryPolicy;
use url::Url;

use crate::kind::Kind;
use crate::provider::{CommitStatusOptions, RateLimit};

/// The characters that a line ends with.
const LINE_BREAKS: [char; 2] = ['\r', '\n'];

/// The value of one key of a Secret. `Debug` and errors never show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Wraps the bytes of a value.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, unchanged.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value without surrounding white space, for headers and addresses; `None` if it is not
    /// UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().map(str::trim)
    }

    /// The value without line breaks at its end, for passwords: they may begin or end with spaces.
    /// `None` if it is not UTF-8.
    pub fn password(&self) -> Option<&str> {
        std::str::from_utf8(&self.0)
            .ok()
            .map(|text| text.trim_end_matches(LINE_BREAKS))
    }

    /// Whether the value ends with a line break, as `echo` and editors add it.
    pub fn ends_with_line_break(&self) -> bool {
        self.0
            .last()
            .is_some_and(|byte| matches!(byte, b'\r' | b'\n'))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The keys of one Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SecretData(pub BTreeMap<String, SecretValue>);

impl SecretData {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&SecretValue> {
        self.0.get(key)
    }

    /// The value of a key, without surrounding white space; of `password` only without line breaks
    /// at its end. `None` if it is missing, empty or not UTF-8. Everything but signing keys and
    /// certificates is read here.
    pub fn text(&self, key: &str) -> Option<&str> {
        let value = self.get(key)?;
        let text = match key {
            "password" => value.password(),
            _ => value.text(),
        };
        text.filter(|text| !text.is_empty())
    }

    /// The trimmed value of the key `token`.
    pub fn token(&self) -> Option<&str> {
        self.text("token")
    }

    /// The values of the keys `username` and `password`. `Rules::resolve` rejects one without the
    /// other if the type reads both.
    pub fn basic(&self) -> Option<(&str, &str)> {
        Some((self.text("username")?, self.text("password")?))
    }
}

/// TLS certificates as PEM. A client certificate always has a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The only trusted authorities; those of the system if `None`.
    pub authorities: Option<SecretValue>,
    /// The certificate chain of the client and its key.
    pub identity: Option<(SecretValue, SecretValue)>,
}

/// The proxy of a Provider. It takes precedence over the proxy of the environment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// An http, https or socks5 URL, which may contain a user name and a password.
    pub address: String,
    /// The user name and the password of `proxySecretRef`.
    pub credentials: Option<(String, SecretValue)>,
    /// The field or the key of a Secret that names the proxy, for errors.
    pub origin: String,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Proxy([redacted])")
    }
}

/// A Provider with the contents of its Secrets at the time of an attempt.
#[derive(Clone)]
pub struct ResolvedProvider {
    /// The namespace of the Provider.
    pub namespace: String,
    /// The name of the Provider.
    pub name: String,
    /// The uid, or a UUIDv5 of kind, namespace and name if the manifest has none.
    pub uid: String,
    /// The provider type.
    pub kind: Kind,
    /// The key `address` or `url` of the Secret, trimmed, or else `spec.address`; may be empty.
    pub address: String,
    /// `spec.apiAddress`: an http or https URL without user info, query and fragment.
    pub api_address: Option<Url>,
    /// `spec.channel`; the channel of the Alert takes precedence.
    pub channel: String,
    /// The key `username` of the Secret, or else `spec.username`; may be empty.
    pub username: String,
    /// The timeout of one attempt. Defaults to 15s, also for `0s`.
    pub timeout: Duration,
    /// The key `headers` of the Secret. Names and values are valid in HTTP.
    pub headers: BTreeMap<String, String>,
    /// The Secret of `secretRef`; empty if the Provider references none.
    pub secret: SecretData,
    /// Certificates of `certSecretRef`, for commit statuses also of `secretRef`.
    pub tls: Option<Tls>,
    /// The proxy of `proxySecretRef`, of the Secret or of the spec, in this order.
    pub proxy: Option<Proxy>,
    /// The CEL expression for the commit status ID; `None` if empty.
    pub commit_status_expr: Option<String>,
    /// The maximum number of deliveries per period of all workers together. Overrides the limits of
    /// the type.
    pub rate_limit: Option<RateLimit>,
    /// The maximum number of concurrent deliveries of all workers together.
    pub max_in_flight: Option<u32>,
    /// The options of commit statuses.
    pub commit_status: CommitStatusOptions,
    /// The states of reasons; they precede the table.
    pub reason_states: ReasonStates,
    /// Whether to add links to messages; the setting of the worker decides if `None`.
    pub links: Option<bool>,
    /// Whether a service that answers a write with 301, 302 or 303 has accepted it.
    pub accept_redirects: bool,
    /// Whether the JSON of the event names the cluster.
    pub cluster_field: bool,
    /// The limits of retries.
    pub retry: RetryPolicy,
    /// The manifest (apiVersion, kind, metadata, spec), for expressions and templates.
    pub manifest: serde_json::Value,
    /// A hash of all of the above, including secrets. It does not reveal them.
    pub fingerprint: String,
}

impl ResolvedProvider {
    /// The channel in the Secret, which takes precedence over all others.
    pub fn secret_channel(&self) -> Option<&str> {
        self.secret.text(self.kind.channel_key)
    }

    /// The destination of deliveries to a channel.
    pub fn destination(&self, channel: &str) -> Destination {
        let shown = self.kind.shown_channel(channel);
        Destination::channel(&self.namespace, &self.name, &shown)
    }
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

/// Why a Provider cannot be resolved. The message names the object, the key and what to do. It
/// never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The Provider or one of its Secrets does not exist. It may be created later.
    #[error("{0}")]
    Missing(String),
    /// The Provider or one of its Secrets is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The Provider has `suspend: true`.
    #[error("{0}")]
    Suspended(String),
}
