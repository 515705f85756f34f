//! The status as JSON. Scripts read it, so its keys and the codes of problems must not change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tidings_core::bus::heartbeats::is_alive;
use tidings_core::model::time::{between, from_proto, to_proto};
use tidings_core::runtime::scaling::ScalingAnswer;
use tidings_core::wire::Heartbeat;

use super::Known;
use super::problems::problems;
use super::reading::Reading;
use crate::command::providers::circuits::{as_json, as_text};
use crate::command::tool::time;

/// The most processes that are listed, those with the latest reports.
const MOST_PROCESSES: usize = 5000;

/// The output of `tidings status --output json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The time of the server's clock.
    pub at: String,
    /// What needs attention. Empty if all is well.
    pub problems: Vec<Problem>,
    pub processes: Vec<Process>,
    pub clusters: Vec<Cluster>,
    pub backlog: ScalingAnswer,
    /// Circuits that are not closed, as `tidings providers circuits` prints them.
    pub circuits: Vec<Value>,
    #[serde(skip)]
    pub circuit_lines: Vec<String>,
    pub dead_letters: DeadLetters,
    pub lost_deliveries: u64,
}

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub code: &'static str,
    pub message: String,
}

/// A process that runs, or that ended without removing its report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub role: String,
    pub process: String,
    pub host: String,
    pub version: String,
    /// The cluster of an ingest or `up`.
    pub cluster: Option<String>,
    /// The pools of a worker or `up`.
    pub pools: Vec<String>,
    pub started_at: String,
    /// How long ago it last reported.
    pub reported_seconds_ago: u64,
    pub is_alive: bool,
    pub is_ready: bool,
    /// Why it is not ready, or what works only in part.
    pub reason: Option<String>,
    /// Whether it is in shadow mode, and sends nothing.
    pub is_shadow: bool,
    pub credentials_expire_at: Option<String>,
    /// When the certificate of its event endpoint expires.
    pub certificate_expires_at: Option<String>,
}

/// A cluster whose events arrive here, or that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    /// Whether `tidings fleet` knows it.
    pub is_added: bool,
    pub is_revoked: bool,
    /// The number of ingests that run.
    pub ingests: usize,
    /// How long ago an ingest of it last reported; none reported in the last days if absent.
    pub reported_seconds_ago: Option<u64>,
    /// The versions of the ingests that run.
    pub versions: Vec<String>,
    /// What waits on its edges for the hub, as they last reported; absent without an edge.
    pub edge: Option<Edge>,
    pub last_event_at: Option<String>,
    /// The time since the last event.
    pub silent_seconds: Option<u64>,
}

/// Events that the edges of a cluster stored and that the hub does not have yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The sum of all edges.
    pub waiting: u64,
    /// The age of the oldest event of any edge.
    pub oldest_seconds: u64,
    /// For how long an edge has been silent; 0 if all report.
    pub silent_seconds: u64,
}

/// The most characters of the reason of a process.
const MOST_OF_A_REASON: usize = 500;

/// The dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetters {
    pub count: u64,
    pub last_at: Option<String>,
}

impl Report {
    /// The report of a reading.
    pub fn new(reading: &Reading, known: Known) -> Self {
        let dead = reading.dead_letters;
        let mut reports: Vec<&Heartbeat> = reading.heartbeats.iter().collect();
        // Processes of the hub first: a member may report as many ingests as it likes.
        reports.sort_by_key(|report| {
            let is_of_member = !report.cluster.is_empty() && report.role != "up";
            (is_of_member, Reverse(from_proto(report.at)))
        });
        reports.truncate(MOST_PROCESSES);
        let mut report = Self {
            at: text(reading.now),
            problems: Vec::new(),
            processes: reports
                .iter()
                .map(|report| Process::new(report, reading.now))
                .collect(),
            clusters: clusters(reading),
            backlog: ScalingAnswer::new(&reading.workload),
            circuits: reading.circuits.iter().map(as_json).collect(),
            circuit_lines: reading
                .circuits
                .iter()
                .map(|circuit| as_text(circuit, reading.now))
                .collect(),
            dead_letters: DeadLetters {
                count: dead.count,
                last_at: dead.last_at.map(text),
            },
            lost_deliveries: reading.lost,
        };
        report.processes.sort_by(|left, right| {
            let key = |process: &Process| (process.role.clone(), process.host.clone());
            key(left).cmp(&key(right))
        });
        report.problems = problems(&report, reading, known);
        report
    }

    /// The processes that run and have this role. `up` has every role.
    pub fn running(&self, role: &str) -> impl Iterator<Item = &Process> {
        let processes = self.processes.iter().filter(|process| process.is_alive);
        processes.filter(move |process| process.has_role(role))
    }
}

impl Process {
    fn new(report: &Heartbeat, now: Timestamp) -> Self {
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            role: report.role.clone(),
            process: report.process.clone(),
            host: report.host.clone(),
            version: report.version.clone(),
            cluster: optional(&report.cluster),
            pools: optional(&report.pool)
                .map(|pools| pools.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            started_at: time(report.started_at),
            reported_seconds_ago: seconds_since(from_proto(report.at), now).unwrap_or(u64::MAX),
            is_alive: is_alive(report, now),
            is_ready: report.ready,
            // A member may report a long one.
            reason: optional(&report.reason)
                .map(|reason| reason.chars().take(MOST_OF_A_REASON).collect()),
            is_shadow: report.shadow,
            credentials_expire_at: report.credentials_expire_at.map(|at| time(Some(at))),
            certificate_expires_at: report.certificate_expires_at.map(|at| time(Some(at))),
        }
    }

    /// Whether it does the work of a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.role == role || (self.role == "up" && role != "bridge")
    }
}

/// The clusters that were added or whose ingests reported, by name.
fn clusters(reading: &Reading) -> Vec<Cluster> {
    let mut names: BTreeSet<&str> = reading.clusters.keys().map(String::as_str).collect();
    let mut ingests = BTreeMap::<&str, Vec<&Heartbeat>>::new();
    for report in &reading.heartbeats {
        if !report.cluster.is_empty() {
            names.insert(&report.cluster);
            ingests.entry(&report.cluster).or_default().push(report);
        }
    }
    let none = Vec::new();
    names
        .into_iter()
        .map(|name| cluster(name, ingests.get(name).unwrap_or(&none), reading))
        .collect()
}

fn cluster(name: &str, ingests: &[&Heartbeat], reading: &Reading) -> Cluster {
    let now = reading.now;
    let alive: Vec<&&Heartbeat> = ingests
        .iter()
        .filter(|report| is_alive(report, now))
        .collect();
    let versions: BTreeSet<&str> = alive.iter().map(|report| report.version.as_str()).collect();
    let reported = ingests.iter().filter_map(|report| from_proto(report.at));
    let events = ingests
        .iter()
        .filter_map(|report| from_proto(report.last_event_at));
    let last_event = events.chain(reading.last_events.get(name).copied()).max();
    let added = reading.clusters.get(name);
    Cluster {
        name: name.to_owned(),
        is_added: added.is_some(),
        is_revoked: added.is_some_and(|added| added.revoked_at.is_some()),
        ingests: alive.len(),
        reported_seconds_ago: seconds_since(reported.max(), now),
        versions: versions.into_iter().map(str::to_owned).collect(),
        edge: edges(ingests, now),
        last_event_at: last_event.map(text),
        silent_seconds: seconds_since(last_event, now),
    }
}

/// The backlog of all edges of a cluster. One that does not run counts with its last report.
fn edges(ingests: &[&Heartbeat], now: Timestamp) -> Option<Edge> {
    let edges = ingests.iter().filter_map(|report| {
        let backlog = report.edge?;
        let silent = match is_alive(report, now) {
            true => None,
            false => seconds_since(from_proto(report.at), now),
        };
        Some(Edge {
            waiting: backlog.waiting,
            oldest_seconds: backlog.oldest_ms / 1000,
            silent_seconds: silent.unwrap_or_default(),
        })
    });
    edges.reduce(|left, right| Edge {
        waiting: left.waiting.saturating_add(right.waiting),
        oldest_seconds: left.oldest_seconds.max(right.oldest_seconds),
        silent_seconds: left.silent_seconds.max(right.silent_seconds),
    })
}

fn seconds_since(time: Option<Timestamp>, now: Timestamp) -> Option<u64> {
    time.map(|time| between(time, now).as_secs())
}

fn text(at: Timestamp) -> String {
    time(Some(to_proto(at)))
}
