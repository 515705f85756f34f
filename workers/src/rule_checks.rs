//! The checks of rules that need the code of the provider types.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tidings_rules::template::Escape;
use tidings_rules::{ResolvedProvider, TypeChecks};
use url::Url;

use crate::attempt::PreparedProviders;
use crate::expression::check as expression_check;
use crate::expression::check_budget::CheckBudget;
use crate::http::HttpClients;
use crate::message::blocking::{run_blocking, wait_for};
use crate::message::template_check;
use crate::notifier::channel_check;

/// The most templates and expressions whose result is kept.
const MOST_TEXTS: usize = 2_000;
/// The most channels whose result is kept. Every Alert may have its own.
const MOST_CHANNELS: usize = 50_000;

/// Prepares Providers and renders templates, and sends nothing. Results are kept, so that a new
/// snapshot costs only what has changed.
pub struct RuleChecks {
    http_clients: HttpClients,
    providers: PreparedProviders,
    templates: Kept<TemplateKey, Vec<String>>,
    channels: Kept<ChannelKey, Option<String>>,
    expressions: Kept<ExpressionKey, Option<String>>,
    expression_budget: CheckBudget,
}

type TemplateKey = (String, Escape, BTreeMap<String, String>);
/// Namespace, name and fingerprint of the Provider, and the channel.
type ChannelKey = (String, String, String, String);
/// The expression, the Provider's manifest and the metadata.
type ExpressionKey = (String, String, BTreeMap<String, String>);

/// Results of checks.
struct Kept<K, T> {
    most: usize,
    results: Mutex<HashMap<K, T>>,
}

impl<K: Eq + Hash, T: Clone> Kept<K, T> {
    fn new(most: usize) -> Self {
        Self {
            most,
            results: Mutex::default(),
        }
    }

    /// The kept result, or that of the check.
    fn get(&self, key: K, check: impl FnOnce() -> T) -> T {
        if let Some(known) = self.known(&key) {
            return known;
        }
        let found = run_blocking(check);
        self.keep(key, found.clone());
        found
    }

    fn known(&self, key: &K) -> Option<T> {
        self.results.lock().get(key).cloned()
    }

    fn keep(&self, key: K, found: T) {
        let mut kept = self.results.lock();
        if kept.len() >= self.most {
            kept.clear();
        }
        kept.insert(key, found);
    }
}

impl RuleChecks {
    /// Checks that use these clients, for a process that has more to do than to check.
    pub fn new(http_clients: HttpClients) -> Self {
        Self::with_budget(http_clients, CheckBudget::of_a_role())
    }

    /// Checks that take as long as they need.
    pub fn unhurried(http_clients: HttpClients) -> Self {
        Self::with_budget(http_clients, CheckBudget::unlimited())
    }

    fn with_budget(http_clients: HttpClients, expression_budget: CheckBudget) -> Self {
        Self {
            providers: PreparedProviders::new(http_clients.clone()),
            http_clients,
            templates: Kept::new(MOST_TEXTS),
            channels: Kept::new(MOST_CHANNELS),
            expressions: Kept::new(MOST_TEXTS),
            expression_budget,
        }
    }
}

impl RuleChecks {
    /// The problem of an address that no attempt may connect to. Names are not resolved, because
    /// they may have other addresses later.
    fn refused(&self, provider: &ResolvedProvider) -> Option<String> {
        // Only `nats` has several addresses.
        let parsed = |address: &str| Url::parse(address.trim()).ok();
        let urls: Vec<Url> = match &provider.api_address {
            Some(api) => vec![api.clone()],
            None => provider.address.split(',').filter_map(parsed).collect(),
        };
        let rules = self.http_clients.rules();
        let refused = urls.iter().find_map(|url| rules.check_url(url).err())?;
        Some(format!(
            "the address {} is {}; correct it, or add it to worker.addresses.allow",
            refused.address, refused.rule
        ))
    }
}

impl TypeChecks for RuleChecks {
    fn check_provider(&self, provider: Arc<ResolvedProvider>) -> Result<(), String> {
        let prepared = self.providers.prepare(provider);
        let prepared = prepared.map_err(|failure| failure.detail)?;
        self.refused(&prepared.provider).map_or(Ok(()), Err)
    }

    fn check_channel(&self, provider: Arc<ResolvedProvider>, channel: &str) -> Result<(), String> {
        let ResolvedProvider {
            namespace,
            name,
            fingerprint,
            ..
        } = &*provider;
        let owned = [namespace, name, fingerprint].map(String::clone);
        let [namespace, name, fingerprint] = owned;
        let key = (namespace, name, fingerprint, channel.to_owned());
        let found = self
            .channels
            .get(key, || channel_check::check(&provider, channel));
        found.map_or(Ok(()), Err)
    }

    fn check_expression(
        &self,
        source: &str,
        manifest: &Value,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let key = (source.to_owned(), manifest.to_string(), metadata.clone());
        if let Some(known) = self.expressions.known(&key) {
            return known.map_or(Ok(()), Err);
        }
        let check = expression_check::check(source, manifest, metadata);
        let checked = wait_for(self.expression_budget.spend(check));
        let not_checked = match checked {
            Ok(Some(Ok(found))) => {
                self.expressions.keep(key, found.clone());
                return found.map_or(Ok(()), Err);
            }
            Ok(Some(Err(why))) => why.sentence(),
            Ok(None) => return Ok(()),
            Err(error) => error.to_string(),
        };
        // A role checks it with the next snapshot.
        match self.expression_budget.is_limited() {
            true => Ok(()),
            false => Err(not_checked),
        }
    }

    fn check_template(
        &self,
        source: &str,
        escape: Escape,
        metadata: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let key = (source.to_owned(), escape, metadata.clone());
        let check = || template_check::check(source, escape, metadata);
        self.templates.get(key, check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample::{provider, secret};
    use crate::notifier::sample::http_clients;

    #[test]
    fn an_address_that_attempts_may_not_use_is_found() {
        let checks = RuleChecks::new(http_clients());
        let checked = |kind: &'static str, address: &str, api: Option<&str>| {
            let provider = provider(kind, |provider| {
                let fingerprint = format!("{address} {api:?}");
                (provider.address, provider.fingerprint) = (address.into(), fingerprint);
                provider.api_address = api.and_then(|api| api.parse().ok());
                provider.secret = secret(&[("token", "t")]);
            });
            checks.check_provider(Arc::new(provider)).err()
        };
        for (kind, address) in [
            ("generic", "http://169.254.169.254/latest"),
            ("generic", "http://[fd00:ec2::254]/"),
            ("generic", "http://metadata.google.internal/"),
            ("nats", "nats://h:4222, nats://169.254.169.254:4222"),
        ] {
            let problem = checked(kind, address, None).unwrap_or_default();
            assert!(
                problem.contains("metadata service"),
                "{address}: {problem:?}"
            );
        }
        let repository = "https://gitlab.com/acme/deploy";
        assert!(checked("gitlab", repository, Some("http://169.254.169.254/")).is_some());
        assert_eq!(checked("gitlab", repository, None), None);
        assert_eq!(checked("generic", "http://10.0.0.1/", None), None);
    }
}
