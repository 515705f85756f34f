//! Finds the Alerts with an event source for an object, without a scan of all Alerts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alert::Alert;

/// The positions of Alerts by kind, namespace and name of their event sources.
#[derive(Debug, Default)]
pub(crate) struct Index(HashMap<String, KindIndex>);

/// The event sources of one kind.
#[derive(Debug, Default)]
struct KindIndex {
    namespaces: HashMap<String, Bucket>,
    any_namespace: Bucket,
}

/// The event sources of one kind in one namespace.
#[derive(Debug, Default)]
struct Bucket {
    names: HashMap<String, Vec<u32>>,
    any_name: Vec<u32>,
}

impl Index {
    /// Indexes Alerts by their event sources.
    pub(crate) fn new(alerts: &[Arc<Alert>]) -> Self {
        let mut index = Self::default();
        for (position, alert) in (0..).zip(alerts) {
            for source in &alert.sources {
                let kind_index = index.0.entry(source.kind.clone()).or_default();
                let bucket = match &source.namespace {
                    Some(namespace) => kind_index.namespaces.entry(namespace.clone()).or_default(),
                    None => &mut kind_index.any_namespace,
                };
                match &source.name {
                    Some(name) => bucket.names.entry(name.clone()).or_default().push(position),
                    None => bucket.any_name.push(position),
                }
            }
        }
        index
    }

    /// The positions of the Alerts with an event source for this object, ascending and distinct.
    pub(crate) fn find(&self, kind: &str, namespace: &str, name: &str) -> Vec<usize> {
        let Some(kind_index) = self.0.get(kind) else {
            return Vec::new();
        };
        let buckets = kind_index
            .namespaces
            .get(namespace)
            .into_iter()
            .chain([&kind_index.any_namespace]);
        let lists =
            buckets.flat_map(|bucket| bucket.names.get(name).into_iter().chain([&bucket.any_name]));
        let mut positions: Vec<_> = lists.flatten().map(|position| *position as usize).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::alert::EventSource;
    use crate::options::Options;
    use crate::snapshot::Rules;
    use crate::testing::alert;

    /// Alerts in namespace `a` with event sources given as (kind, namespace, name).
    fn rules(alerts: &[Vec<(String, String, String)>]) -> Rules {
        let objects = alerts.iter().enumerate().map(|(number, sources)| {
            let source =
                |(kind, namespace, name): &(String, String, String)| {
                    json!({"kind": kind, "namespace": namespace, "name": name})
                };
            alert(&format!("a{number:03}"), "p")
                .in_namespace("a")
                .with("eventSources", sources.iter().map(source).collect::<Value>())
                .object()
        });
        let options = Options {
            namespace_wildcard_for: vec!["a".into()],
            ..Options::default()
        };
        Rules::compile(&objects.collect::<Vec<_>>(), &[], &options)
    }

    proptest! {
        /// The index finds the same Alerts as a scan.
        #[test]
        fn the_index_finds_the_same_alerts_as_a_scan(
            alerts in prop::collection::vec(
                prop::collection::vec(("[KL]", "[ab*]", "[xy*]"), 0..4), 0..12,
            ),
            (kind, namespace, name) in ("[KLM]", "[abc]", "[xyz]"),
        ) {
            let rules = rules(&alerts);
            let candidates = rules.candidates(&kind, &namespace, &name);
            let found: Vec<_> = candidates.map(|alert| alert.name.clone()).collect();
            let matches = |source: &EventSource| {
                source.kind == kind
                    && source.namespace.as_ref().is_none_or(|wanted| *wanted == namespace)
                    && source.name.as_ref().is_none_or(|wanted| *wanted == name)
            };
            let all = rules.alerts().filter(|alert| alert.sources.iter().any(matches));
            let expected: Vec<_> = all.map(|alert| alert.name.clone()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
