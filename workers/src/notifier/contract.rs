//! The contract of a provider type: its row in the table of types, and the code that sends.
//!
//! A notifier sends once. It never sleeps, loops, retries or logs. It reports what a response means
//! in a [`Failure`]; the worker decides when to try again.

mod example;
pub mod limits;
pub mod mentions;
pub mod need;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidings_core::{Failure, Reason};
use tidings_rules::template::Escape;
use tidings_rules::{Family, ResolvedProvider, SecretValue};

use crate::http::Http;
use crate::http::classify::StatusRule;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::message::render::Content;
use limits::{RateLimits, SizeLimits};
use mentions::Mentions;
use need::{Need, Place};

/// The keys with certificates, under their current and their former names.
const CERTIFICATES: &[&str] = &[
    "ca.crt", "caFile", "certFile", "keyFile", "tls.crt", "tls.key",
];

/// Everything about one provider type. Each type's file has one, and the table lists them.
pub struct ProviderType {
    /// `spec.type`.
    pub kind: &'static str,
    /// Which events the type accepts.
    pub family: Family,
    /// A short description for the docs and the CLI.
    pub summary: &'static str,
    /// The fields of the Provider and the keys of its Secret that the type reads.
    pub needs: &'static [Need],
    /// Where long texts are cut, for the docs.
    pub cut_at: &'static str,
    /// What happens at the service when a delivery is sent twice, for the docs.
    pub sent_twice: &'static str,
    /// Validates the address and the credentials, and builds the notifier. The error names the
    /// field or key.
    pub build: fn(&ResolvedProvider, Http) -> Result<Notifier, Invalid>,
    /// What the type sends, and how a template's values are escaped.
    pub content: Content,
    /// The service's rate limits. A Provider's `rateLimit` replaces them.
    pub rate_limits: RateLimits,
    /// The form of a 2xx with which the service accepts a write. Proxies answer 200, too.
    pub confirmation: Confirmation,
    /// How texts of the service mention people. Texts from events never do.
    pub mentions: Mentions,
    /// The largest body, fields and ids that the service accepts. The contract tests check each of
    /// them.
    pub size_limits: SizeLimits,
    /// Response statuses that mean something else than for other types.
    pub status_rules: &'static [StatusRule],
    /// How many links one message of the service has room for.
    pub most_links: usize,
    /// The key of the Secret that is used as stored, such as a signing key; empty for none.
    pub raw_key: &'static str,
    /// The key of the Secret that takes precedence over every channel, for types whose channel is a
    /// credential. No metric, circuit, stored message or log shows such a channel. Empty for other
    /// types.
    pub channel_key: &'static str,
    /// Headers that the type computes, in lower case. The key `headers` of the Secret cannot
    /// replace them.
    pub own_headers: &'static [&'static str],
    /// Whether every request has the headers of the Secret. If not, the type uses them otherwise.
    pub sends_headers: bool,
    /// Whether the type sends HTTP requests. If not, no proxy applies and a dry run shows nothing.
    pub uses_http: bool,
}

impl ProviderType {
    /// A type without limits or rules of its own, whose service answers the new object with its id.
    /// A row states what differs: `..ProviderType::DEFAULT`.
    pub const DEFAULT: Self = Self {
        kind: "",
        family: Family::Message,
        summary: "",
        needs: &[],
        cut_at: "",
        sent_twice: "",
        build: |_, _| Err(Invalid(String::new())),
        content: Content::Text(Escape::None),
        rate_limits: RateLimits::NONE,
        confirmation: Confirmation::Json(&[("id", Is::Present)]),
        mentions: Mentions::UNSTATED,
        size_limits: SizeLimits::UNSTATED,
        status_rules: &[],
        most_links: usize::MAX,
        raw_key: "",
        channel_key: "",
        own_headers: &[],
        sends_headers: true,
        uses_http: true,
    };

    /// Whether the address is a credential, so that it belongs in the Secret.
    pub fn is_address_secret(&self) -> bool {
        let is_it = |need: &Need| need.place == Place::Key && need.name == "address";
        self.needs.iter().any(is_it)
    }

    /// The fields of the Provider's `spec` that the type needs.
    pub fn fields(&self) -> Vec<&'static str> {
        let fields = self.needs.iter().filter(|need| need.place == Place::Field);
        fields.map(|need| need.name).collect()
    }

    /// All keys of the Secret that the type reads, sorted: its own, the other places of its fields,
    /// and those that all types with HTTP or with commit statuses read.
    pub fn secret_keys(&self) -> Vec<&'static str> {
        let needs = |name| self.needs.iter().any(|need| need.name == name);
        let own = self.needs.iter().filter(|need| need.place == Place::Key);
        let groups: [(bool, &[&str]); 4] = [
            (needs("address"), &["address", "url"]),
            (needs("username"), &["username"]),
            (self.uses_http, &["headers", "proxy"]),
            (self.family == Family::CommitStatus, CERTIFICATES),
        ];
        let shared = groups.into_iter().filter(|(applies, _)| *applies);
        let shared = shared.flat_map(|(_, keys)| keys.iter().copied());
        let mut keys: Vec<_> = own.map(|need| need.name).chain(shared).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// The code of one provider type, built for one Provider.
pub enum Notifier {
    /// Every delivery is a message of its own.
    Message(Box<dyn SendMessage>),
    /// Only the newest state of a key counts: commit statuses, comments, incidents.
    State(Box<dyn KeepState>),
}

/// A notifier that sends every delivery as a message of its own.
#[async_trait]
pub trait SendMessage: Send + Sync {
    /// Sends the message once.
    ///
    /// # Errors
    /// The failure says whether a retry can help.
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure>;
}

/// A notifier that keeps one state for each key at its service.
///
/// The state to write may come from another delivery of the same key. Everything that `write`
/// needs is therefore in [`DesiredState::state`].
#[async_trait]
pub trait KeepState: Send + Sync {
    /// Asks the service for what reads and writes need, such as its version or our login. It runs
    /// before the first read or write. Responses are cached, so it usually makes no call.
    ///
    /// # Errors
    /// The service is unreachable or can't be used.
    async fn prepare(&self, _message: &Message<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// The key and the state that a message asks for; `None` if the type ignores such events.
    /// Makes no call.
    ///
    /// # Errors
    /// The event or the Provider lacks what the state needs.
    async fn desire(&self, message: &Message<'_>) -> Result<Option<DesiredState>, Failure>;

    /// Whether a write without a handle creates a second entry. If so, the service is read whenever
    /// the handle is unknown.
    fn needs_handle(&self) -> bool {
        false
    }

    /// Reads the state of the key from the service, if the service allows that.
    async fn read(&self, desired: &DesiredState) -> Result<RemoteState, Failure>;

    /// Writes the state once. `handle` is the service's own id of the entry to change, if known.
    async fn write(&self, desired: &DesiredState, handle: Option<&str>) -> Result<Sent, Failure>;
}

/// The state that a key should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// Names the object of the state: service, repository, commit, context. Equal keys share one
    /// record, even if they come from different Providers. Holds no secrets.
    pub key: String,
    /// The state in the notifier's own format. Equal bytes are the same state. Holds no secrets.
    pub state: Vec<u8>,
    /// A secret that the write needs, such as a routing key. It is never stored. States of one key
    /// have the same secret.
    pub secret: Option<SecretValue>,
}

impl DesiredState {
    /// A state in JSON.
    pub fn new(key: String, state: &impl Serialize) -> Self {
        let state = serde_json::to_vec(state).unwrap_or_default();
        Self {
            key,
            state,
            secret: None,
        }
    }

    /// Adds the secret that the write needs.
    #[must_use]
    pub fn with_secret(self, secret: &str) -> Self {
        Self {
            secret: Some(SecretValue::new(secret)),
            ..self
        }
    }

    /// Reads back what [`DesiredState::new`] wrote.
    ///
    /// # Errors
    /// Permanent: another version of Tidings wrote the state.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.state).map_err(|_| {
            Failure::permanent(
                Reason::Misconfigured,
                "another version of Tidings wrote the stored state; the next event replaces it",
            )
        })
    }
}

/// The state that a service has for a key before the first write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteState {
    /// The service has none, or can't be asked.
    Unknown,
    /// The service has the desired state.
    Same {
        /// The service's own id of the entry, if later writes need it.
        handle: Option<String>,
    },
    /// The service has another state.
    Other {
        /// The service's own id of the entry, if later writes need it.
        handle: Option<String>,
    },
}

/// The result of a call that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The service accepted it.
    Accepted {
        /// The HTTP status of the response.
        status: Option<u16>,
        /// The service's own id of the entry, if later writes need it.
        handle: Option<String>,
    },
    /// The type ignores this event, for the reason given. No call was made.
    Skipped(String),
}

impl Sent {
    /// Accepted with this status, without a handle.
    pub fn accepted(status: u16) -> Self {
        Self::Accepted {
            status: Some(status),
            handle: None,
        }
    }
}
