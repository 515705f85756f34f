//! What waits on the edges of the fleet, as they last reported, in metrics of the hub: the metrics
//! of the edges themselves are often scraped in their clusters only.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::bus::heartbeats::is_alive;
use crate::model::time::{between, from_proto};
use crate::runtime::codes::log as codes;
use crate::runtime::log_pace::LogPace;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::bounded::{MOST_CLUSTERS, OTHER};
use crate::runtime::metrics::labels::ClusterLabel;
use crate::wire::Heartbeat;

/// How often the reports are read.
const READ_EVERY: Duration = Duration::from_secs(10);
/// The longest pause after errors.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What waits on the edges of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Backlog {
    waiting: u64,
    oldest: Duration,
}

/// Reads the reports again and again until `stop`.
pub async fn run(bus: Bus, metrics: Metrics, stop: CancellationToken) {
    let (mut shown, mut pace) = (HashSet::new(), LogPace::default());
    let mut pause = Duration::ZERO;
    while stop.run_until_cancelled(sleep(pause)).await.is_some() {
        let Some(read) = stop.run_until_cancelled(bus.heartbeats()).await else {
            return;
        };
        match read {
            Ok(reports) => {
                pace.reset();
                pause = READ_EVERY;
                let backlogs = bounded(of(&reports, bus.clock().now()));
                show(&backlogs, &metrics, &mut shown);
            }
            // The client logs each refusal of the server, so a user without permission asks rarely.
            Err(error) => {
                pause = (pause * 2).clamp(READ_EVERY, LONGEST_PAUSE);
                if pace.is_due(&error.to_string(), Instant::now()) {
                    tracing::warn!(
                        code = codes::EDGE_BACKLOGS_UNREADABLE,
                        %error,
                        "cannot read what waits on edges, retrying"
                    );
                }
            }
        }
    }
}

fn show(
    backlogs: &BTreeMap<String, Backlog>,
    metrics: &Metrics,
    shown: &mut HashSet<ClusterLabel>,
) {
    let (waiting, oldest) = (
        &metrics.fleet_edge_events_waiting,
        &metrics.fleet_edge_oldest_waiting_seconds,
    );
    let mut now = HashSet::new();
    for (cluster, backlog) in backlogs {
        let cluster = cluster.clone();
        let label = ClusterLabel { cluster };
        let events = i64::try_from(backlog.waiting).unwrap_or(i64::MAX);
        waiting.get_or_create(&label).set(events);
        let seconds = backlog.oldest.as_secs_f64();
        oldest.get_or_create(&label).set(seconds);
        now.insert(label);
    }
    for gone in shown.difference(&now) {
        waiting.remove(gone);
        oldest.remove(gone);
    }
    *shown = now;
}

/// The backlog of each cluster with an edge. What a silent edge holds ages meanwhile.
fn of(reports: &[Heartbeat], now: Timestamp) -> BTreeMap<String, Backlog> {
    let mut backlogs: BTreeMap<String, Backlog> = BTreeMap::new();
    for report in reports {
        let Some(edge) = report.edge else { continue };
        let age = match (edge.waiting, is_alive(report, now)) {
            (0, _) | (_, true) => Duration::ZERO,
            _ => from_proto(report.at).map_or(Duration::ZERO, |at| between(at, now)),
        };
        let backlog = backlogs.entry(report.cluster.clone()).or_default();
        backlog.waiting = backlog.waiting.saturating_add(edge.waiting);
        let oldest = Duration::from_millis(edge.oldest_ms).saturating_add(age);
        backlog.oldest = backlog.oldest.max(oldest);
    }
    backlogs
}

/// Adds up what exceeds the most clusters.
fn bounded(backlogs: BTreeMap<String, Backlog>) -> BTreeMap<String, Backlog> {
    if backlogs.len() <= MOST_CLUSTERS {
        return backlogs;
    }
    let mut sorted: Vec<_> = backlogs.into_iter().collect();
    sorted.sort_by_key(|(_, backlog)| std::cmp::Reverse(backlog.waiting));
    let others = sorted.split_off(MOST_CLUSTERS);
    let mut bounded: BTreeMap<_, _> = sorted.into_iter().collect();
    let sum = others
        .iter()
        .fold(Backlog::default(), |sum, (_, backlog)| Backlog {
            waiting: sum.waiting.saturating_add(backlog.waiting),
            oldest: sum.oldest.max(backlog.oldest),
        });
    bounded.insert(OTHER.to_owned(), sum);
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::to_proto;
    use crate::wire::EdgeBacklog;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn report(cluster: &str, host: &str, second: i64, waiting: u64) -> Heartbeat {
        Heartbeat {
            cluster: cluster.to_owned(),
            host: host.to_owned(),
            at: Some(to_proto(at(second))),
            edge: Some(EdgeBacklog {
                waiting,
                oldest_ms: waiting * 1000,
            }),
            ..Heartbeat::default()
        }
    }

    #[test]
    fn each_cluster_has_the_backlog_of_its_edges() {
        let without = Heartbeat {
            cluster: "direct".to_owned(),
            ..Heartbeat::default()
        };
        let reports = [
            report("dev", "a", 1000, 3),
            report("dev", "b", 999, 2),
            report("silent", "c", 900, 5),
            report("empty", "d", 900, 0),
            without,
        ];
        let backlog = |waiting, seconds| Backlog {
            waiting,
            oldest: Duration::from_secs(seconds),
        };
        let expected = [
            ("dev", backlog(5, 3)),
            ("empty", backlog(0, 0)),
            ("silent", backlog(5, 105)),
        ];
        let expected = expected.map(|(cluster, backlog)| (cluster.to_owned(), backlog));
        assert_eq!(of(&reports, at(1000)), expected.into());
    }

    #[test]
    fn clusters_beyond_the_bound_share_a_series() {
        let count = u64::try_from(MOST_CLUSTERS).unwrap() + 2;
        let reports: Vec<_> = (1..=count)
            .map(|number| report(&format!("c{number}"), "a", 1000, number))
            .collect();
        let bounded = bounded(of(&reports, at(1000)));
        assert_eq!(bounded.len(), MOST_CLUSTERS + 1);
        assert_eq!(bounded[OTHER].waiting, 1 + 2);
        assert!(bounded.contains_key(&format!("c{count}")));
    }

    #[test]
    fn a_cluster_that_is_gone_has_no_series() {
        let (metrics, mut shown) = (Metrics::default(), HashSet::new());
        show(
            &of(&[report("dev", "a", 1000, 3)], at(1000)),
            &metrics,
            &mut shown,
        );
        let series = "tidings_fleet_edge_events_waiting{cluster=\"dev\"} 3";
        assert!(metrics.render().contains(series));
        show(&BTreeMap::new(), &metrics, &mut shown);
        assert!(!metrics.render().contains("cluster=\"dev\""));
    }
}
