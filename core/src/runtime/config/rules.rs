//! The settings of rules: their sources, and what they may refer to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::read::Reader;
use super::value::{self, Parsed};
use crate::model::origin;

/// The most sources of rules. Each cluster among them needs several connections.
const MOST_SOURCES: usize = 64;
/// The key of several sources.
const SOURCES: &str = "rules.sources";
/// Names that a cluster among several sources cannot have, because other sources are called so.
const RESERVED: [&str; 2] = ["cluster", origin::FOLDER];

/// Where rules are read from, and what they may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RulesSettings {
    /// `rules.from`, `rules.dir` or `rules.sources`; empty if none is set.
    pub sources: Vec<RulesFrom>,
    /// `rules.namespaces`: the namespaces of clusters to read; empty for all.
    pub namespaces: Vec<String>,
    /// `rules.label_selector`: selects the Alerts and Providers of clusters.
    pub label_selector: Option<String>,
    /// `rules.no_cross_namespace_refs`: an Alert gets only events of its own namespace.
    pub no_cross_namespace_refs: bool,
    /// `rules.namespace_wildcard_for`: namespaces whose Alerts may set `namespace: "*"`.
    pub namespace_wildcard_for: Vec<String>,
    /// `rules.local_cluster_only`: an Alert gets only events of the cluster of the setting
    /// `cluster`.
    pub local_cluster_only: bool,
}

/// A source of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesFrom {
    /// The Kubernetes API of the hub's own cluster.
    Cluster,
    /// A folder of manifests.
    Dir(PathBuf),
    /// The Kubernetes API of a member of the fleet.
    Member(MemberRules),
}

/// How to read the rules of a member of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberRules {
    /// The name of the cluster in the fleet.
    pub name: String,
    /// The kubeconfig of its API server.
    pub kubeconfig: PathBuf,
    /// The context of the kubeconfig; default: its current one.
    pub context: Option<String>,
}

impl RulesSettings {
    pub(super) fn read(reader: &mut Reader, own_cluster: &str) -> Self {
        Self {
            sources: sources(reader, own_cluster),
            namespaces: reader.list("rules.namespaces"),
            label_selector: reader.optional("rules.label_selector", value::text),
            no_cross_namespace_refs: reader.value("rules.no_cross_namespace_refs", value::switch),
            namespace_wildcard_for: reader.list("rules.namespace_wildcard_for"),
            local_cluster_only: reader.value("rules.local_cluster_only", value::switch),
        }
    }
}

/// The sources of the highest layer that sets any.
fn sources(reader: &mut Reader, own_cluster: &str) -> Vec<RulesFrom> {
    let rank_of_one = ["rules.from", "rules.dir"]
        .into_iter()
        .filter_map(|key| reader.rank(key))
        .max();
    let rank_of_many = reader.rank(SOURCES);
    if rank_of_many.is_some() && rank_of_many == rank_of_one {
        let problem = "set either rules.sources, or one of rules.from and rules.dir, not both";
        reader.mistake(SOURCES, problem);
    }
    let many = reader.list_of(SOURCES, source);
    let one = reader.either(("rules.from", cluster), ("rules.dir", folder));
    if rank_of_many <= rank_of_one {
        return one.into_iter().collect();
    }
    for problem in problems(&many, own_cluster) {
        reader.mistake(SOURCES, &problem);
    }
    many
}

/// Why sources cannot be used together.
fn problems(sources: &[RulesFrom], own_cluster: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let count = |is_one: fn(&RulesFrom) -> bool| sources.iter().filter(|it| is_one(it)).count();
    if sources.len() > MOST_SOURCES {
        let number = sources.len();
        problems.push(format!("{number} sources; use at most {MOST_SOURCES}"));
    }
    if count(|it| matches!(it, RulesFrom::Dir(_))) > 1 {
        problems.push("more than one folder; use one folder with subfolders".to_owned());
    }
    if count(|it| matches!(it, RulesFrom::Cluster)) > 1 {
        problems.push("`cluster` more than once; remove one".to_owned());
    }
    let mut names = BTreeSet::new();
    let members = sources.iter().filter_map(|source| match source {
        RulesFrom::Member(member) => Some(member.name.as_str()),
        _ => None,
    });
    for name in members {
        if !names.insert(name) {
            problems.push(format!("the cluster {name} more than once; remove one"));
        }
        if name == own_cluster {
            problems.push(format!(
                "{name} is the name of the hub's own cluster (setting cluster); use the source \
                 `cluster` with kubernetes.kubeconfig for it, or set cluster to another name"
            ));
        }
        if RESERVED.contains(&name) {
            problems.push(format!(
                "a cluster cannot be called {name} here, because another source is; rename it"
            ));
        }
    }
    problems
}

/// A value of `rules.from`.
fn cluster(text: &str) -> Parsed<RulesFrom> {
    if text == "cluster" {
        Ok(RulesFrom::Cluster)
    } else {
        Err("cluster; for a folder set rules.dir")
    }
}

/// A value of `rules.dir`.
fn folder(text: &str) -> Parsed<RulesFrom> {
    value::path(text).map(RulesFrom::Dir)
}

/// An entry of `rules.sources`.
fn source(text: &str) -> Parsed<RulesFrom> {
    match text.split_once('=') {
        Some(("cluster", member)) => member_source(member).map(RulesFrom::Member),
        _ if text == "cluster" => Ok(RulesFrom::Cluster),
        _ => folder(text),
    }
}

/// `NAME:FILE` or `NAME:FILE#CONTEXT`.
fn member_source(text: &str) -> Parsed<MemberRules> {
    const EXPECTED: &str = "cluster=NAME:FILE or cluster=NAME:FILE#CONTEXT, with the name of a \
                            cluster in the fleet and its kubeconfig, such as \
                            cluster=prod-eu:/etc/tidings/prod-eu.kubeconfig";
    let (name, file) = text.split_once(':').ok_or(EXPECTED)?;
    let (file, context) = match file.rsplit_once('#') {
        Some((file, context)) => (file, Some(context)),
        None => (file, None),
    };
    let is_usable = origin::is_cluster_name(name) && !file.is_empty() && context != Some("");
    is_usable
        .then(|| MemberRules {
            name: name.to_owned(),
            kubeconfig: file.into(),
            context: context.map(str::to_owned),
        })
        .ok_or(EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, context: Option<&str>) -> RulesFrom {
        RulesFrom::Member(MemberRules {
            name: name.into(),
            kubeconfig: "/etc/eu.conf".into(),
            context: context.map(str::to_owned),
        })
    }

    #[test]
    fn a_source_is_a_folder_the_own_cluster_or_a_member() {
        for (text, expected) in [
            ("cluster", Some(RulesFrom::Cluster)),
            ("./cluster", Some(RulesFrom::Dir("./cluster".into()))),
            ("rules=old", Some(RulesFrom::Dir("rules=old".into()))),
            ("cluster=eu-1:/etc/eu.conf", Some(member("eu-1", None))),
            (
                "cluster=eu-1:/etc/eu.conf#admin",
                Some(member("eu-1", Some("admin"))),
            ),
            ("cluster=eu-1:/etc/eu.conf#", None),
            ("cluster=eu-1", None),
            ("cluster=:/etc/eu.conf", None),
            ("cluster=eu 1:/etc/eu.conf", None),
            ("cluster=eu-1:", None),
        ] {
            assert_eq!(source(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sources_with_equal_names_are_refused() {
        let dir = || RulesFrom::Dir("rules".into());
        let eu = || member("eu", None);
        for (sources, problem) in [
            (
                vec![RulesFrom::Cluster, dir(), eu(), member("us", None)],
                None,
            ),
            (vec![dir(), dir()], Some("more than one folder")),
            (
                vec![RulesFrom::Cluster, RulesFrom::Cluster],
                Some("`cluster` more than once"),
            ),
            (vec![eu(), eu()], Some("the cluster eu more than once")),
            (
                vec![dir(), member("hub", None)],
                Some("the hub's own cluster"),
            ),
            (
                vec![dir(), member("folder", None)],
                Some("cannot be called folder"),
            ),
        ] {
            let found = problems(&sources, "hub");
            let matches = match problem {
                None => found.is_empty(),
                Some(text) => found.len() == 1 && found[0].contains(text),
            };
            assert!(matches, "{sources:?}: {found:?}");
        }
        let many: Vec<_> = (0..=MOST_SOURCES)
            .map(|n| member(&format!("c{n}"), None))
            .collect();
        assert_eq!(problems(&many, "hub").len(), 1);
    }
}
