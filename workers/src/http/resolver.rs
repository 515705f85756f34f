//! Looks up names, and gives only addresses that may be connected to: what is checked is what is
//! connected to.

use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use crate::http::address_rules::AddressRules;

/// Looks up names for one client.
pub struct CheckedResolver {
    rules: Arc<AddressRules>,
    /// Hosts of the client's proxies: whoever set them up may have them anywhere.
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
            // The port is set by the one who asks.
            let found = lookup_host((name.as_str(), 0)).await?;
            let addresses: Addrs = match rules {
                Some(rules) => Box::new(rules.admit(name.as_str(), found)?.into_iter()),
                None => Box::new(found.collect::<Vec<_>>().into_iter()),
            };
            Ok(addresses)
        })
    }
}
