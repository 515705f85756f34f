//! From an object to the Alerts that name it, without a look at the others.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alert::Alert;

/// Positions of Alerts by kind, namespace and name of their sources.
#[derive(Debug, Default)]
pub(crate) struct Index(HashMap<String, OfKind>);

/// The sources of one kind.
#[derive(Debug, Default)]
struct OfKind {
    namespaces: HashMap<String, Bucket>,
    any_namespace: Bucket,
}

/// The sources of one kind in one namespace.
#[derive(Debug, Default)]
struct Bucket {
    names: HashMap<String, Vec<usize>>,
    any_name: Vec<usize>,
}

impl Index {
    /// Indexes Alerts by their sources.
    pub(crate) fn new(alerts: &[Arc<Alert>]) -> Self {
        let mut index = Self::default();
        for (position, alert) in alerts.iter().enumerate() {
            for source in &alert.sources {
                let of_kind = index.0.entry(source.kind.clone()).or_default();
                let bucket = match &source.namespace {
                    Some(namespace) => of_kind.namespaces.entry(namespace.clone()).or_default(),
                    None => &mut of_kind.any_namespace,
                };
                match &source.name {
                    Some(name) => bucket.names.entry(name.clone()).or_default().push(position),
                    None => bucket.any_name.push(position),
                }
            }
        }
        index
    }

    /// The positions of the Alerts with a source for this object, ascending, each once.
    pub(crate) fn find(&self, kind: &str, namespace: &str, name: &str) -> Vec<usize> {
        let Some(of_kind) = self.0.get(kind) else {
            return Vec::new();
        };
        let buckets = of_kind.namespaces.get(namespace).into_iter().chain([&of_kind.any_namespace]);
        let lists = buckets.flat_map(|bucket| bucket.names.get(name).into_iter().chain([&bucket.any_name]));
        let mut positions: Vec<_> = lists.flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}
