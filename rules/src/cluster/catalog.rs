//! The fields of Alerts and Providers that the API server sets, for the status writer.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::discovery::ServedApi;
use crate::object::Identity;

/// The latest observed state of each Alert and Provider, and how they are served.
///
/// # Guarantees
/// The catalog is at least as new as the rules. A write that only changes a status appears here and
/// creates no new rules.
#[derive(Debug, Default)]
pub struct Catalog {
    objects: Mutex<HashMap<Identity, Arc<ObservedObject>>>,
    served_api: Mutex<Option<Arc<ServedApi>>>,
    lists: watch::Sender<u64>,
}

/// The latest observed state of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedObject {
    /// The API version of the watch.
    pub api_version: String,
    /// The uid of the object.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// The status; null if there is none.
    pub status: Value,
}

impl Catalog {
    /// The latest state of an object; `None` if it does not exist.
    pub fn observed(&self, identity: &Identity) -> Option<Arc<ObservedObject>> {
        self.objects.lock().get(identity).cloned()
    }

    /// How Alerts and Providers are served; `None` before discovery.
    pub fn served_api(&self) -> Option<Arc<ServedApi>> {
        self.served_api.lock().clone()
    }

    /// Stores the result of discovery.
    pub fn set_served_api(&self, served_api: ServedApi) {
        *self.served_api.lock() = Some(Arc::new(served_api));
    }

    /// Stores the state of an object.
    pub fn put(&self, identity: Identity, object: ObservedObject) {
        self.objects.lock().insert(identity, Arc::new(object));
    }

    /// Signals the end of a list. What was stored before it may be stale: the state of an object
    /// counts only from its entry in this list on.
    pub fn listed(&self) {
        self.lists.send_modify(|lists| *lists += 1);
    }

    /// Notifies of each complete list. After a list, a status may differ from the one that was last
    /// written: the CRDs changed, or the API server was restored to an earlier state.
    pub fn lists(&self) -> watch::Receiver<u64> {
        self.lists.subscribe()
    }

    /// Removes a deleted object.
    pub fn remove(&self, identity: &Identity) {
        self.objects.lock().remove(identity);
    }
}
