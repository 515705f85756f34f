//! One attempt: a Provider made ready, a notification told to it, and what came of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::{Failure, Outcome, Reason};
use tidings_rules::ResolvedProvider;
use tokio::time::Instant;

use crate::http::invalid::Invalid;
use crate::http::redact::Redactor;
use crate::http::{Http, HttpClients};
use crate::message::Message;
use crate::notifier::contract::{KeepState, Notifier, ProviderType, RemoteState, Sent};
use crate::notifier::provider_type;

/// A notifier that nobody asks for is forgotten when another is built after this long.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// A Provider whose notifier is built.
pub struct Prepared {
    /// The Provider it was built from.
    pub provider: Arc<ResolvedProvider>,
    /// The row of its type.
    pub provider_type: &'static ProviderType,
    /// The code of its type.
    pub notifier: Notifier,
    /// Knows its secrets.
    pub redactor: Redactor,
}

/// How an attempt ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Delivered, duplicate, superseded or skipped.
    pub outcome: Outcome,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// A sentence, where there is something to say.
    pub detail: String,
}

impl Ended {
    /// An end without an answer.
    pub fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            status: None,
            detail: detail.into(),
        }
    }
}

impl From<Sent> for Ended {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Accepted { status, .. } => Self {
                outcome: Outcome::Delivered,
                status,
                detail: String::new(),
            },
            Sent::Skipped(why) => Self::new(Outcome::Skipped, why),
        }
    }
}

/// Builds the notifier of a Provider.
///
/// # Errors
/// A sentence that names the field or key that is wrong; secrets are redacted.
pub fn prepare(
    provider: Arc<ResolvedProvider>,
    http: impl FnOnce(&ResolvedProvider) -> Result<Http, Invalid>,
) -> Result<Prepared, Invalid> {
    let redactor = Redactor::new(&provider);
    let row = provider_type(provider.kind.name)
        .ok_or_else(|| Invalid(format!("unknown type {}", provider.kind.name)))?;
    let built = http(&provider).and_then(|http| (row.build)(&provider, http));
    let notifier = built.map_err(|Invalid(sentence)| Invalid(redactor.redact(&sentence)))?;
    Ok(Prepared {
        provider,
        provider_type: row,
        notifier,
        redactor,
    })
}

impl Prepared {
    /// Takes the secrets out of a failure.
    pub fn redacted(&self, failure: Failure) -> Failure {
        Failure {
            detail: self.redactor.redact(&failure.detail),
            ..failure
        }
    }
}

/// Makes one attempt without any memory of earlier ones: what a state's service holds is asked for
/// first.
///
/// # Errors
/// The failure, without secrets.
pub async fn attempt_once(
    prepared: &Prepared,
    notification: &Message<'_>,
) -> Result<Ended, Failure> {
    let ended = match &prepared.notifier {
        Notifier::Message(notifier) => notifier.send(notification).await.map(Ended::from),
        Notifier::State(notifier) => keep_once(notifier.as_ref(), notification).await,
    };
    ended.map_err(|failure| prepared.redacted(failure))
}

async fn keep_once(notifier: &dyn KeepState, notification: &Message<'_>) -> Result<Ended, Failure> {
    notifier.prepare(notification).await?;
    let Some(desired) = notifier.desire(notification)? else {
        return Ok(nothing_to_say());
    };
    let handle = match notifier.read(&desired).await? {
        RemoteState::Same { .. } => {
            return Ok(Ended::new(
                Outcome::Duplicate,
                "the service has this state already",
            ));
        }
        RemoteState::Other { handle } => handle,
        RemoteState::Unknown => None,
    };
    notifier
        .write(&desired, handle.as_deref())
        .await
        .map(Ended::from)
}

/// The end of an event that the type has nothing to say about.
pub fn nothing_to_say() -> Ended {
    Ended::new(
        Outcome::Skipped,
        "the provider type has nothing to say about this event",
    )
}

/// Notifiers that are built, by Provider; built anew when the Provider or its Secrets change.
pub struct Notifiers {
    http_clients: HttpClients,
    built: Mutex<Built>,
}

/// By namespace and name, with the time at which each was asked for last.
type Built = HashMap<(String, String), (Arc<Prepared>, Instant)>;

impl Notifiers {
    /// Starts without any.
    pub fn new(http_clients: HttpClients) -> Self {
        Self {
            http_clients,
            built: Mutex::default(),
        }
    }

    /// The notifier of a Provider as it is now.
    ///
    /// # Errors
    /// The Provider can't be used: a permanent failure.
    pub fn prepare(&self, provider: Arc<ResolvedProvider>) -> Result<Arc<Prepared>, Failure> {
        let name = (provider.namespace.clone(), provider.name.clone());
        if let Some((prepared, asked)) = self.built.lock().get_mut(&name)
            && prepared.provider.fingerprint == provider.fingerprint
        {
            *asked = Instant::now();
            return Ok(prepared.clone());
        }
        let prepared = prepare(provider, |provider| Http::new(provider, &self.http_clients))
            .map_err(|Invalid(sentence)| Failure::permanent(Reason::Misconfigured, sentence))?;
        let prepared = Arc::new(prepared);
        let mut built = self.built.lock();
        // Their Providers may be gone.
        built.retain(|_, (_, asked)| asked.elapsed() < KEPT_FOR);
        built.insert(name, (prepared.clone(), Instant::now()));
        Ok(prepared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{http_clients, provider};

    fn named(name: &str, fingerprint: &str) -> Arc<ResolvedProvider> {
        Arc::new(provider("generic", |provider| {
            (provider.name, provider.fingerprint) = (name.into(), fingerprint.into())
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_notifier_is_kept_for_as_long_as_its_provider_is_the_same_and_asked_for() {
        let notifiers = Notifiers::new(http_clients());
        let prepare = |name, fingerprint| {
            notifiers
                .prepare(named(name, fingerprint))
                .expect("it can be used")
        };
        let first = prepare("hook", "1");
        prepare("gone", "1");
        tokio::time::advance(KEPT_FOR / 2).await;
        assert!(Arc::ptr_eq(&first, &prepare("hook", "1")));
        tokio::time::advance(KEPT_FOR / 2).await;
        prepare("other", "1");
        assert!(
            Arc::ptr_eq(&first, &prepare("hook", "1")),
            "it was asked for"
        );
        assert!(
            !notifiers
                .built
                .lock()
                .contains_key(&("apps".to_owned(), "gone".to_owned())),
            "nobody asks for it"
        );
        assert!(
            !Arc::ptr_eq(&first, &prepare("hook", "2")),
            "the Provider has changed"
        );
        assert_eq!(notifiers.built.lock().len(), 2);
    }
}
