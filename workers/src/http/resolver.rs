//! Resolves names to allowed addresses only. The client connects to exactly what was checked.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use tokio::time::timeout;
use url::{Host, Url};

use crate::http::address_rules::{AddressRules, Refused};

/// How long to wait for addresses that are only checked.
const LONGEST_LOOKUP: Duration = Duration::from_secs(2);
/// A name without an answer in that time is not looked up again for this long.
const UNANSWERED_FOR: Duration = Duration::from_secs(60);
/// The most names without an answer that are remembered.
const MOST_UNANSWERED: usize = 1000;

/// Names that were looked up without an answer in time.
static UNANSWERED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// Resolves names for one client.
pub struct CheckedResolver {
    rules: Arc<AddressRules>,
    /// The hosts of the environment's proxies. They may have any address, because the operator
    /// chose them.
    exempt: Vec<String>,
}

impl CheckedResolver {
    /// A resolver that refuses nothing for these hosts.
    pub fn new(rules: &Arc<AddressRules>, exempt: Vec<String>) -> Self {
        Self {
            rules: rules.clone(),
            exempt,
        }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules =
            (!self.exempt.iter().any(|host| host == name.as_str())).then(|| self.rules.clone());
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

/// Checks the host of a URL: an address in it, or the addresses of its name. A name that is unknown
/// here is allowed: often only a proxy knows it.
///
/// # Errors
/// The rules refuse the address, or all addresses that the name has here.
pub async fn check_host(rules: &AddressRules, url: &Url) -> Result<(), Refused> {
    rules.check_url(url)?;
    let Some(Host::Domain(name)) = url.host() else {
        return Ok(());
    };
    let last = UNANSWERED.lock().get(name).copied();
    if last.is_some_and(|last| last.elapsed() < UNANSWERED_FOR) {
        return Ok(());
    }
    match timeout(LONGEST_LOOKUP, lookup_host((name, 0))).await {
        Ok(Ok(found)) => rules.admit(name, found).map(|_| ()),
        Ok(Err(_)) => Ok(()),
        Err(_) => {
            remember_unanswered(name);
            Ok(())
        }
    }
}

fn remember_unanswered(name: &str) {
    let mut unanswered = UNANSWERED.lock();
    if unanswered.len() >= MOST_UNANSWERED {
        unanswered.clear();
    }
    unanswered.insert(name.to_owned(), Instant::now());
}
