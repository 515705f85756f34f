//! Where a worker finds Providers.

use std::sync::Arc;

use tidings_rules::live::Live;
use tidings_rules::{ResolvedProvider, Unresolved};

/// Where a worker finds Providers at the moment of an attempt.
pub trait Providers: Send + Sync + 'static {
    /// The Provider with its Secrets as they are now.
    ///
    /// # Errors
    /// It can't be used now: missing, invalid or suspended.
    fn resolve(&self, namespace: &str, name: &str) -> Result<Arc<ResolvedProvider>, Unresolved>;

    /// Whether there is a first complete set of rules.
    fn are_loaded(&self) -> bool;
}

impl Providers for Live {
    fn resolve(&self, namespace: &str, name: &str) -> Result<Arc<ResolvedProvider>, Unresolved> {
        self.current().resolve(namespace, name)
    }

    fn are_loaded(&self) -> bool {
        self.loaded()
    }
}
