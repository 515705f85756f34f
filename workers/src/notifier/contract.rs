//! What every provider type implements: its row in the table of types, and the code that sends.
//!
//! A notifier sends once. It never sleeps, loops, retries or logs. It reports what an answer means
//! in a [`Failure`]; the worker decides when to try again.

pub mod need;

use async_trait::async_trait;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::Message;
use need::Need;

/// One row of [`PROVIDERS`].
pub struct ProviderType {
    /// `spec.type`.
    pub kind: &'static str,
    /// Which events it takes.
    pub family: Family,
    /// What it is, in a few words, for people.
    pub summary: &'static str,
    /// What it needs: fields of the Provider and keys of its Secret.
    pub needs: &'static [Need],
    /// Where long texts are cut, in characters unless said otherwise, because the service would
    /// refuse more; empty: nowhere.
    pub limits: &'static str,
    /// What becomes there of a delivery that is made twice.
    pub again: &'static str,
    /// Checks address and credentials, and makes the notifier. The sentence of a refusal names the
    /// field or key.
    pub build: fn(&ResolvedProvider, Http) -> Result<Notifier, Invalid>,
}

/// The code for one provider type, made for one Provider.
pub enum Notifier {
    /// Each delivery is a message of its own.
    Message(Box<dyn SendMessage>),
    /// Only the newest state of a key counts: commit statuses, comments, incidents.
    State(Box<dyn KeepState>),
}

/// A notifier whose deliveries stand for themselves.
#[async_trait]
pub trait SendMessage: Send + Sync {
    /// Sends it once.
    ///
    /// # Errors
    /// The failure says whether another attempt can help.
    async fn send(&self, notification: &Message<'_>) -> Result<Sent, Failure>;
}

/// A notifier that keeps one state for each key at its service.
///
/// The state that is written may come from another delivery of the same key than the one at hand:
/// so all that `write` needs is in [`Desired::state`].
#[async_trait]
pub trait KeepState: Send + Sync {
    /// Asks what must be known of the service before states can be told: its version, who we are
    /// there. Answers are remembered, so most calls ask nothing. It goes before the first read
    /// or write.
    ///
    /// # Errors
    /// The service could not be asked, or can't be used.
    async fn prepare(&self, _notification: &Message<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// The key and the state that a notification asks for; nothing where the type has nothing to
    /// say about it.
    ///
    /// # Errors
    /// The event or the Provider asks for nothing that can be told. It makes no call.
    fn desire(&self, notification: &Message<'_>) -> Result<Option<Desired>, Failure>;

    /// Whether a write without the service's own id of what is there makes a second one: then the
    /// service is read whenever the id is not known.
    fn needs_handle(&self) -> bool {
        false
    }

    /// Asks the service what it holds for the key, where it can be asked.
    async fn read(&self, desired: &Desired) -> Result<Held, Failure>;

    /// Writes the state once. `handle` is the service's own id of what is to be changed, where one
    /// is known.
    async fn write(&self, desired: &Desired, handle: Option<&str>) -> Result<Sent, Failure>;
}

/// A state that a key should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Names what the state is of, for people: service, repository, commit, context. Equal keys
    /// are one record, whichever Provider they come from. No secrets.
    pub key: String,
    /// The state, in the notifier's own form. Equal bytes are the same state. No secrets.
    pub state: Vec<u8>,
}

/// What a service holds for a key before the first write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing, or it can't be asked.
    Unknown,
    /// The desired state already.
    Same {
        /// The service's own id of it, where later writes need it.
        handle: Option<String>,
    },
    /// Another state.
    Other {
        /// The service's own id of it, where later writes need it.
        handle: Option<String>,
    },
}

/// The service has accepted it, or there was nothing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was accepted.
    Accepted {
        /// The HTTP status of the answer.
        status: Option<u16>,
        /// The service's own id of what was written, where later writes need it.
        handle: Option<String>,
    },
    /// The type has nothing to say about this event; no call was made. The sentence says why.
    Skipped(String),
}

impl Sent {
    /// Accepted, with nothing to remember.
    pub fn accepted(status: u16) -> Self {
        Self::Accepted {
            status: Some(status),
            handle: None,
        }
    }
}
