//! The bucket `heartbeats`: every process reports that it runs.
//!
//! A report is published without opening the bucket, so that an ingest needs one permission only:
//! to publish to its own keys.

mod newest;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use jiff::Timestamp;
use prost::Message as _;

use crate::bus::heartbeats::newest::Newest;
use crate::bus::records::{OPERATION, Records, StoredRecord};
use crate::bus::{Bus, BusError, records, streams};
use crate::model::time::{between, from_proto, to_proto};
use crate::model::token::Token;
use crate::wire::Heartbeat;

/// How often a process reports.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// A process whose last report is older than this does not count as alive.
pub const ALIVE_FOR: Duration = Duration::from_secs(20);

/// The most bytes of a report, as the bucket accepts it.
const LARGEST: usize = 4 << 10;

/// What this process stored in EVENTS.
#[derive(Debug, Default)]
pub struct StoredEvents {
    count: AtomicU64,
    /// In milliseconds since 1970; 0 before the first.
    last_ms: AtomicI64,
}

impl StoredEvents {
    pub(super) fn note(&self, at: Timestamp) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let at = at.as_millisecond();
        self.last_ms.fetch_max(at, Ordering::Relaxed);
    }

    /// The number of events since the process started.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// When the last one was stored, by the server's clock.
    pub fn last_at(&self) -> Option<Timestamp> {
        let last = self.last_ms.load(Ordering::Relaxed);
        (last > 0).then(|| Timestamp::from_millisecond(last).ok())?
    }
}

/// Whether a process counts as alive at a time of the server's clock.
pub fn is_alive(heartbeat: &Heartbeat, now: Timestamp) -> bool {
    let at = from_proto(heartbeat.at);
    at.is_some_and(|at| between(at, now) <= ALIVE_FOR)
}

impl Bus {
    /// Reports that a process runs.
    ///
    /// # Errors
    /// The report might not be stored.
    pub async fn report_heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), BusError> {
        let payload = heartbeat.encode_to_vec().into();
        let message = PublishMessage::build().payload(payload);
        self.publish(subject(heartbeat), message).await?;
        Ok(())
    }

    /// Removes the report of a process that stops.
    ///
    /// # Errors
    /// The report may still be there.
    pub async fn remove_heartbeat(&self, heartbeat: &Heartbeat) -> Result<(), BusError> {
        // The bucket permits no rollup, so the deletion expires as a report does.
        let message = PublishMessage::build().header(OPERATION, "DEL");
        self.publish(subject(heartbeat), message).await?;
        Ok(())
    }

    /// Reads the last report of each process that did not stop by itself. `at` is the time at which
    /// the server stored the report, so that it does not depend on the clock of the process.
    ///
    /// The server checks who may write a key, but not the value. So a report whose value says
    /// something else than its key is left out, and so is a router or worker of a cluster. Of a
    /// cluster, only the newest 64 count.
    ///
    /// After a restart of the server there is no bucket, and so no report, until a router or worker
    /// recreates it.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn heartbeats(&self) -> Result<Vec<Heartbeat>, BusError> {
        let stream = format!("KV_{}", streams::HEARTBEATS);
        let found = self.find_stream(&stream).await;
        if found.map_err(BusError::Unavailable)?.is_none() {
            return Ok(Vec::new());
        }
        let records = Records::open(self, streams::HEARTBEATS).await?;
        let mut newest = Newest::default();
        let see = |key: String, report: Option<StoredRecord<Heartbeat>>| {
            newest.see(key, report.filter(is_proven));
            true
        };
        records.each(">", LARGEST, see).await?;
        let reports = newest.into_reports().map(|record| Heartbeat {
            at: Some(to_proto(record.stored_at)),
            ..record.value
        });
        Ok(reports.collect())
    }
}

/// Whether a report may be stored under a key.
fn is_proven(stored: &StoredRecord<Heartbeat>) -> bool {
    let heartbeat = &stored.value;
    let has_cluster = matches!(heartbeat.role.as_str(), "ingest" | "up");
    stored.key == key(heartbeat) && has_cluster != heartbeat.cluster.is_empty()
}

fn subject(heartbeat: &Heartbeat) -> String {
    records::subject(streams::HEARTBEATS, &key(heartbeat))
}

fn key(heartbeat: &Heartbeat) -> String {
    let [cluster, role, process] =
        [&heartbeat.cluster, &heartbeat.role, &heartbeat.process].map(|part| Token::new(part));
    format!("{cluster}.{role}.{process}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_its_own_key_below_its_cluster() {
        let heartbeat = |cluster: &str, role: &str| Heartbeat {
            cluster: cluster.to_owned(),
            role: role.to_owned(),
            process: "host_1".to_owned(),
            ..Heartbeat::default()
        };
        for (cluster, role, expected) in [
            (
                "prod.eu",
                "ingest",
                "$KV.heartbeats.prod=2Eeu.ingest.host_1",
            ),
            ("", "worker", "$KV.heartbeats.=.worker.host_1"),
        ] {
            assert_eq!(subject(&heartbeat(cluster, role)), expected);
        }
    }

    #[test]
    fn a_report_under_another_key_than_its_own_proves_nothing() {
        let heartbeat = |cluster: &str, role: &str| Heartbeat {
            cluster: cluster.to_owned(),
            role: role.to_owned(),
            process: "p".to_owned(),
            ..Heartbeat::default()
        };
        for (key, cluster, role, proven) in [
            ("dev.ingest.p", "dev", "ingest", true),
            ("dev.up.p", "dev", "up", true),
            ("=.worker.p", "", "worker", true),
            ("dev.ingest.p", "prod", "ingest", false),
            ("dev.ingest.p", "dev", "up", false),
            ("dev.worker.p", "dev", "worker", false),
            ("=.ingest.p", "", "ingest", false),
        ] {
            let stored = StoredRecord {
                key: key.to_owned(),
                value: heartbeat(cluster, role),
                stored_at: Timestamp::UNIX_EPOCH,
                revision: 1,
            };
            assert_eq!(is_proven(&stored), proven, "{key} {cluster} {role}");
        }
    }

    #[test]
    fn a_process_is_alive_for_twenty_seconds_after_its_last_report() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let heartbeat = Heartbeat {
            at: Some(to_proto(at(100))),
            ..Heartbeat::default()
        };
        // A clock that is behind makes no process dead.
        for (now, alive) in [(90, true), (100, true), (120, true), (121, false)] {
            assert_eq!(is_alive(&heartbeat, at(now)), alive, "{now}");
        }
        assert!(!is_alive(&Heartbeat::default(), at(100)));
    }

    #[test]
    fn stored_events_are_counted() {
        let events = StoredEvents::default();
        assert_eq!((events.count(), events.last_at()), (0, None));
        let at = |second| Timestamp::from_second(second).unwrap();
        events.note(at(7));
        events.note(at(5));
        assert_eq!((events.count(), events.last_at()), (2, Some(at(7))));
    }
}
