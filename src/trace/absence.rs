//! Explains that no event was found: what the object last reported, whether its cluster is
//! connected, and whether a rule would match. Pure.

use tidings_core::model::verdict::Verdict;
use tidings_core::{Event, ObjectReference};
use tidings_router::{PlanContext, explain as explain_verdicts};
use tidings_rules::Rules;

use super::assemble::{recomputed, summary};
use super::gather::{Facts, FoundEvent, Request};
use super::query::Query;
use super::report::{Absence, AlertVerdict, Tried};
use crate::command::status::Known;
use crate::command::status::report::{Cluster, Report};

/// The most clusters that are listed.
const MOST_CLUSTERS: usize = 20;
/// The severity of an event that is made up: Alerts for information also receive errors.
const SEVERITY: &str = "error";

/// What explains the absence.
pub fn explain(
    request: &Request,
    facts: &Facts,
    rules: Option<&Rules>,
    shows: &dyn Fn(&str) -> bool,
) -> Absence {
    let report = Report::new(&facts.reading, Known::default());
    let last = facts.earlier.last();
    let named = request.cluster.as_deref();
    let named = named.or(last.map(|last| last.event.cluster.as_str()));
    let mut clusters: Vec<Cluster> = report.clusters;
    clusters.retain(|cluster| named.is_none_or(|name| cluster.name == name));
    clusters.sort_by_key(|cluster| (cluster.ingests > 0, cluster.name.clone()));
    let clusters_left_out = clusters.len().saturating_sub(MOST_CLUSTERS);
    clusters.truncate(MOST_CLUSTERS);
    let tried = tried(
        request,
        last,
        named.or(clusters.first().map(|it| it.name.as_str())),
    );
    let (mut would_match, mut other_alerts) = (Vec::new(), 0);
    if let (Some(rules), Some(event)) = (rules, &tried) {
        (would_match, other_alerts) = verdicts(event, facts, rules, shows);
    }
    Absence {
        last_events: facts.earlier.iter().map(summary).collect(),
        clusters,
        clusters_left_out,
        problems: report.problems,
        tried: tried
            .as_ref()
            .filter(|_| rules.is_some())
            .map(|event| Tried {
                cluster: event.cluster.clone(),
                severity: event.severity.clone(),
                message: event.message.chars().take(200).collect(),
                is_last_event: last.is_some(),
            }),
        would_match,
        other_alerts,
    }
}

/// The object's last event, or one that is made up. `None` if the object is not known.
fn tried(request: &Request, last: Option<&FoundEvent>, cluster: Option<&str>) -> Option<Event> {
    if let Some(last) = last {
        return Some(last.event.clone());
    }
    let Query::Object {
        kind,
        namespace,
        name,
    } = &request.query
    else {
        return None;
    };
    Some(Event {
        cluster: cluster.unwrap_or_default().to_owned(),
        severity: SEVERITY.to_owned(),
        involved_object: Some(ObjectReference {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    })
}

/// The verdicts of the Alerts that name the object, and the number of the others.
fn verdicts(
    event: &Event,
    facts: &Facts,
    rules: &Rules,
    shows: &dyn Fn(&str) -> bool,
) -> (Vec<AlertVerdict>, usize) {
    let clusters = &facts.reading.clusters;
    let explained = explain_verdicts(rules, event, clusters, PlanContext::default());
    let (others, named): (Vec<_>, Vec<_>) = explained
        .into_iter()
        .filter(|explanation| shows(&explanation.alert))
        .partition(|explanation| explanation.verdict == Verdict::NoEventSourceMatches);
    let named = named.into_iter().map(recomputed);
    (named.collect(), others.len())
}
