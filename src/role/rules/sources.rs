//! The sources of rules of a process.

use std::sync::Arc;

use tidings_core::model::origin;
use tidings_core::runtime::config::{RulesFrom, Settings};
use tidings_core::runtime::kubernetes::{self, ConnectError};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::SourceLabel;
use tidings_rules::{LiveRules, RulesOrigin, RulesSource, source};
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// The source of the hub's own cluster, in metrics and logs.
const CLUSTER: &str = "cluster";

/// A source of rules with its name.
pub struct NamedSource<'a> {
    /// What to read.
    pub from: &'a RulesFrom,
    /// Where its objects are from.
    pub origin: RulesOrigin,
    /// Its name in metrics: `cluster`, `folder`, or the name of the member.
    pub label: String,
    /// Names it in the log, if there are several sources.
    pub span: Span,
}

/// Names the sources of the settings. A folder is the hub's own source, unless its cluster is.
pub fn named(sources: &[RulesFrom]) -> Vec<NamedSource<'_>> {
    let has_cluster = sources.contains(&RulesFrom::Cluster);
    let named = sources.iter().map(|from| {
        let (origin, label) = match from {
            RulesFrom::Cluster => (RulesOrigin::Hub, CLUSTER),
            RulesFrom::Dir(_) if has_cluster => (RulesOrigin::Folder, origin::FOLDER),
            RulesFrom::Dir(_) => (RulesOrigin::Hub, origin::FOLDER),
            RulesFrom::Member(member) => {
                let name = member.name.as_str();
                (RulesOrigin::Member(name.into()), name)
            }
        };
        NamedSource {
            from,
            origin,
            label: label.to_owned(),
            span: match sources.len() {
                1 => Span::none(),
                _ => tracing::error_span!("rules", source = label),
            },
        }
    });
    named.collect()
}

/// A client for the API server of a source. Does not connect yet.
///
/// # Errors
/// Its kubeconfig cannot be read, or no cluster is configured.
pub async fn connect(settings: &Settings, from: &RulesFrom) -> Result<kube::Client, ConnectError> {
    match from {
        RulesFrom::Member(member) => kubernetes::connect_to_member(member).await,
        _ => kubernetes::connect(settings.kubernetes.kubeconfig.as_deref()).await,
    }
}

/// The rules of all sources together, until `stop`. Those of the hub alone stay as they are.
pub fn merged(mut sources: Vec<RulesSource>, stop: &CancellationToken) -> Arc<LiveRules> {
    let is_plain = sources.len() == 1 && sources[0].origin == RulesOrigin::Hub;
    if is_plain {
        return sources.remove(0).live;
    }
    let live = Arc::new(LiveRules::default());
    tokio::spawn(source::follow(sources, live.clone(), stop.clone()));
    live
}

/// Updates the metrics of a source whenever its rules or its state change.
pub async fn report(live: Arc<LiveRules>, label: String, metrics: Metrics) {
    let label = SourceLabel { source: label };
    let up = metrics.rules_source_up.get_or_create(&label).clone();
    let found = metrics.rules_source_problems.get_or_create(&label).clone();
    let (mut changes, mut problems) = (live.changes(), live.source_problems());
    loop {
        changes.mark_unchanged();
        let has_problem = problems.borrow_and_update().is_some();
        up.set(i64::from(live.loaded() && !has_problem));
        found.set(i64::try_from(live.problems().len()).unwrap_or(i64::MAX));
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            changed = problems.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::runtime::config::MemberRules;

    use super::*;

    #[test]
    fn only_the_own_source_of_the_hub_has_plain_namespaces() {
        let member = || {
            RulesFrom::Member(MemberRules {
                name: "eu".into(),
                kubeconfig: "eu.conf".into(),
                context: None,
            })
        };
        let dir = || RulesFrom::Dir("rules".into());
        for (sources, expected) in [
            (vec![dir()], vec![("folder", None)]),
            (vec![RulesFrom::Cluster], vec![("cluster", None)]),
            (vec![member()], vec![("eu", Some("eu"))]),
            (
                vec![member(), dir()],
                vec![("eu", Some("eu")), ("folder", None)],
            ),
            (
                vec![dir(), RulesFrom::Cluster],
                vec![("folder", Some("folder")), ("cluster", None)],
            ),
        ] {
            let named = named(&sources);
            let named: Vec<_> = named
                .iter()
                .map(|it| (it.label.as_str(), it.origin.qualifier()))
                .collect();
            assert_eq!(named, expected);
        }
    }
}
