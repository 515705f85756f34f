//! One file for each provider type, and the table of them all.
//!
//! A notifier sends once. It never sleeps, loops, retries or logs: what an answer means is told in a [`Failure`], and
//! when to try again is decided elsewhere.

use std::sync::LazyLock;

use async_trait::async_trait;
use tidings_core::Failure;
use tidings_rules::{Family, Kind, Kinds, ResolvedProvider};

use crate::http::Http;
use crate::notification::Notification;
use need::Need;

mod alertmanager;
mod azuredevops;
mod azureeventhub;
mod bitbucket;
mod bitbucketserver;
mod datadog;
mod discord;
mod fit;
pub(crate) mod forge;
mod generic;
mod generic_hmac;
mod gitea;
mod giteapullrequestcomment;
mod github;
mod githubdispatch;
mod githubpullrequestcomment;
mod gitlab;
mod gitlabmergerequestcomment;
mod googlechat;
mod googlepubsub;
mod grafana;
mod incident_io;
mod lark;
mod matrix;
mod msteams;
mod nats;
pub mod need;
mod opsgenie;
mod otel;
mod pagerduty;
mod rocket;
#[cfg(test)]
pub(crate) mod sample;
mod sentry;
mod slack;
mod slack_form;
mod telegram;
mod webex;
mod zoom;
mod zulip;

/// All provider types. The CRD's enum, help texts, consumers and contract tests derive from this table.
pub const PROVIDERS: &[&ProviderType] = &[
    &alertmanager::TYPE,
    &azuredevops::TYPE,
    &azureeventhub::TYPE,
    &bitbucket::TYPE,
    &bitbucketserver::TYPE,
    &datadog::TYPE,
    &discord::TYPE,
    &generic::TYPE,
    &generic_hmac::TYPE,
    &gitea::TYPE,
    &giteapullrequestcomment::TYPE,
    &github::TYPE,
    &githubdispatch::TYPE,
    &githubpullrequestcomment::TYPE,
    &gitlab::TYPE,
    &gitlabmergerequestcomment::TYPE,
    &googlechat::TYPE,
    &googlepubsub::TYPE,
    &grafana::TYPE,
    &incident_io::TYPE,
    &lark::TYPE,
    &matrix::TYPE,
    &msteams::TYPE,
    &nats::TYPE,
    &opsgenie::TYPE,
    &otel::TYPE,
    &pagerduty::TYPE,
    &rocket::TYPE,
    &sentry::TYPE,
    &slack::TYPE,
    &telegram::TYPE,
    &webex::TYPE,
    &zoom::TYPE,
    &zulip::TYPE,
];

/// The table as rules know it.
pub fn kinds() -> Kinds {
    static KINDS: LazyLock<Vec<Kind>> =
        LazyLock::new(|| PROVIDERS.iter().map(|row| Kind { name: row.kind, family: row.family }).collect());
    &KINDS
}

/// The host of a forge's Provider; empty where its address names none.
pub(crate) fn repository_host(provider: &ResolvedProvider) -> String {
    forge::address::repository(provider).map(|repository| repository.host().to_owned()).unwrap_or_default()
}

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
    /// Where long texts are cut, in characters unless said otherwise, because the service would refuse more; empty: nowhere.
    pub limits: &'static str,
    /// What becomes there of a delivery that is made twice.
    pub again: &'static str,
    /// Checks address and credentials, and makes the notifier. The sentence of a refusal names the field or key.
    pub build: fn(&ResolvedProvider, Http) -> Result<Notifier, Invalid>,
}

/// A Provider that can't be used as it is: a sentence that names the field or key and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl From<String> for Invalid {
    fn from(sentence: String) -> Self {
        Self(sentence)
    }
}

impl From<&str> for Invalid {
    fn from(sentence: &str) -> Self {
        Self(sentence.to_owned())
    }
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
    async fn send(&self, notification: &Notification<'_>) -> Result<Sent, Failure>;
}

/// A notifier that keeps one state for each key at its service.
///
/// The state that is written may come from another delivery of the same key than the one at hand: so all that `write`
/// needs is in [`Desired::state`].
#[async_trait]
pub trait KeepState: Send + Sync {
    /// Asks what must be known of the service before states can be told: its version, who we are there. Answers are
    /// remembered, so most calls ask nothing. It goes before the first read or write.
    ///
    /// # Errors
    /// The service could not be asked, or can't be used.
    async fn prepare(&self, _notification: &Notification<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// The key and the state that a notification asks for; nothing where the type has nothing to say about it.
    ///
    /// # Errors
    /// The event or the Provider asks for nothing that can be told. It makes no call.
    fn desire(&self, notification: &Notification<'_>) -> Result<Option<Desired>, Failure>;

    /// Whether a write without the service's own id of what is there makes a second one: then the service is read whenever
    /// the id is not known.
    fn needs_handle(&self) -> bool {
        false
    }

    /// Asks the service what it holds for the key, where it can be asked.
    async fn read(&self, desired: &Desired) -> Result<Held, Failure>;

    /// Writes the state once. `handle` is the service's own id of what is to be changed, where one is known.
    async fn write(&self, desired: &Desired, handle: Option<&str>) -> Result<Sent, Failure>;
}

/// A state that a key should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Names what the state is of, for people: service, repository, commit, context. Equal keys are one record,
    /// whichever Provider they come from. No secrets.
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
        Self::Accepted { status: Some(status), handle: None }
    }
}
