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
        let buckets = of_kind
            .namespaces
            .get(namespace)
            .into_iter()
            .chain([&of_kind.any_namespace]);
        let lists =
            buckets.flat_map(|bucket| bucket.names.get(name).into_iter().chain([&bucket.any_name]));
        let mut positions: Vec<_> = lists.flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::alert::Source;
    use crate::check::Options;
    use crate::kind::Kinds;
    use crate::object::Object;
    use crate::snapshot::Rules;

    const KINDS: Kinds = &[];

    /// Alerts in namespace `a`, each with the sources that are given as (kind, namespace, name).
    fn rules(alerts: &[Vec<(String, String, String)>]) -> Rules {
        let objects = alerts.iter().enumerate().map(|(number, sources)| {
            let source =
                |(kind, namespace, name): &(String, String, String)| json!({"kind": kind, "namespace": namespace, "name": name});
            Object::new(json!({
                "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": "Alert",
                "metadata": {"name": format!("a{number:03}"), "namespace": "a"},
                "spec": {"providerRef": {"name": "p"}, "eventSources": sources.iter().map(source).collect::<Vec<_>>()},
            }))
        });
        let options = Options {
            namespace_wildcard_for: vec!["a".into()],
            ..Options::default()
        };
        Rules::compile(&objects.collect::<Vec<_>>(), KINDS, &options)
    }

    proptest! {
        /// The index is only a shorter way to what looking at every source finds.
        #[test]
        fn what_is_found_is_what_a_look_at_all_alerts_finds(
            alerts in prop::collection::vec(prop::collection::vec(("[KL]", "[ab*]", "[xy*]"), 0..4), 0..12),
            (kind, namespace, name) in ("[KLM]", "[abc]", "[xyz]"),
        ) {
            let rules = rules(&alerts);
            let found: Vec<_> = rules.candidates(&kind, &namespace, &name).map(|alert| alert.name.clone()).collect();
            let means = |source: &Source| {
                source.kind == kind
                    && source.namespace.as_ref().is_none_or(|own| *own == namespace)
                    && source.name.as_ref().is_none_or(|own| *own == name)
            };
            let all = rules.alerts().filter(|alert| alert.sources.iter().any(means)).map(|alert| alert.name.clone());
            prop_assert_eq!(found, all.collect::<Vec<_>>());
        }
    }
}
