//! Decides what of the status needs attention. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::Destination;
use tidings_core::bus::heartbeats::is_alive;
use tidings_core::model::time::{after, between, from_proto};
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, Heartbeat};

use super::Known;
use super::reading::Reading;
use super::report::{Problem, Process, Report};
use crate::command::providers::circuits::next_attempt;
use crate::command::tool::{length, time};

/// Ready deliveries, and events on an edge, that wait for longer than this need attention.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Credentials that expire within this time need attention.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// Certificates are renewed by programs, often some weeks before they expire.
const CERTIFICATE_EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most problems of one code that are listed.
const MOST_OF_A_CODE: usize = 20;

/// What needs attention, the most urgent first.
pub fn problems(report: &Report, reading: &Reading, known: Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |code: &'static str, messages: Vec<String>| {
        let more = messages.len().saturating_sub(MOST_OF_A_CODE);
        let listed = messages.into_iter().take(MOST_OF_A_CODE);
        let rest = (more > 0).then(|| format!("and {more} more"));
        let messages = listed.chain(rest);
        problems.extend(messages.map(|message| Problem { code, message }));
    };
    add(
        "no-ingest",
        missing(report, "ingest", "an ingest", "no ingest"),
    );
    add(
        "no-router",
        missing(report, "router", "a router", "no router"),
    );
    add(
        "no-worker",
        missing(report, "worker", "a worker", "no worker"),
    );
    add("not-ready", not_ready(report));
    add("works-in-part", working_in_part(report));
    add("shadow-mode-mixed", mixed_shadow(report));
    add("pool-without-worker", pools_without_worker(report));
    add("cluster-without-ingest", clusters_without_ingest(report));
    add("edge-behind", edges_behind(report));
    add("deliveries-wait", waiting(report, reading));
    add("circuit-open", open_circuits(reading));
    add("dead-letters", dead_letters(report));
    add("lost-deliveries", losses(reading.lost, known.known_losses));
    add("credentials-expire", expiring_credentials(reading));
    add("certificate-expires", expiring_certificates(reading));
    problems
}

fn missing(report: &Report, role: &str, one: &str, none: &str) -> Vec<String> {
    if report.running(role).next().is_some() {
        return Vec::new();
    }
    let ended = report
        .processes
        .iter()
        .filter(|process| process.has_role(role));
    let last = ended.min_by_key(|process| process.reported_seconds_ago);
    vec![match last {
        Some(last) => format!(
            "{none} is running: the last report of {one}, {}, is {} old",
            name(last),
            length(Duration::from_secs(last.reported_seconds_ago))
        ),
        None => format!("{none} is running"),
    }]
}

fn not_ready(report: &Report) -> Vec<String> {
    let alive = report.processes.iter().filter(|process| process.is_alive);
    alive
        .filter(|process| !process.is_ready)
        .map(|process| {
            let reason = process.reason.as_deref().unwrap_or("no reason given");
            format!("{} is not ready: {reason}", name(process))
        })
        .collect()
}

/// What a ready process reports, such as a source of rules that cannot be read.
fn working_in_part(report: &Report) -> Vec<String> {
    let ready = report.processes.iter().filter(|process| process.is_ready);
    let alive = ready.filter(|process| process.is_alive);
    alive
        .filter_map(|process| {
            let reason = process.reason.as_deref()?;
            Some(format!("{} works only in part: {reason}", name(process)))
        })
        .collect()
}

/// Routers share the events, and workers the deliveries, so with some in shadow mode it is left to
/// chance what is delivered, and how fast.
fn mixed_shadow(report: &Report) -> Vec<String> {
    let consequences = [
        (
            "router",
            "a part of the events is recorded and not delivered",
        ),
        ("worker", "only the others make deliveries"),
    ];
    let mixed = consequences.iter().filter_map(|(role, consequence)| {
        let all: Vec<_> = report.running(role).collect();
        let shadow = all.iter().find(|process| process.is_shadow)?;
        let normal = all.iter().find(|process| !process.is_shadow)?;
        let (shadow, normal) = (name(shadow), name(normal));
        Some(format!(
            "{shadow} is in shadow mode and {normal} is not: {consequence}"
        ))
    });
    mixed.collect()
}

/// If no worker runs at all, that is another problem.
fn pools_without_worker(report: &Report) -> Vec<String> {
    let served: BTreeSet<&str> = report
        .running("worker")
        .flat_map(|process| process.pools.iter().map(String::as_str))
        .collect();
    let waiting = report.backlog.workers.iter().filter(|(pool, work)| {
        work.total.backlog > 0 && !served.is_empty() && !served.contains(pool.as_str())
    });
    waiting
        .map(|(pool, work)| {
            format!(
                "pool {pool}: {} deliveries wait and no worker of it is running; start one with \
                 --pool {pool}",
                work.total.backlog
            )
        })
        .collect()
}

fn clusters_without_ingest(report: &Report) -> Vec<String> {
    let without = report
        .clusters
        .iter()
        .filter(|cluster| cluster.ingests == 0 && !cluster.is_revoked);
    without
        .map(|cluster| match cluster.reported_seconds_ago {
            Some(seconds) if cluster.edge.is_some() => format!(
                "cluster {}: its edge has been silent for {}: it is cut off or stopped, and may \
                 hold events",
                cluster.name,
                length(Duration::from_secs(seconds))
            ),
            Some(seconds) => format!(
                "cluster {}: no ingest is running, the last report is {} old",
                cluster.name,
                length(Duration::from_secs(seconds))
            ),
            None => format!(
                "cluster {}: no ingest reports: it never ran, it was stopped, or the server of \
                 the hub lost all reports at a restart",
                cluster.name
            ),
        })
        .collect()
}

/// An edge that is cut off reports nothing: that is another problem.
fn edges_behind(report: &Report) -> Vec<String> {
    let alive = report.clusters.iter().filter(|cluster| cluster.ingests > 0);
    let edges = alive.filter_map(|cluster| Some((&cluster.name, cluster.edge.as_ref()?)));
    edges
        .filter(|(_, edge)| Duration::from_secs(edge.oldest_seconds) >= LONGEST_WAIT)
        .map(|(name, edge)| {
            format!(
                "cluster {name}: {} events wait on its edge, the oldest for {}; see /readyz and \
                 the log of the edge",
                edge.waiting,
                length(Duration::from_secs(edge.oldest_seconds))
            )
        })
        .collect()
}

fn waiting(report: &Report, reading: &Reading) -> Vec<String> {
    let oldest = reading.workload.oldest_ready;
    if oldest < LONGEST_WAIT || report.running("worker").next().is_none() {
        return Vec::new();
    }
    vec![format!(
        "the oldest ready delivery has waited for {}: run more workers",
        length(oldest)
    )]
}

/// A pause is a user's decision and needs no attention.
fn open_circuits(reading: &Reading) -> Vec<String> {
    let open = reading
        .circuits
        .iter()
        .filter(|circuit| matches!(circuit.state(), State::Open | State::HalfOpen));
    open.map(|circuit| {
        format!(
            "the circuit of {} has been open since {}: {}; next attempt {}",
            destination(circuit),
            time(circuit.since),
            circuit.reason,
            next_attempt(circuit, reading.now).unwrap_or_else(|| time(None))
        )
    })
    .collect()
}

fn destination(circuit: &Circuit) -> String {
    let Destination {
        namespace,
        provider,
        channel,
    } = Destination::of(circuit);
    match channel.filter(|channel| !channel.is_empty()) {
        Some(channel) => format!("{namespace}/{provider} {channel:?}"),
        None => format!("{namespace}/{provider}"),
    }
}

fn dead_letters(report: &Report) -> Vec<String> {
    let dead = &report.dead_letters;
    let last = dead.last_at.as_deref().unwrap_or("-");
    let number = match dead.count {
        0 => return Vec::new(),
        1 => format!("1 dead letter, stored {last}"),
        count => format!("{count} dead letters, the last stored {last}"),
    };
    vec![format!(
        "{number}: see `tidings dead list`, then replay or drop them"
    )]
}

fn losses(lost: u64, known: u64) -> Vec<String> {
    let number = match lost.saturating_sub(known) {
        0 => return Vec::new(),
        1 => "1 delivery is lost".to_owned(),
        new => format!("{new} deliveries are lost"),
    };
    vec![format!(
        "{number}: see `tidings replay --missing`; when that is done, pass --known-losses {lost}"
    )]
}

fn expiring_credentials(reading: &Reading) -> Vec<String> {
    let at = |report: &Heartbeat| from_proto(report.credentials_expire_at);
    expiring(reading, EXPIRES_SOON, "credentials for NATS", at)
}

fn expiring_certificates(reading: &Reading) -> Vec<String> {
    let at = |report: &Heartbeat| from_proto(report.certificate_expires_at);
    let soon = CERTIFICATE_EXPIRES_SOON;
    expiring(reading, soon, "certificate of the event endpoint", at)
}

fn expiring(
    reading: &Reading,
    soon: Duration,
    what: &str,
    expires_at: impl Fn(&Heartbeat) -> Option<Timestamp>,
) -> Vec<String> {
    let alive = reading
        .heartbeats
        .iter()
        .filter(|report| is_alive(report, reading.now));
    let soon = after(reading.now, soon);
    alive
        .filter_map(|report| {
            let at = expires_at(report).filter(|at| *at <= soon)?;
            let (process, now) = (format!("{} on {}", report.role, report.host), reading.now);
            Some(match at <= now {
                true => format!("{process}: expired at {at:.0}: {what}"),
                false => {
                    let left = length(between(now, at));
                    format!("{process}: expires in {left}, at {at:.0}: {what}")
                }
            })
        })
        .collect()
}

/// A process for people.
fn name(process: &Process) -> String {
    match &process.cluster {
        Some(cluster) => format!("{} of {cluster} on {}", process.role, process.host),
        None => format!("{} on {}", process.role, process.host),
    }
}

#[cfg(test)]
mod tests;
