//! Decides whether an Alert may have an event because of the event's cluster. Pure.

use std::collections::BTreeMap;

use tidings_core::bus::clusters::{Clusters, are_names_of_one_cluster};
use tidings_core::model::origin;
use tidings_core::model::verdict::Verdict;
use tidings_core::wire::Cluster;
use tidings_rules::{Alert, Options};

/// `None` if the cluster is selected; else why it is not. `clusters` is what the hub knows; nothing
/// in an event adds to it. An unknown cluster has no labels and is visible to all namespaces.
///
/// An Alert that lives in a member sees the events of this member, and no others. What the hub
/// allows its own namespaces does not concern it. A member that is renamed has both names, so that
/// its rules hold whichever of ingest and `rules.sources` is changed first.
pub(crate) fn cluster_verdict(
    alert: &Alert,
    cluster: &str,
    clusters: &Clusters,
    options: &Options,
) -> Option<Verdict> {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    let known = clusters.get(cluster);
    match &alert.member {
        Some(member) if is_of_member(clusters, member, cluster) => {}
        Some(_) => return Some(Verdict::NotTheMembersCluster),
        None => {
            let verdict = hub_verdict(alert, cluster, known, options);
            if verdict.is_some() {
                return verdict;
            }
        }
    }
    let globs = alert.clusters.as_ref();
    let selector = alert.cluster_selector.as_ref();
    let is_selected = globs.is_none_or(|globs| globs.is_match(cluster))
        && selector.is_none_or(|selector| {
            selector.matches(known.map_or(&NO_LABELS, |known| &known.labels))
        });
    (!is_selected).then_some(Verdict::OtherCluster)
}

/// Whether the events of a cluster are those of a member, which may have been renamed.
pub(crate) fn is_of_member(clusters: &Clusters, member: &str, cluster: &str) -> bool {
    member == cluster || are_names_of_one_cluster(clusters, member, cluster)
}

/// Whether the hub lets an Alert of its own see the cluster.
fn hub_verdict(
    alert: &Alert,
    cluster: &str,
    known: Option<&Cluster>,
    options: &Options,
) -> Option<Verdict> {
    let is_other = |local: &String| local != cluster;
    if options.local_cluster.as_ref().is_some_and(is_other) {
        return Some(Verdict::NotTheLocalCluster);
    }
    let namespace = origin::plain(&alert.namespace);
    let is_named = |known: &Cluster| known.visible_to.iter().any(|named| named == namespace);
    let is_hidden = known.is_some_and(|known| !known.visible_to.is_empty() && !is_named(known));
    is_hidden.then_some(Verdict::ClusterNotVisible)
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
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tidings_core::model::time::to_proto;
    use tidings_rules::testing::alert;
    use tidings_rules::{Rules, RulesOrigin};

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

    #[test]
    fn an_alert_of_a_member_sees_the_events_of_this_member_only() {
        let everything = alert("a", "p").with("clusters", json!(["*"])).object();
        let local_only = Options {
            local_cluster: Some("hub".into()),
            ..Options::default()
        };
        for options in [Options::default(), local_only] {
            let rules = Rules::compile(std::slice::from_ref(&everything), &[], &options);
            let member = RulesOrigin::Member("secret".into());
            let rules = Arc::new(rules).of_origin(&member);
            let alert = rules.alert("secret:apps", "a").unwrap();
            let verdict = |cluster| cluster_verdict(alert, cluster, &clusters(), &options);
            // The hub shows the cluster to `infra` only, which is about the hub's namespaces.
            assert_eq!(verdict("secret"), None);
            for other in ["prod-eu", "hub", "unknown"] {
                assert_eq!(
                    verdict(other),
                    Some(Verdict::NotTheMembersCluster),
                    "{other}"
                );
            }
        }
        let narrowed = alert("a", "p").with("clusters", json!(["prod-*"])).object();
        let rules = Rules::compile(&[narrowed], &[], &Options::default());
        let rules = Arc::new(rules).of_origin(&RulesOrigin::Member("secret".into()));
        let alert = rules.alert("secret:apps", "a").unwrap();
        let verdict = cluster_verdict(alert, "secret", &clusters(), &Options::default());
        assert_eq!(verdict, Some(Verdict::OtherCluster), "it may select less");
    }

    #[test]
    fn an_alert_of_a_member_sees_its_events_under_both_names() {
        let at = |second| Some(to_proto(jiff::Timestamp::from_second(second).unwrap()));
        let record = |name: &str, former: &[&str], added_at| {
            let cluster = Cluster {
                name: name.into(),
                former_names: former.iter().map(|it| (*it).to_owned()).collect(),
                added_at: at(added_at),
                ..Cluster::default()
            };
            (name.to_owned(), cluster)
        };
        let new = record("prod-1", &["dev-1"], 5);
        let other = record("prod-2", &["dev-2"], 5);
        let finished = Clusters::from([new.clone(), other.clone()]);
        let between = Clusters::from([new.clone(), other.clone(), record("dev-1", &[], 2)]);
        let given_again = Clusters::from([new, other, record("dev-1", &[], 9)]);
        let options = Options::default();
        let rules = Rules::compile(&[alert("a", "p").object()], &[], &options);
        let rules = Arc::new(rules);
        for (what, clusters, is_same) in [
            ("both names are valid", &between, true),
            ("the rename is finished", &finished, true),
            ("the name is that of another cluster", &given_again, false),
        ] {
            for (member, cluster) in [("dev-1", "prod-1"), ("prod-1", "dev-1")] {
                let rules = rules.clone().of_origin(&RulesOrigin::Member(member.into()));
                let alert = rules.alert(&format!("{member}:apps"), "a").unwrap();
                let verdict = |cluster| cluster_verdict(alert, cluster, clusters, &options);
                let expected = (!is_same).then_some(Verdict::NotTheMembersCluster);
                assert_eq!(verdict(cluster), expected, "{what}: {member}, {cluster}");
                assert_eq!(verdict(member), None, "{what}: {member}");
                for other in ["dev-2", "prod-2"] {
                    let expected = Some(Verdict::NotTheMembersCluster);
                    assert_eq!(verdict(other), expected, "{what}: {member}, {other}");
                }
            }
        }
    }

    #[test]
    fn an_alert_of_a_folder_beside_the_cluster_is_one_of_the_hub() {
        let object = alert("a", "p").in_namespace("infra").object();
        let rules = Rules::compile(&[object], &[], &Options::default());
        let rules = Arc::new(rules).of_origin(&RulesOrigin::Folder);
        let alert = rules.alert("folder:infra", "a").unwrap();
        for cluster in ["secret", "prod-eu", "hub"] {
            let verdict = cluster_verdict(alert, cluster, &clusters(), &Options::default());
            assert_eq!(verdict, None, "{cluster}");
        }
    }
}
