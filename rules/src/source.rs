//! The sources of rules: the hub's own rules, a folder beside them, and members of the fleet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use tidings_core::model::origin;
use tidings_core::runtime::codes::log as codes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::live::LiveRules;
use crate::problem::Problem;
use crate::snapshot::Rules;

/// How long the first rules wait for those of members after all others.
pub const MEMBERS_WAIT: Duration = Duration::from_secs(15);

/// Where the objects of a source are from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RulesOrigin {
    /// The hub: its cluster, or a folder without one. Namespaces stay as they are.
    Hub,
    /// A folder beside the hub's cluster.
    Folder,
    /// A member of the fleet. Its Alerts see events of this cluster only.
    Member(Arc<str>),
}

impl RulesOrigin {
    /// What qualifies the namespaces of this source; `None` if they stay as they are.
    pub fn qualifier(&self) -> Option<&str> {
        match self {
            Self::Hub => None,
            Self::Folder => Some(origin::FOLDER),
            Self::Member(name) => Some(name),
        }
    }

    /// The member of the fleet that the source is.
    pub fn member(&self) -> Option<&Arc<str>> {
        match self {
            Self::Member(name) => Some(name),
            Self::Hub | Self::Folder => None,
        }
    }
}

/// A source of rules and its current snapshot.
#[derive(Clone, Debug)]
pub struct RulesSource {
    /// Where its objects are from.
    pub origin: RulesOrigin,
    /// Its rules, with namespaces as the source has them.
    pub live: Arc<LiveRules>,
}

/// Merges the snapshots of several sources into `merged`, until `stop` is canceled.
///
/// # Guarantees
/// Each source is read for itself: one that cannot be read keeps its last rules, and does not delay
/// changes of others. The first merged rules wait for all sources but members, and then up to
/// [`MEMBERS_WAIT`] for members; see [`Rules::is_unread`].
pub async fn follow(sources: Vec<RulesSource>, merged: Arc<LiveRules>, stop: CancellationToken) {
    let mut deadline = None;
    let mut merger = Merger::new(sources, merged);
    let mut changes = merger.changes();
    let mut is_late = false;
    loop {
        if is_late || merger.all_loaded() {
            merger.merge(is_late).await;
        }
        merger.report_problems();
        if merger.waits_for_members() {
            deadline.get_or_insert_with(|| Instant::now() + MEMBERS_WAIT);
        }
        let late = sleep_until(deadline.unwrap_or_else(Instant::now));
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = changes.next() => {}
            () = late, if deadline.is_some() && !is_late => {
                is_late = true;
                merger.log_unread();
            }
        }
    }
}

struct Merger {
    sources: Vec<RulesSource>,
    /// The last snapshot of each source, as it is and with qualified namespaces.
    qualified: Vec<Option<(Arc<Rules>, Arc<Rules>)>>,
    merged: Arc<LiveRules>,
}

impl Merger {
    fn new(sources: Vec<RulesSource>, merged: Arc<LiveRules>) -> Self {
        let qualified = sources.iter().map(|_| None).collect();
        Self {
            sources,
            qualified,
            merged,
        }
    }

    /// Notifies of changes of all sources.
    fn changes(&self) -> SelectAll<BoxStream<'static, ()>> {
        let lives = self.sources.iter().map(|source| &source.live);
        let changes =
            lives.flat_map(|live| [changes(live.changes()), changes(live.source_problems())]);
        changes.collect()
    }

    fn all_loaded(&self) -> bool {
        self.sources.iter().all(|source| source.live.loaded())
    }

    /// Whether all other sources are read.
    fn waits_for_members(&self) -> bool {
        let mut others = self.sources.iter();
        others.all(|source| source.live.loaded() || source.origin.member().is_some())
    }

    /// The members whose rules were never read by this process.
    fn unread(&self) -> BTreeSet<Arc<str>> {
        let unread = self.sources.iter().filter(|source| !source.live.loaded());
        unread
            .filter_map(|source| source.origin.member().cloned())
            .collect()
    }

    fn log_unread(&self) {
        for member in self.unread() {
            tracing::warn!(
                code = codes::MEMBER_RULES_UNREAD,
                source = %member,
                "rules of a member not read in time, starting without them"
            );
        }
    }

    /// Replaces the merged rules, if a source has changed.
    async fn merge(&mut self, without_members: bool) {
        let is_missing = |source: &RulesSource| {
            let is_optional = without_members && source.origin.member().is_some();
            !is_optional && !source.live.loaded()
        };
        if self.sources.iter().any(is_missing) {
            return;
        }
        let unread = self.unread();
        let loaded = self.sources.iter().zip(&self.qualified);
        let inputs: Vec<_> = loaded
            .filter(|(source, _)| source.live.loaded())
            .map(|(source, last)| (source.origin.clone(), source.live.current(), last.clone()))
            .collect();
        let is_same = |(_, now, last): &(_, Arc<Rules>, Option<(Arc<Rules>, _)>)| {
            last.as_ref()
                .is_some_and(|(before, _)| Arc::ptr_eq(before, now))
        };
        if self.merged.loaded() && inputs.iter().all(is_same) {
            return;
        }
        // Takes as long as the index of all Alerts.
        let work = tokio::task::spawn_blocking(move || {
            let qualified: Vec<_> = inputs
                .into_iter()
                .map(|(origin, now, last)| {
                    let rules = match last.filter(|(before, _)| Arc::ptr_eq(before, &now)) {
                        Some((_, qualified)) => qualified,
                        None => now.of_origin(&origin),
                    };
                    (origin, now, rules)
                })
                .collect();
            let parts: Vec<_> = qualified.iter().map(|(.., rules)| rules.clone()).collect();
            (Rules::merge(&parts, unread), qualified)
        });
        match work.await {
            Ok((rules, qualified)) => {
                for (origin, now, rules) in qualified {
                    let position = self.sources.iter().position(|it| it.origin == origin);
                    if let Some(position) = position {
                        self.qualified[position] = Some((now, rules));
                    }
                }
                self.merged.replace(rules);
            }
            Err(error) => tracing::error!(
                code = codes::RULES_READER_PANICKED,
                %error,
                "merging rules panicked; rules stay unchanged until the next change"
            ),
        }
    }

    /// Shows the problems of all sources as one.
    fn report_problems(&self) {
        let problems = self.sources.iter().filter_map(|source| {
            let unread = || (!source.live.loaded()).then(|| "rules not read yet".to_owned());
            let problem = source.live.source_problem();
            let severity = problem.as_ref().map(|problem| problem.severity);
            let text = problem.map(|problem| problem.to_string()).or_else(unread)?;
            let text = match &source.origin {
                RulesOrigin::Member(name) => format!("cluster {name}: {text}"),
                RulesOrigin::Hub | RulesOrigin::Folder => text,
            };
            Some((severity, text))
        });
        let problems: Vec<_> = problems.collect();
        let texts: Vec<_> = problems.iter().map(|(_, text)| text.as_str()).collect();
        let severity = problems.iter().find_map(|(severity, _)| *severity);
        let problem = (!texts.is_empty()).then(|| Problem {
            file: None,
            line: None,
            object: None,
            field: None,
            message: texts.join("; "),
            severity: severity.unwrap_or(crate::Severity::Error),
        });
        self.merged.set_source_problem(problem);
    }
}

/// An item for each change, never for the value at the start.
fn changes<T: Send + Sync + 'static>(receiver: watch::Receiver<T>) -> BoxStream<'static, ()> {
    let next = async |mut receiver: watch::Receiver<T>| {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    };
    stream::unfold(receiver, next).boxed()
}

#[cfg(test)]
mod tests;
