//! The newest reports of each cluster. A member may write any number of reports below its own name,
//! so each reader keeps as many of a cluster as a member may have connections.

use std::collections::HashMap;

use crate::bus::records::StoredRecord;
use crate::wire::Heartbeat;

/// The most reports of a cluster, and those of roles without one.
const MOST_OF_CLUSTER: usize = 64;
const MOST_OF_HUB: usize = 4096;

type Report = StoredRecord<Heartbeat>;

/// The reports that are kept, by the cluster of their key and by their key.
#[derive(Default)]
pub(super) struct Newest {
    kept: HashMap<String, HashMap<String, Report>>,
}

impl Newest {
    /// Keeps the report of a key, or forgets it. The last one of a key counts.
    pub(super) fn see(&mut self, key: String, report: Option<Report>) {
        let cluster = key.split('.').next().unwrap_or_default().to_owned();
        let most = most_of(&cluster);
        let of_cluster = self.kept.entry(cluster).or_default();
        let Some(report) = report else {
            of_cluster.remove(&key);
            return;
        };
        of_cluster.insert(key, report);
        // Rarely, because it looks at all.
        if of_cluster.len() > most * 2 {
            keep_newest(of_cluster, most);
        }
    }

    /// What is kept in the end.
    pub(super) fn into_reports(self) -> impl Iterator<Item = Report> {
        self.kept.into_iter().flat_map(|(cluster, mut of_cluster)| {
            keep_newest(&mut of_cluster, most_of(&cluster));
            of_cluster.into_values()
        })
    }
}

/// The most reports below the token of a cluster.
fn most_of(cluster: &str) -> usize {
    match cluster {
        "=" => MOST_OF_HUB,
        _ => MOST_OF_CLUSTER,
    }
}

fn keep_newest(reports: &mut HashMap<String, Report>, most: usize) {
    if reports.len() <= most {
        return;
    }
    let mut revisions: Vec<u64> = reports.values().map(|report| report.revision).collect();
    revisions.sort_unstable_by(|a, b| b.cmp(a));
    let oldest = revisions[most - 1];
    reports.retain(|_, report| report.revision >= oldest);
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn report(key: &str, revision: u64) -> Report {
        StoredRecord {
            key: key.to_owned(),
            value: Heartbeat::default(),
            stored_at: Timestamp::UNIX_EPOCH,
            revision,
        }
    }

    fn kept(newest: Newest) -> Vec<String> {
        let mut keys: Vec<_> = newest.into_reports().map(|report| report.key).collect();
        keys.sort();
        keys
    }

    #[test]
    fn a_cluster_with_too_many_reports_hides_none_of_another() {
        let mut newest = Newest::default();
        for revision in 1..=1000 {
            let key = format!("many.ingest.p{revision}");
            newest.see(key.clone(), Some(report(&key, revision)));
            if revision == 10 {
                let other = "other.ingest.p".to_owned();
                newest.see(other.clone(), Some(report(&other, revision)));
            }
        }
        let mut expected: Vec<_> = (937..=1000).map(|n| format!("many.ingest.p{n}")).collect();
        expected.push("other.ingest.p".to_owned());
        expected.sort();
        assert_eq!(kept(newest), expected);
    }

    #[test]
    fn a_hub_may_have_more_processes_than_a_member() {
        let mut newest = Newest::default();
        for revision in 1..=200 {
            let key = format!("=.worker.p{revision}");
            newest.see(key.clone(), Some(report(&key, revision)));
        }
        assert_eq!(kept(newest).len(), 200);
    }

    #[test]
    fn a_report_that_was_removed_is_not_kept() {
        let mut newest = Newest::default();
        let key = "dev.ingest.p".to_owned();
        newest.see(key.clone(), Some(report(&key, 1)));
        newest.see(key, None);
        assert!(kept(newest).is_empty());
    }
}
