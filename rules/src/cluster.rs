//! Rules from the Kubernetes API.
//!
//! ```text
//!  watch of Alerts, Providers ──► Reading ─► Listing ─┐
//!  watch of metadata ─ a hint ─► read by name ─► Named ┴─► State ─► Rules ─► Live
//! ```
//!
//! Secrets and ConfigMaps are read by the names that rules mention, and never listed with what they
//! hold.

mod api_health;
mod catalog;
mod debounce;
mod discovery;
mod finalizer;
mod follow;
mod listing;
mod object;
mod references;
mod state;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;

pub use catalog::{Catalog, Seen};
pub use discovery::{Capabilities, DiscoverError, Served};
pub use follow::follow;

use crate::check::Options;
use crate::kind::Kinds;
use watch::Source;

/// The cluster that rules come from.
pub struct Cluster {
    /// The way to its API server.
    pub client: Client,
    /// Which of its objects count.
    pub scope: Scope,
    /// The provider types that there are.
    pub kinds: Kinds,
    /// What the operator decided about rules.
    pub options: Options,
    /// Whether Alerts and Providers whose deletion waits for notification-controller are released.
    pub releases: bool,
    /// Where the API server's book-keeping goes.
    pub catalog: Arc<Catalog>,
}

/// Which objects of a cluster count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those of these namespaces; of all where none is named.
    pub namespaces: Vec<String>,
    /// Alerts and Providers whose labels are so, as in `kubectl get --selector`.
    pub label_selector: Option<String>,
}

impl Scope {
    /// What is watched of a kind.
    fn sources(&self, kind: &'static str) -> Vec<Source> {
        if self.namespaces.is_empty() {
            return vec![Source {
                kind,
                namespace: None,
            }];
        }
        let source = |namespace: &String| Source {
            kind,
            namespace: Some(namespace.clone()),
        };
        // One that is named twice is watched once.
        self.namespaces
            .iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(source)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_named_twice_is_watched_once() {
        let scope = Scope {
            namespaces: ["b", "a", "b"].map(str::to_owned).to_vec(),
            label_selector: None,
        };
        let namespaces: Vec<_> = scope
            .sources("Alert")
            .into_iter()
            .filter_map(|source| source.namespace)
            .collect();
        assert_eq!(namespaces, ["a", "b"]);
        assert_eq!(
            Scope::default().sources("Alert"),
            [Source {
                kind: "Alert",
                namespace: None
            }]
        );
    }
}
