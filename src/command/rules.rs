//! The rules of one run of a tool: read once, from folders or from the Kubernetes API.

pub mod forget;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use serde::Serialize;
use tidings_core::runtime::config::{RulesFrom, Settings};
use tidings_rules::cluster::{self, Catalog, ServedApi};
use tidings_rules::{LiveRules, Problem, Rules, RulesOrigin, Severity, folder};
use tidings_workers::notifier::kinds;
use tokio_util::sync::CancellationToken;

use crate::role::rules::{NamedSource, cluster as cluster_of, connect, named, options, sources};

/// The time limit for reading all rules of a cluster.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(20);

/// A problem of the rules in the output of a tool.
#[derive(Serialize)]
pub struct ProblemReport {
    severity: &'static str,
    file: Option<String>,
    line: Option<u64>,
    object: Option<String>,
    field: Option<String>,
    message: String,
    /// Whether an object or a file is rejected.
    #[serde(skip)]
    pub rejects: bool,
    /// All of it, for people.
    #[serde(skip)]
    text: String,
}

impl ProblemReport {
    /// Reports a problem.
    pub fn new(problem: &Problem) -> Self {
        let text = problem.to_string();
        let problem = problem.clone();
        Self {
            severity: problem.severity.as_str(),
            file: problem.file,
            line: problem.line,
            object: problem.object,
            field: problem.field,
            message: problem.message,
            rejects: problem.severity == Severity::Error,
            text,
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!("{}: {}", self.severity, self.text)
    }
}

/// Rules that were read once.
#[derive(Default)]
pub struct LoadedRules {
    /// The rules of all sources, with their problems.
    pub rules: Arc<Rules>,
    /// What this tool cannot know about them.
    pub unknown: Vec<Problem>,
    /// Clients of the clusters that they were read from.
    pub clients: Vec<(RulesOrigin, kube::Client)>,
}

/// Reads the rules that the settings name. Changes nothing in a cluster.
///
/// # Errors
/// No source of rules is set, or it cannot be read. Problems of single objects are in
/// [`Rules::problems`].
pub async fn load(settings: &Settings) -> anyhow::Result<LoadedRules> {
    let named = named(sources(settings)?);
    let read = named.iter().map(|source| load_source(settings, source));
    let mut loaded = LoadedRules::default();
    let mut parts = Vec::new();
    for (source, read) in named.iter().zip(join_all(read).await) {
        let read = read?;
        loaded.unknown.extend(read.unknown);
        let client = read.client.map(|client| (source.origin.clone(), client));
        loaded.clients.extend(client);
        parts.push(read.rules.of_origin(&source.origin));
    }
    loaded.rules = match &parts[..] {
        [part] => part.clone(),
        _ => Arc::new(Rules::merge(&parts, BTreeSet::new())),
    };
    Ok(loaded)
}

/// The rules of one source, with its own namespaces.
struct LoadedSource {
    rules: Arc<Rules>,
    unknown: Option<Problem>,
    client: Option<kube::Client>,
}

async fn load_source(
    settings: &Settings,
    source: &NamedSource<'_>,
) -> anyhow::Result<LoadedSource> {
    if let RulesFrom::Dir(dir) = source.from {
        let rules = folder::load(dir, kinds(), &options(settings));
        let rules = rules.map_err(|problem| anyhow::anyhow!("{problem}"))?;
        return Ok(LoadedSource {
            rules: Arc::new(rules),
            unknown: None,
            client: None,
        });
    }
    let client = connect(settings, source.from).await?;
    let of_member = || match source.origin.member() {
        Some(name) => format!("source cluster={name}"),
        None => "source cluster".to_owned(),
    };
    let rules = from_cluster(settings, client.clone()).await;
    let rules = rules.with_context(of_member)?;
    let schemas = ServedApi::discover(&client, true);
    let schemas = tokio::time::timeout(CLUSTER_TIMEOUT, schemas).await;
    let schemas = schemas.ok().and_then(Result::ok);
    Ok(LoadedSource {
        rules,
        unknown: schemas.as_ref().and_then(kept_restrictions),
        client: Some(client),
    })
}

impl LoadedRules {
    /// All problems: those of the rules, and what is unknown about them.
    pub fn problems(&self) -> Vec<Problem> {
        let known = self.rules.problems().iter().cloned();
        known.chain(self.unknown.iter().cloned()).collect()
    }

    /// A client of the API server of a cluster, if it is a member that rules come from; else of the
    /// hub's own cluster, if rules come from there.
    pub fn client(&self, cluster: &str) -> Option<kube::Client> {
        let find = |is_it: &dyn Fn(&RulesOrigin) -> bool| {
            let found = self.clients.iter().find(|(origin, _)| is_it(origin));
            found.map(|(_, client)| client.clone())
        };
        let is_member = |origin: &RulesOrigin| origin.member().is_some_and(|it| **it == *cluster);
        find(&is_member).or_else(|| find(&|origin| *origin == RulesOrigin::Hub))
    }
}

/// The problem that routers may keep restrictions, if the API server drops fields.
fn kept_restrictions(served_api: &ServedApi) -> Option<Problem> {
    let lacks = served_api.alerts.lacks.as_ref();
    let lacks = lacks.filter(|lacks| !lacks.is_empty())?;
    let fields: Vec<_> = lacks.iter().map(|field| format!("spec.{field}")).collect();
    Some(Problem {
        file: None,
        line: None,
        object: None,
        field: None,
        message: format!(
            "the installed CRD of Alert lacks {}. A running router keeps the last known clusters \
             of Alerts that lost them, which this tool does not know: an Alert may match more \
             events here. Install the CRDs of Tidings (`tidings crds`), or set the annotations",
            fields.join(", ")
        ),
        severity: Severity::Warning,
    })
}

/// Follows the rules of the cluster until the first complete snapshot.
async fn from_cluster(settings: &Settings, client: kube::Client) -> anyhow::Result<Arc<Rules>> {
    let live = Arc::new(LiveRules::default());
    let mut changes = live.changes();
    let stop = CancellationToken::new();
    let _stop_at_the_end = stop.clone().drop_guard();
    let cluster = cluster_of(settings, client, Arc::new(Catalog::default()));
    tokio::spawn(cluster::follow(cluster, live.clone(), stop));
    let loaded = tokio::time::timeout(CLUSTER_TIMEOUT, changes.changed()).await;
    if loaded.is_err() {
        let problem = live.source_problem();
        bail!(
            "cannot read the rules of the cluster within {} s: {}; check the kubeconfig, and that \
             its user has the permissions of deploy/rbac/router.yaml",
            CLUSTER_TIMEOUT.as_secs(),
            problem.map_or_else(|| "no answer".to_owned(), |problem| problem.message)
        );
    }
    Ok(live.current())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::core::{ApiResource, GroupVersionKind};
    use tidings_rules::cluster::ServedKind;

    use super::*;

    #[test]
    fn a_schema_without_our_fields_may_hide_kept_restrictions() {
        let served = |lacks: Option<&[&'static str]>| {
            let gvk = GroupVersionKind::gvk("notification.toolkit.fluxcd.io", "v1beta3", "Alert");
            let kind = ServedKind {
                resource: ApiResource::from_gvk(&gvk),
                has_status: true,
                lacks: lacks.map(|lacks| BTreeSet::from_iter(lacks.iter().copied())),
            };
            ServedApi {
                alerts: kind.clone(),
                providers: kind,
                grants: None,
            }
        };
        assert_eq!(kept_restrictions(&served(None)), None);
        assert_eq!(kept_restrictions(&served(Some(&[]))), None);
        let problem = kept_restrictions(&served(Some(&["clusters"]))).unwrap();
        assert_eq!(problem.severity, Severity::Warning);
        assert!(problem.message.contains("spec.clusters"));
    }
}
