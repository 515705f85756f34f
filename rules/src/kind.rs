//! The properties of provider types that rules need: the name, the family, which decides which
//! events a type accepts, and what a type reads from a Provider and its Secret.
//!
//! The table itself is in tidings-workers. The executable passes it in.

use tidings_core::model::destination::fingerprint;

/// Which events a provider type accepts, in addition to the criteria of the Alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Chats and queues: all events except those with `commit_status: update`.
    Message,
    /// Services where a failure opens an incident and a success resolves it: as `Message`.
    Incident,
    /// generic and generic-hmac: all events.
    Generic,
    /// Commit statuses: events with a commit.
    CommitStatus,
    /// Comments on change requests: events with a change request, except those with `commit_status:
    /// update`.
    ChangeRequest,
}

impl Family {
    /// Whether the types write the state of an object: a commit status or an incident.
    pub fn writes_states(self) -> bool {
        matches!(self, Self::CommitStatus | Self::Incident)
    }
}

/// A provider type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `spec.type` of the Provider.
    pub name: &'static str,
    /// Which events the type accepts.
    pub family: Family,
    /// The fields of the Provider's spec that only some types read and that this one reads.
    pub fields: &'static [&'static str],
    /// The keys of the Secret that the type reads. Others are ignored, with a warning.
    pub keys: &'static [&'static str],
    /// The key whose value is used as stored, with a line break at its end; empty for none.
    pub raw_key: &'static str,
    /// The key of the Secret that takes precedence over every channel. Channels of such a type are
    /// credentials. Empty for other types.
    pub channel_key: &'static str,
    /// Whether the key `headers` is sent with every request.
    pub sends_headers: bool,
    /// Headers that the type computes, in lower case. The Secret cannot replace them.
    pub own_headers: &'static [&'static str],
}

/// Headers that HTTP itself computes, or that belong to one connection (RFC 9110, sections 7.2, 7.6
/// and 8.6). `accept-encoding` is among them, because it decides how the response is decoded.
const HEADERS_OF_HTTP: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Kind {
    /// A type that reads no key.
    pub const fn new(name: &'static str, family: Family) -> Self {
        Self {
            name,
            family,
            fields: &[],
            keys: &[],
            raw_key: "",
            channel_key: "",
            sends_headers: false,
            own_headers: &[],
        }
    }

    /// Whether a channel of this type is a credential.
    pub fn has_secret_channel(&self) -> bool {
        !self.channel_key.is_empty()
    }

    /// A channel as everybody may see it: the fingerprint of a secret one.
    pub fn shown_channel(&self, channel: &str) -> String {
        if self.has_secret_channel() {
            fingerprint(channel)
        } else {
            channel.to_owned()
        }
    }

    /// Whether the type reads this key of the Secret.
    pub fn reads(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    /// Whether a header of the Secret is sent. Neither HTTP nor the type computes it.
    pub fn accepts_header(&self, name: &str) -> bool {
        let is_it = |other: &&str| name.eq_ignore_ascii_case(other);
        self.sends_headers && !HEADERS_OF_HTTP.iter().chain(self.own_headers).any(is_it)
    }
}

/// All types of this executable.
pub type Kinds = &'static [Kind];

/// Finds a type by name.
pub fn find(kinds: Kinds, name: &str) -> Option<Kind> {
    kinds.iter().copied().find(|kind| kind.name == name)
}
