//! What the edges of a cluster hold, before the cluster is removed or renamed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use tidings_core::bus::Bus;
use tidings_core::bus::heartbeats::is_alive;
use tidings_core::model::time::from_proto;
use tidings_core::wire::Heartbeat;

/// The most edges that are listed.
const MOST_LISTED: usize = 1_000;
/// An edge that runs reports every five seconds.
const REPORTS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the hub knows of the edges of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// Events that the hub does not have yet, as edges have just reported.
    pub waiting: u64,
    /// Edges that do not report any more, and did not stop by themselves: what they hold is not
    /// known.
    pub silent: Vec<String>,
}

impl Edges {
    /// What was reported. An edge is silent if its last report is older than `since`, or as old as
    /// that of a process that does not run. One that runs again, maybe under another name of this
    /// cluster, is not.
    pub fn of(
        reported: &[Heartbeat],
        cluster: &str,
        names: &BTreeSet<&str>,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let runs = |report: &Heartbeat| is_alive(report, now) && is_reported(report, since);
        let edges = reported
            .iter()
            .filter(|report| report.edge.is_some() && names.contains(report.cluster.as_str()));
        let (alive, silent): (Vec<_>, Vec<_>) = edges.partition(|report| runs(report));
        let running: BTreeSet<&str> = alive.iter().map(|report| report.process.as_str()).collect();
        let hosts: BTreeSet<&str> = silent
            .iter()
            .filter(|report| report.cluster == cluster)
            .filter(|report| !running.contains(report.process.as_str()))
            .map(|report| report.host.as_str())
            .collect();
        let of_cluster = reported.iter().filter(|report| report.cluster == cluster);
        let recent = of_cluster.filter(|report| is_alive(report, now));
        let waiting = recent.filter_map(|report| report.edge.as_ref());
        let hosts = hosts.into_iter().take(MOST_LISTED);
        Self {
            waiting: waiting.map(|backlog| backlog.waiting).sum(),
            silent: hosts.map(str::to_owned).collect(),
        }
    }

    /// Checks that no event of the cluster waits on an edge, which could not forward it any more.
    ///
    /// # Errors
    /// Some do, or an edge is silent and may hold some.
    pub fn check(&self, cluster: &str) -> anyhow::Result<()> {
        ensure!(
            self.waiting == 0,
            "nothing was changed: {} events of cluster {cluster} wait on its edges, and the hub \
             could not get them any more: wait until `tidings status` shows none, or pass \
             --discard-waiting to lose them",
            self.waiting
        );
        ensure!(
            self.silent.is_empty(),
            "nothing was changed: edge {} of cluster {cluster} is silent and may hold events, \
             which the hub could not get any more: start it again and wait until `tidings status` \
             shows none, or pass --discard-waiting to lose them",
            self.silent.join(", ")
        );
        Ok(())
    }

    /// What becomes of events that the hub does not have yet.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.waiting > 0 {
            let events = match self.waiting {
                1 => "1 event waits".to_owned(),
                number => format!("{number} events wait"),
            };
            lines.push(format!(
                "{events} on edges and would be lost: needs --discard-waiting"
            ));
        }
        for edge in &self.silent {
            lines.push(format!(
                "edge {edge} is silent, and may hold events, which would be lost: needs \
                 --discard-waiting"
            ));
        }
        lines
    }
}

/// Waits until each edge of these names that counts as alive has reported again. One that lost the
/// hub just now counts as alive for some seconds, and may accept events meanwhile. Returns the time
/// that reports must not precede.
///
/// # Errors
/// The bus is unavailable.
pub async fn wait_for_reports(bus: &Bus, names: &BTreeSet<&str>) -> anyhow::Result<Timestamp> {
    bus.sample_clock().await?;
    let since = bus.clock().now();
    let looks = REPORTS_WITHIN.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks {
        let reported = bus.heartbeats().await;
        let reported = reported.context("cannot read the bucket heartbeats")?;
        let now = bus.clock().now();
        let missing = reported.iter().any(|report| {
            let is_edge = names.contains(report.cluster.as_str()) && report.edge.is_some();
            is_edge && is_alive(report, now) && !is_reported(report, Some(since))
        });
        if !missing {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(since)
}

fn is_reported(report: &Heartbeat, since: Option<Timestamp>) -> bool {
    since.is_none_or(|since| from_proto(report.at).is_some_and(|at| at >= since))
}

#[cfg(test)]
mod tests {
    use tidings_core::model::time::to_proto;
    use tidings_core::wire::EdgeBacklog;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn edge(cluster: &str, process: &str, second: i64) -> Heartbeat {
        Heartbeat {
            cluster: cluster.to_owned(),
            process: process.to_owned(),
            host: format!("host-of-{process}"),
            at: Some(to_proto(at(second))),
            edge: Some(EdgeBacklog::default()),
            ..Heartbeat::default()
        }
    }

    #[test]
    fn an_edge_is_silent_until_it_runs_again() {
        let direct = Heartbeat {
            edge: None,
            ..edge("dev", "direct", 900)
        };
        let reported = [
            edge("dev", "gone", 950),
            edge("dev", "running", 999),
            edge("dev", "renamed", 900),
            edge("prod", "renamed", 999),
            edge("dev", "same", 900),
            edge("other", "same", 999),
            edge("other", "far", 900),
            direct,
        ];
        let of_dev = BTreeSet::from(["dev", "prod"]);
        for since in [None, Some(at(998))] {
            let edges = Edges::of(&reported, "dev", &of_dev, since, at(1000));
            assert_eq!(edges.silent, ["host-of-gone", "host-of-same"], "{since:?}");
        }
        let silent = |cluster, names| Edges::of(&reported, cluster, names, None, at(1000)).silent;
        assert_eq!(silent("prod", &of_dev), [""; 0]);
        assert_eq!(silent("other", &BTreeSet::from(["other"])), ["host-of-far"]);
    }

    #[test]
    fn an_edge_that_has_not_reported_again_is_silent() {
        let waits = Heartbeat {
            edge: Some(EdgeBacklog {
                waiting: 3,
                oldest_ms: 1,
            }),
            ..edge("dev", "waits", 999)
        };
        let reported = [edge("dev", "cut", 995), waits];
        let of_dev = BTreeSet::from(["dev"]);
        let edges = |since| Edges::of(&reported, "dev", &of_dev, since, at(1000));
        assert_eq!(edges(None).silent, [""; 0]);
        let since = edges(Some(at(996)));
        assert_eq!(
            (since.waiting, since.silent),
            (3, vec!["host-of-cut".to_owned()])
        );
    }
}
