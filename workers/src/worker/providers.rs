//! Where a worker finds Providers.

use std::sync::Arc;

use tidings_core::Delivery;
use tidings_rules::live::LiveRules;
use tidings_rules::{ResolvedProvider, Rules, Template, Unresolved};

/// Where a worker finds Providers at the moment of an attempt.
pub trait Providers: Send + Sync + 'static {
    /// The Provider with its Secrets as they are now.
    ///
    /// # Errors
    /// It can't be used now: missing, invalid or suspended.
    fn resolve(&self, namespace: &str, name: &str) -> Result<Arc<ResolvedProvider>, Unresolved>;

    /// The text of the template for a delivery, as it is now: the one that it carries, else its
    /// Provider's.
    ///
    /// # Errors
    /// There is no such ConfigMap, or no such key in it.
    fn template(&self, delivery: &Delivery) -> Result<Option<String>, Unresolved>;

    /// Whether there is a first complete set of rules.
    fn are_loaded(&self) -> bool;
}

impl Providers for LiveRules {
    fn resolve(&self, namespace: &str, name: &str) -> Result<Arc<ResolvedProvider>, Unresolved> {
        self.current().resolve(namespace, name)
    }

    fn template(&self, delivery: &Delivery) -> Result<Option<String>, Unresolved> {
        template(&self.current(), delivery)
    }

    fn are_loaded(&self) -> bool {
        self.loaded()
    }
}

/// The text of the template for a delivery by these rules; see [`Providers::template`].
///
/// # Errors
/// There is no such ConfigMap, or no such key in it.
pub fn template(rules: &Rules, delivery: &Delivery) -> Result<Option<String>, Unresolved> {
    let provider = delivery.provider.as_ref();
    let (namespace, name) = provider.map_or(("", ""), |provider| {
        (provider.namespace.as_str(), provider.name.as_str())
    });
    rules.template_for(
        namespace,
        delivery.template.as_ref().map(Template::of).as_ref(),
        name,
    )
}
