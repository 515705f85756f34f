//! What the API server says of Alerts and Providers beside what users wrote: for whoever writes
//! their status.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::discovery::Capabilities;
use crate::object::Identity;

/// The newest that the API server said of each Alert and Provider, and of itself.
///
/// # Guarantees
/// It is newer than the rules or as new: a write that changes only the status shows here and makes
/// no new rules.
#[derive(Debug, Default)]
pub struct Catalog {
    seen: Mutex<HashMap<Identity, Arc<Seen>>>,
    capabilities: Mutex<Option<Arc<Capabilities>>>,
    lists: watch::Sender<u64>,
}

/// The newest that the API server said of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The version that it was read in.
    pub api_version: String,
    /// Its uid.
    pub uid: String,
    /// How often its spec has changed.
    pub generation: Option<i64>,
    /// The state that was seen.
    pub resource_version: String,
    /// Its status; null where it has none.
    pub status: Value,
}

impl Catalog {
    /// The newest of an object; nothing while it is not there.
    pub fn seen(&self, identity: &Identity) -> Option<Arc<Seen>> {
        self.seen.lock().get(identity).cloned()
    }

    /// How Alerts and Providers are served; nothing before the API server has been asked.
    pub fn capabilities(&self) -> Option<Arc<Capabilities>> {
        self.capabilities.lock().clone()
    }

    /// Notes how they are served.
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        *self.capabilities.lock() = Some(Arc::new(capabilities));
    }

    /// Notes what was said of an object.
    pub fn put(&self, identity: Identity, seen: Seen) {
        self.seen.lock().insert(identity, Arc::new(seen));
    }

    /// Notes that a list is over: what was noted of its objects owes nothing to what was known
    /// before.
    pub fn listed(&self) {
        self.lists.send_modify(|lists| *lists += 1);
    }

    /// Changes with each list. A status can be another than the one that was last written without
    /// anybody's writing it: the CRDs have changed, or the API server has gone back to an
    /// earlier state. Both begin with a list.
    pub fn lists(&self) -> watch::Receiver<u64> {
        self.lists.subscribe()
    }

    /// Notes that an object is gone.
    pub fn remove(&self, identity: &Identity) {
        self.seen.lock().remove(identity);
    }
}
