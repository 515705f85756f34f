//! The Providers and templates that a worker uses.

use std::sync::Arc;

use tidings_core::Delivery;
use tidings_rules::live::LiveRules;
use tidings_rules::{ResolvedProvider, Rules, Template, Unresolved};

use crate::worker::report::reference;

/// Reads Providers and templates. Each attempt reads their current settings.
pub trait Providers: Send + Sync + 'static {
    /// The Provider of a delivery with its Secrets.
    ///
    /// # Errors
    /// The Provider is missing, invalid or suspended, or it is not shared with the namespace of the
    /// delivery's Alert.
    fn resolve(&self, delivery: &Delivery) -> Result<Arc<ResolvedProvider>, Unresolved>;

    /// The source of a delivery's template: the one that its Alert names, else its Provider's.
    ///
    /// # Errors
    /// The ConfigMap is missing, or has no such key.
    fn template(&self, delivery: &Delivery) -> Result<Option<String>, Unresolved>;

    /// The channel of a delivery's Alert as it is now; `None` if there is no such Alert.
    fn channel(&self, delivery: &Delivery) -> Option<String>;

    /// Whether the first complete set of rules is loaded.
    fn are_loaded(&self) -> bool;
}

impl Providers for LiveRules {
    fn resolve(&self, delivery: &Delivery) -> Result<Arc<ResolvedProvider>, Unresolved> {
        resolve(&self.current(), delivery)
    }

    fn template(&self, delivery: &Delivery) -> Result<Option<String>, Unresolved> {
        template(&self.current(), delivery)
    }

    fn channel(&self, delivery: &Delivery) -> Option<String> {
        channel(&self.current(), delivery)
    }

    fn are_loaded(&self) -> bool {
        self.loaded()
    }
}

/// The Provider of a delivery in these rules; see [`Providers::resolve`].
///
/// # Errors
/// The Provider cannot be used.
pub fn resolve(rules: &Rules, delivery: &Delivery) -> Result<Arc<ResolvedProvider>, Unresolved> {
    let provider = reference(delivery);
    let alert = delivery.alert.as_ref();
    let from = alert.map_or(provider.namespace.as_str(), |alert| &alert.namespace);
    rules.resolve_for(from, &provider.namespace, &provider.name)
}

/// The channel of a delivery's Alert in these rules; `None` if there is no such Alert.
pub fn channel(rules: &Rules, delivery: &Delivery) -> Option<String> {
    let alert = delivery.alert.as_ref()?;
    let alert = rules.alert(&alert.namespace, &alert.name)?;
    Some(alert.channel.clone())
}

/// The source of a delivery's template in these rules; see [`Providers::template`].
///
/// # Errors
/// The ConfigMap is missing, or has no such key.
pub fn template(rules: &Rules, delivery: &Delivery) -> Result<Option<String>, Unresolved> {
    let provider = reference(delivery);
    let alert = delivery.alert.as_ref();
    let namespace = alert.map_or(provider.namespace.as_str(), |alert| &alert.namespace);
    let own = delivery.template.as_ref().map(Template::of);
    let named = (provider.namespace.as_str(), provider.name.as_str());
    rules.template_for(namespace, own.as_ref(), named)
}
