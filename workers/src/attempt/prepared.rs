//! Providers with their notifiers, cached until they change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::model::destination::{fingerprint, is_fingerprint};
use tidings_core::model::metadata::of_delivery;
use tidings_core::{AlertReference, Delivery, Event, Failure, Reason};
use tidings_rules::ResolvedProvider;
use tokio::time::Instant;

use crate::http::invalid::Invalid;
use crate::http::redact::Redactor;
use crate::http::{Http, HttpClients, LONGEST_DETAIL};
use crate::message::Message;
use crate::message::mentions::EventTexts;
use crate::message::render::RenderedMessage;
use crate::notifier::contract::{Notifier, ProviderType};
use crate::notifier::provider_type;
use crate::text::cut_chars;

/// A notifier that has not been used for this long is dropped when another one is built.
const UNUSED_FOR: Duration = Duration::from_secs(3600);
/// The part of a detail that is searched for secrets, in characters.
const SEARCHED_DETAIL: usize = 4 * LONGEST_DETAIL;

/// A Provider and the notifier that was built for it.
pub struct Prepared {
    /// The Provider with its Secrets.
    pub provider: Arc<ResolvedProvider>,
    /// Its type's row in the table of types.
    pub provider_type: &'static ProviderType,
    /// The code that sends.
    pub notifier: Notifier,
    /// Removes its secrets from texts.
    pub redactor: Redactor,
}

/// Builds the notifier of a Provider.
///
/// # Errors
/// A sentence that names the wrong field or key; secrets are redacted.
pub fn prepare(
    provider: Arc<ResolvedProvider>,
    http: impl FnOnce(&ResolvedProvider) -> Result<Http, Invalid>,
) -> Result<Prepared, Invalid> {
    let redactor = Redactor::new(&provider);
    let row = provider_type(provider.kind.name)
        .ok_or_else(|| Invalid(format!("unknown type {}", provider.kind.name)))?;
    let built = http(&provider).and_then(|http| {
        let http = http.with_headers_of(&provider);
        (row.build)(&provider, http.confirmed_by(row.confirmation))
    });
    let notifier = built.map_err(|Invalid(sentence)| Invalid(redactor.redact(&sentence)))?;
    Ok(Prepared {
        provider,
        provider_type: row,
        notifier,
        redactor,
    })
}

// === impl Prepared ===

impl Prepared {
    /// Removes the secrets from a failure, and cuts its detail: a service may answer anything.
    pub fn redacted(&self, failure: Failure) -> Failure {
        // Redaction takes long for a long text. It recognizes a secret that was cut.
        let detail = cut_chars(&failure.detail, SEARCHED_DETAIL);
        Failure {
            detail: cut_chars(&self.redactor.redact(&detail), LONGEST_DETAIL),
            ..failure
        }
    }

    /// The texts of a delivery for this Provider. Those of the event mention nobody.
    pub fn texts<'a>(&self, delivery: &'a Delivery, event: &'a Event) -> EventTexts<'a> {
        EventTexts::new(self.provider_type, event, of_delivery(delivery, event))
    }

    /// The message of a delivery for this Provider, in the standard form.
    pub fn message<'a>(
        &'a self,
        delivery: &'a Delivery,
        texts: &'a EventTexts<'_>,
        alert: &'a AlertReference,
    ) -> Message<'a> {
        let channel = match (self.provider.secret_channel(), delivery.channel.as_str()) {
            (Some(channel), _) => channel,
            (None, "") => &self.provider.channel,
            (None, planned) => planned,
        };
        Message {
            delivery_id: &delivery.id,
            event: &texts.event,
            object: &texts.object,
            metadata: &texts.metadata,
            alert,
            channel,
            own_mentions: &texts.own,
            rendered: RenderedMessage::STANDARD,
            former_clusters: &[],
        }
    }
}

/// The channel that stands for a fingerprint in a delivery: the Alert's as it is now, else the
/// Provider's if it is the same one. `None` if the message has no fingerprint.
///
/// # Errors
/// Transient: the channel is not known, because the Alert was deleted or changed.
pub fn revealed_channel(
    message: &Message<'_>,
    provider: &ResolvedProvider,
    of_alert: impl FnOnce() -> Option<String>,
) -> Result<Option<String>, Failure> {
    if !is_fingerprint(message.channel) {
        return Ok(None);
    }
    let of_provider = || {
        let is_it = fingerprint(&provider.channel) == message.channel;
        is_it.then(|| provider.channel.clone())
    };
    of_alert()
        .filter(|channel| !channel.is_empty())
        .or_else(of_provider)
        .map(Some)
        .ok_or_else(|| {
            let (namespace, name) = (&message.alert.namespace, &message.alert.name);
            let detail = format!(
                "Alert {namespace}/{name}: spec.channel not found, and the delivery only has its \
                 fingerprint {}; set the channel again",
                message.channel
            );
            Failure::transient(Reason::Missing, detail)
        })
}

/// Prepared Providers, rebuilt when a Provider or one of its Secrets changes.
pub struct PreparedProviders {
    http_clients: HttpClients,
    prepared: Mutex<HashMap<ProviderName, (Arc<Prepared>, LastUsed)>>,
}

type ProviderName = (String, String);
type LastUsed = Instant;

impl PreparedProviders {
    /// An empty cache.
    pub fn new(http_clients: HttpClients) -> Self {
        Self {
            http_clients,
            prepared: Mutex::default(),
        }
    }

    /// The Provider with its notifier, built for its current settings and Secrets.
    ///
    /// # Errors
    /// A permanent failure: the Provider is misconfigured.
    pub fn prepare(&self, provider: Arc<ResolvedProvider>) -> Result<Arc<Prepared>, Failure> {
        let name = (provider.namespace.clone(), provider.name.clone());
        if let Some((prepared, last_used)) = self.prepared.lock().get_mut(&name)
            && prepared.provider.fingerprint == provider.fingerprint
        {
            *last_used = Instant::now();
            return Ok(prepared.clone());
        }
        let prepared = prepare(provider, |provider| Http::new(provider, &self.http_clients))
            .map_err(|Invalid(sentence)| Failure::permanent(Reason::Misconfigured, sentence))?;
        let prepared = Arc::new(prepared);
        let mut all = self.prepared.lock();
        // The Providers of unused notifiers may be deleted.
        all.retain(|_, (_, last_used)| last_used.elapsed() < UNUSED_FOR);
        all.insert(name, (prepared.clone(), Instant::now()));
        Ok(prepared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{Sample, http_clients, provider};

    fn named(name: &str, fingerprint: &str) -> Arc<ResolvedProvider> {
        Arc::new(provider("generic", |provider| {
            (provider.name, provider.fingerprint) = (name.into(), fingerprint.into())
        }))
    }

    #[test]
    fn the_detail_of_any_service_is_short() {
        let prepared = prepare(named("a", "1"), |provider| {
            Http::new(provider, &http_clients())
        });
        let failure = Failure::transient(Reason::Rejected, "x".repeat(9 << 20));
        let detail = prepared.unwrap().redacted(failure).detail;
        assert_eq!(detail.chars().count(), LONGEST_DETAIL);
    }

    #[test]
    fn a_fingerprint_stands_for_the_channel_that_the_alert_has_now() {
        let planned = fingerprint("planned");
        let reveal = |channel: &str, of_provider: &str, of_alert: Option<&str>| {
            let mut sample = Sample::info();
            sample.channel = channel.into();
            let provider = provider("pagerduty", |provider| {
                provider.channel = of_provider.into()
            });
            revealed_channel(&sample.message(), &provider, || of_alert.map(str::to_owned))
                .map_err(|failure| failure.reason)
        };
        assert_eq!(reveal("#general", "", Some("new")), Ok(None));
        assert_eq!(
            reveal(&planned, "planned", Some("new")),
            Ok(Some("new".into()))
        );
        for of_alert in [None, Some("")] {
            assert_eq!(
                reveal(&planned, "planned", of_alert),
                Ok(Some("planned".into()))
            );
            assert_eq!(reveal(&planned, "other", of_alert), Err(Reason::Missing));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_notifier_is_cached_while_its_provider_is_unchanged_and_used() {
        let providers = PreparedProviders::new(http_clients());
        let prepare = |name, fingerprint| {
            providers
                .prepare(named(name, fingerprint))
                .expect("the provider is valid")
        };
        let first = prepare("hook", "1");
        prepare("deleted", "1");
        tokio::time::advance(UNUSED_FOR / 2).await;
        assert!(Arc::ptr_eq(&first, &prepare("hook", "1")));
        tokio::time::advance(UNUSED_FOR / 2).await;
        prepare("other", "1");
        assert!(Arc::ptr_eq(&first, &prepare("hook", "1")), "it was used");
        let deleted = ("apps".to_owned(), "deleted".to_owned());
        assert!(
            !providers.prepared.lock().contains_key(&deleted),
            "it was not used"
        );
        assert!(
            !Arc::ptr_eq(&first, &prepare("hook", "2")),
            "the provider has changed"
        );
        assert_eq!(providers.prepared.lock().len(), 2);
    }
}
