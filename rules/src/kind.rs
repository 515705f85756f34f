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

/// Headers that HTTP itself computes. Go's client, and with it Flux, ignores the first four (RFC
/// 9110, sections 6.6.2, 7.2 and 8.6; RFC 9112, section 6). `accept-encoding` decides how the
/// response is decoded.
const HEADERS_OF_HTTP: &[&str] = &[
    "content-length",
    "host",
    "trailer",
    "transfer-encoding",
    "accept-encoding",
];

/// Headers that control the connection to the next server instead of describing the request (RFC
/// 9110, sections 7.6.1, 7.8 and 10.1; RFC 9113, section 8.2.2).
const HEADERS_OF_CONNECTION: &[&str] = &[
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "te",
    "upgrade",
];

/// Headers for the next proxy start with this.
const OF_PROXIES: &str = "proxy-";

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
        let ignored = HEADERS_OF_HTTP.iter().chain(self.own_headers);
        self.sends_headers && !contains(ignored, name) && !self.refuses_header(name)
    }

    /// Whether a Secret with this header is invalid, because the header controls the connection.
    pub fn refuses_header(&self, name: &str) -> bool {
        let start = name.get(..OF_PROXIES.len());
        let is_of_proxies = start.is_some_and(|start| start.eq_ignore_ascii_case(OF_PROXIES));
        self.sends_headers && (is_of_proxies || contains(HEADERS_OF_CONNECTION, name))
    }
}

fn contains<'a>(names: impl IntoIterator<Item = &'a &'a str>, name: &str) -> bool {
    names
        .into_iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

/// All types of this executable.
pub type Kinds = &'static [Kind];

/// Finds a type by name.
pub fn find(kinds: Kinds, name: &str) -> Option<Kind> {
    kinds.iter().copied().find(|kind| kind.name == name)
}
