//! Rules from the Kubernetes API.
//!
//! ```text
//!  watch of Alerts and Providers ─► ReceivedObject ─► Listing ──────┐
//!  watch of metadata ─► read by name ─► References (Secrets, …) ────┴► ClusterState ─► Rules
//! ```
//!
//! Secrets and ConfigMaps are read by the names that rules reference. Their contents are never
//! listed.

mod api_health;
mod catalog;
mod debounce;
mod discovery;
mod finalizer;
mod follow;
mod kept;
mod kept_bucket;
mod listing;
mod object;
mod references;
mod state;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use tidings_core::bus::Bus;
use tokio::sync::watch as value;

pub use catalog::{Catalog, ObservedObject};
pub use discovery::{DiscoveryError, ServedApi, ServedKind};
pub use follow::follow;

use crate::kind::Kinds;
use crate::options::Options;
use watch::WatchedKind;

/// The cluster that rules are read from, and the options.
pub struct Cluster {
    /// The client of the API server.
    pub client: Client,
    /// The namespaces and labels to watch.
    pub scope: WatchScope,
    /// The supported provider types.
    pub kinds: Kinds,
    /// The options of the operator.
    pub options: Options,
    /// Whether to remove the finalizer of notification-controller from deleted Alerts and
    /// Providers.
    pub remove_finalizers: bool,
    /// The bus, once it is connected, for the bucket of extension fields. `None`: lost fields are
    /// not noticed, and no restriction is kept.
    pub extensions: Option<value::Receiver<Option<Bus>>>,
    /// The store of statuses and other fields that the API server sets.
    pub catalog: Arc<Catalog>,
    /// The member of the fleet that this cluster is; `None` for the hub's own cluster.
    pub member: Option<Arc<str>>,
}

/// The namespaces and labels of the watched objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchScope {
    /// The watched namespaces; all namespaces if empty.
    pub namespaces: Vec<String>,
    /// The label selector of Alerts and Providers, as in `kubectl get --selector`.
    pub label_selector: Option<String>,
}

impl WatchScope {
    /// Whether every object in this namespace is watched.
    fn covers(&self, namespace: &str) -> bool {
        let is_watched = |watched: &String| watched == namespace;
        let namespaces = &self.namespaces;
        self.label_selector.is_none()
            && (namespaces.is_empty() || namespaces.iter().any(is_watched))
    }

    /// The watches of a kind.
    fn watches(&self, kind: &'static str) -> Vec<WatchedKind> {
        if self.namespaces.is_empty() {
            return vec![WatchedKind {
                kind,
                namespace: None,
            }];
        }
        let watch = |namespace: &String| WatchedKind {
            kind,
            namespace: Some(namespace.clone()),
        };
        // A set, so that each namespace is watched once.
        self.namespaces
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(watch)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_namespace_is_watched_once() {
        let scope = WatchScope {
            namespaces: ["b", "a", "b"].map(str::to_owned).to_vec(),
            label_selector: None,
        };
        let namespaces: Vec<_> = scope
            .watches("Alert")
            .into_iter()
            .filter_map(|watch| watch.namespace)
            .collect();
        assert_eq!(namespaces, ["a", "b"]);
        assert_eq!(
            WatchScope::default().watches("Alert"),
            [WatchedKind {
                kind: "Alert",
                namespace: None
            }]
        );
    }
}
