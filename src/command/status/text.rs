//! The status for people.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::report::{Cluster, Edge, Report};
use crate::command::tool::length;

/// The most clusters that are listed.
const MOST_CLUSTERS: usize = 20;
/// The most circuits that are listed.
const MOST_CIRCUITS: usize = 20;
/// The most hosts of a role that are listed.
const MOST_HOSTS: usize = 4;

/// The lines of the screen. What needs attention comes first.
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![match report.problems.len() {
        0 => format!("{}  all is well", report.at),
        1 => format!("{}  1 problem needs attention:", report.at),
        number => format!("{}  {number} problems need attention:", report.at),
    }];
    let problems = report.problems.iter();
    lines.extend(problems.map(|problem| format!("! {}", problem.message)));
    lines.push(String::new());
    lines.push("ROLES".to_owned());
    lines.extend(["ingest", "router", "worker"].map(|role| role_line(report, role)));
    if report
        .processes
        .iter()
        .any(|process| process.role == "bridge")
    {
        lines.push(role_line(report, "bridge"));
    }
    lines.push("CLUSTERS".to_owned());
    lines.extend(cluster_lines(&report.clusters));
    lines.push("BACKLOG".to_owned());
    lines.extend(backlog_lines(report));
    lines.push("DESTINATIONS NOT CALLED".to_owned());
    lines.extend(circuit_lines(&report.circuit_lines));
    let last = report.dead_letters.last_at.as_deref();
    let last = last.map_or_else(String::new, |last| format!(", the last stored {last}"));
    lines.push(format!("DEAD LETTERS  {}{last}", report.dead_letters.count));
    lines.push(format!("LOST DELIVERIES  {}", report.lost_deliveries));
    lines
}

fn role_line(report: &Report, role: &str) -> String {
    let running: Vec<_> = report.running(role).collect();
    let ready = running.iter().filter(|process| process.is_ready).count();
    let hosts: BTreeSet<&str> = running
        .iter()
        .map(|process| process.host.as_str())
        .collect();
    let versions: BTreeSet<&str> = running
        .iter()
        .map(|process| process.version.as_str())
        .collect();
    if running.is_empty() {
        return format!("  {role:<8}  none");
    }
    let more = match hosts.len().saturating_sub(MOST_HOSTS) {
        0 => String::new(),
        more => format!(" and {more} more hosts"),
    };
    let in_shadow = running.iter().filter(|process| process.is_shadow).count();
    let shadow = match (role, in_shadow) {
        ("ingest", _) | (_, 0) => String::new(),
        (_, number) => format!(", {number} in shadow mode"),
    };
    format!(
        "  {role:<8}  {} running, {ready} ready{shadow}  version {}  on {}{more}",
        running.len(),
        joined(versions.into_iter()),
        joined(hosts.into_iter().take(MOST_HOSTS)),
    )
}

/// The clusters without an ingest first, then those that have been silent for the longest time.
fn cluster_lines(clusters: &[Cluster]) -> Vec<String> {
    let mut sorted: Vec<&Cluster> = clusters.iter().collect();
    sorted.sort_by_key(|cluster| (cluster.ingests > 0, Reverse(cluster.silent_seconds)));
    let listed = sorted.iter().take(MOST_CLUSTERS).map(|cluster| {
        let event = cluster.silent_seconds.map_or_else(
            || "no event stored".to_owned(),
            |seconds| format!("last event {} ago", length(Duration::from_secs(seconds))),
        );
        let ingests = match (cluster.ingests, cluster.is_revoked) {
            (_, true) => "revoked".to_owned(),
            (0, _) => "no ingest".to_owned(),
            (1, _) => "1 ingest".to_owned(),
            (number, _) => format!("{number} ingests"),
        };
        let version = match cluster.versions.is_empty() {
            true => String::new(),
            false => format!(
                "  version {}",
                joined(cluster.versions.iter().map(String::as_str))
            ),
        };
        let edge = cluster.edge.as_ref().map_or_else(String::new, edge_text);
        format!("  {}  {ingests}  {event}{edge}{version}", cluster.name)
    });
    listed.chain(rest(clusters.len(), MOST_CLUSTERS)).collect()
}

fn edge_text(edge: &Edge) -> String {
    let oldest = length(Duration::from_secs(edge.oldest_seconds));
    match edge.waiting {
        _ if edge.silent_seconds > 0 => {
            let silent = length(Duration::from_secs(edge.silent_seconds));
            format!("  edge: silent for {silent}, {} waited then", edge.waiting)
        }
        0 => "  edge: nothing waits".to_owned(),
        number => format!("  edge: {number} wait, the oldest for {oldest}"),
    }
}

fn backlog_lines(report: &Report) -> Vec<String> {
    let backlog = &report.backlog;
    let mut lines = vec![format!("  events    {} unrouted", backlog.events_unrouted)];
    let pools = backlog
        .workers
        .iter()
        .filter(|(_, work)| work.total.backlog > 0);
    lines.extend(pools.map(|(pool, work)| {
        let mut types: Vec<_> = work.by_type.iter().collect();
        types.retain(|(_, work)| work.backlog > 0);
        types.sort_by_key(|(_, work)| Reverse(work.backlog));
        let types = types.into_iter().take(5).map(|(kind, work)| {
            let kind = if kind.is_empty() { "no type" } else { kind };
            format!("{kind} {}", work.backlog)
        });
        format!(
            "  ready     {} in pool {pool} ({}), {} with workers",
            work.total.ready,
            types.collect::<Vec<_>>().join(", "),
            work.total.unacknowledged
        )
    }));
    if lines.len() == 1 {
        lines.push("  ready     0".to_owned());
    }
    lines.push(format!("  oldest    {} s", backlog.oldest_ready_seconds));
    lines.push(format!("  parked    {}", backlog.parked));
    lines
}

fn circuit_lines(circuits: &[String]) -> Vec<String> {
    if circuits.is_empty() {
        return vec!["  none".to_owned()];
    }
    let listed = circuits.iter().take(MOST_CIRCUITS);
    let listed = listed.map(|circuit| format!("  {circuit}"));
    listed.chain(rest(circuits.len(), MOST_CIRCUITS)).collect()
}

fn rest(number: usize, listed: usize) -> Option<String> {
    let more = number.checked_sub(listed).filter(|more| *more > 0)?;
    Some(format!("  and {more} more, see --output json"))
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}
