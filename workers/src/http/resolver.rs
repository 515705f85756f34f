//! Resolves names to allowed addresses only. The client connects to exactly what was checked.

use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use crate::http::address_rules::AddressRules;

/// Resolves names for one client.
pub struct CheckedResolver {
    rules: Arc<AddressRules>,
    /// The hosts of the client's proxies. They may have any address.
    proxies: Vec<String>,
}

impl CheckedResolver {
    /// A resolver for a client with these proxies.
    pub fn new(rules: &Arc<AddressRules>, proxies: Vec<String>) -> Self {
        Self {
            rules: rules.clone(),
            proxies,
        }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules =
            (!self.proxies.iter().any(|proxy| proxy == name.as_str())).then(|| self.rules.clone());
        Box::pin(async move {
            // The caller sets the port.
            let found = lookup_host((name.as_str(), 0)).await?;
            let addresses: Addrs = match rules {
                Some(rules) => Box::new(rules.admit(name.as_str(), found)?.into_iter()),
                None => Box::new(found.collect::<Vec<_>>().into_iter()),
            };
            Ok(addresses)
        })
    }
}
