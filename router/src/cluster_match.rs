//! Decides whether an Alert may have an event because of the event's cluster. Pure.

use std::collections::BTreeMap;

use tidings_core::bus::clusters::Clusters;
use tidings_core::model::verdict::Verdict;
use tidings_rules::{Alert, Options};

/// `None` if the cluster is selected; else why it is not. `clusters` is what the hub knows; nothing
/// in an event adds to it. An unknown cluster has no labels and is visible to all namespaces.
pub(crate) fn cluster_verdict(
    alert: &Alert,
    cluster: &str,
    clusters: &Clusters,
    options: &Options,
) -> Option<Verdict> {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    let is_other = |local: &String| local != cluster;
    if options.local_cluster.as_ref().is_some_and(is_other) {
        return Some(Verdict::NotTheLocalCluster);
    }
    let known = clusters.get(cluster);
    let is_hidden = known.is_some_and(|known| {
        !known.visible_to.is_empty() && !known.visible_to.contains(&alert.namespace)
    });
    if is_hidden {
        return Some(Verdict::ClusterNotVisible);
    }
    let globs = alert.clusters.as_ref();
    let selector = alert.cluster_selector.as_ref();
    let is_selected = globs.is_none_or(|globs| globs.is_match(cluster))
        && selector.is_none_or(|selector| {
            selector.matches(known.map_or(&NO_LABELS, |known| &known.labels))
        });
    (!is_selected).then_some(Verdict::OtherCluster)
}

/// Why the Alert does not select the cluster. Names the values that were compared.
pub(crate) fn explain_other(alert: &Alert, cluster: &str, clusters: &Clusters) -> String {
    let globs = alert.clusters.as_ref();
    if globs.is_some_and(|globs| !globs.is_match(cluster)) {
        return format!("the Alert's clusters do not include the cluster \"{cluster}\"");
    }
    let selector = alert.cluster_selector.as_ref();
    let selector = selector.map(ToString::to_string).unwrap_or_default();
    let labels = match clusters.get(cluster) {
        None => "which the hub does not know, so that it has no labels".to_owned(),
        Some(known) if known.labels.is_empty() => "which has no labels".to_owned(),
        Some(known) => {
            let labels = known.labels.iter();
            let labels: Vec<_> = labels
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("which has the labels {}", labels.join(","))
        }
    };
    format!(
        "the Alert's clusterSelector {selector} does not match the cluster \"{cluster}\", {labels}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidings_core::wire::Cluster;
    use tidings_rules::Rules;
    use tidings_rules::testing::alert;

    use super::*;

    fn clusters() -> Clusters {
        let cluster = |name: &str, env: &str, visible_to: &[&str]| {
            let cluster = Cluster {
                name: name.into(),
                labels: BTreeMap::from([("env".to_owned(), env.to_owned())]),
                visible_to: visible_to.iter().map(|it| (*it).to_owned()).collect(),
                ..Cluster::default()
            };
            (name.to_owned(), cluster)
        };
        Clusters::from([
            cluster("prod-eu", "prod", &[]),
            cluster("dev-1", "dev", &[]),
            cluster("secret", "prod", &["infra"]),
        ])
    }

    fn verdict(fields: Value, cluster: &str, options: &Options) -> Option<Verdict> {
        let object = alert("a", "p").with_fields(fields).object();
        let rules = Rules::compile(&[object], &[], options);
        let alert = rules.alert("apps", "a").unwrap();
        cluster_verdict(alert, cluster, &clusters(), options)
    }

    #[test]
    fn globs_and_selector_must_both_match() {
        let prod = json!({"matchLabels": {"env": "prod"}});
        let not_dev = json!({"matchExpressions": [
            {"key": "env", "operator": "NotIn", "values": ["dev"]},
        ]});
        for (fields, cluster, is_selected) in [
            (json!({}), "dev-1", true),
            (json!({"clusterSelector": prod}), "prod-eu", true),
            (json!({"clusterSelector": prod}), "dev-1", false),
            (json!({"clusterSelector": prod}), "unknown", false),
            (json!({"clusterSelector": not_dev}), "unknown", true),
            (
                json!({"clusterSelector": prod, "clusters": ["prod-*"]}),
                "prod-eu",
                true,
            ),
            (
                json!({"clusterSelector": prod, "clusters": ["dev-*"]}),
                "prod-eu",
                false,
            ),
            (
                json!({"clusterSelector": prod, "clusters": ["dev-*"]}),
                "dev-1",
                false,
            ),
        ] {
            let verdict = verdict(fields.clone(), cluster, &Options::default());
            let expected = (!is_selected).then_some(Verdict::OtherCluster);
            assert_eq!(verdict, expected, "{fields} {cluster}");
        }
    }

    #[test]
    fn a_cluster_is_visible_only_to_its_namespaces() {
        let hidden = Some(Verdict::ClusterNotVisible);
        assert_eq!(verdict(json!({}), "secret", &Options::default()), hidden);
        let object = alert("a", "p").in_namespace("infra").object();
        let rules = Rules::compile(&[object], &[], &Options::default());
        let alert = rules.alert("infra", "a").unwrap();
        let verdict = cluster_verdict(alert, "secret", &clusters(), &Options::default());
        assert_eq!(verdict, None);
    }

    #[test]
    fn alerts_can_be_confined_to_the_local_cluster() {
        let options = Options {
            local_cluster: Some("hub".into()),
            ..Options::default()
        };
        assert_eq!(verdict(json!({}), "hub", &options), None);
        let fields = json!({"clusters": ["prod-*"]});
        let foreign = Some(Verdict::NotTheLocalCluster);
        assert_eq!(verdict(fields, "prod-eu", &options), foreign);
    }
}
