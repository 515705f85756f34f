//! The circuits of all destinations, in the bucket `limits`. All workers share them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_nats::jetstream::kv::Entry;
use futures::StreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::bus::records::{Records, decode};
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::destination::{Destination, PREFIX};
use crate::model::jitter::jitter;
use crate::runtime::codes::log as codes;
use crate::wire::Circuit;

/// The pause before a failed watch starts again.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// The most bytes of a circuit that is read together with others.
const LARGEST: usize = 64 << 10;
/// How often a watch checks that its bucket was not recreated.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Reads, changes and watches circuits.
#[derive(Clone)]
pub struct Circuits {
    records: Records,
}

/// A circuit as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredCircuit {
    /// The circuit. Closed if there is no record.
    pub circuit: Circuit,
    /// The revision for [`Circuits::store`]. `None` if there is no record.
    pub revision: Option<u64>,
}

impl Circuits {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            records: Records::open(bus, streams::LIMITS).await?,
        })
    }

    /// Reads all circuits that have a record: a call failed, or a user paused them.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn all(&self) -> Result<Vec<StoredCircuit>, BusError> {
        let circuits = self.records.all(&format!("{PREFIX}>"), LARGEST).await?;
        let stored = circuits.into_iter().map(|record| StoredCircuit {
            circuit: record.value,
            revision: Some(record.revision),
        });
        Ok(stored.collect())
    }

    /// Reads the circuit of a destination.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn load(&self, destination: &Destination) -> Result<StoredCircuit, BusError> {
        let (circuit, revision) = self.records.load(&destination.key()).await?;
        Ok(StoredCircuit {
            circuit: circuit.unwrap_or_else(|| destination.closed()),
            revision,
        })
    }

    /// Stores a circuit if it is still at `revision`. Returns the new revision, or `None` if
    /// another process changed it.
    ///
    /// # Errors
    /// The circuit might not be stored.
    pub async fn store(
        &self,
        destination: &Destination,
        circuit: &Circuit,
        revision: Option<u64>,
    ) -> Result<Option<u64>, BusError> {
        self.records
            .store(&destination.key(), circuit, revision)
            .await
    }

    /// Calls `report` with every circuit, then with every change, until `stop`.
    ///
    /// After an interruption every circuit is reported again. A circuit whose record was deleted,
    /// alone or with the bucket, is reported as closed and without a revision.
    pub async fn watch(&self, stop: CancellationToken, mut report: impl FnMut(StoredCircuit)) {
        let mut reported = Reported::default();
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.watch_until_error(&mut reported, &mut report) => ended,
            };
            let trouble = match ended {
                Ok(()) => "the watch ended".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(
                code = codes::CIRCUIT_WATCH_FAILED,
                error = %trouble,
                "circuit watch failed, retrying"
            );
            let pause = tokio::time::sleep(jitter(WATCH_PAUSE));
            let _ = stop.run_until_cancelled(pause).await;
        }
    }

    async fn watch_until_error(
        &self,
        reported: &mut Reported,
        report: &mut impl FnMut(StoredCircuit),
    ) -> Result<(), BusError> {
        let created = self.records.created().await?;
        let keys: HashSet<String> = self.records.keys().await?.into_iter().collect();
        for deleted in reported.remove_deleted(created, &keys) {
            report(StoredCircuit::deleted(&deleted));
        }
        let mut watch = self.records.watch(&format!("{PREFIX}>")).await?;
        let mut check = tokio::time::interval(CHECK_EVERY);
        loop {
            let entry = tokio::select! {
                entry = watch.next() => entry,
                // A watch does not end when its bucket is deleted and recreated.
                _ = check.tick() => match self.records.created().await? == created {
                    true => continue,
                    false => return Ok(()),
                },
            };
            let Some(entry) = entry else { return Ok(()) };
            let changed = reported.change(&entry.map_err(unavailable)?);
            changed.into_iter().for_each(&mut *report);
        }
    }
}

impl StoredCircuit {
    fn deleted(destination: &Destination) -> Self {
        Self {
            circuit: destination.closed(),
            revision: None,
        }
    }
}

/// The circuits that a watch has reported, by key.
#[derive(Default)]
struct Reported {
    all: HashMap<String, Destination>,
    /// When the bucket that they were read from was created.
    bucket_created: Option<Timestamp>,
}

impl Reported {
    /// Removes the circuits that are no longer in the bucket, and returns their destinations.
    /// A recreated bucket removes all, because the revisions of the former one are invalid.
    fn remove_deleted(&mut self, created: Timestamp, keys: &HashSet<String>) -> Vec<Destination> {
        let before = self.bucket_created.replace(created);
        let is_recreated = before.is_some_and(|before| before != created);
        self.all
            .extract_if(|key, _| is_recreated || !keys.contains(key))
            .map(|(_, destination)| destination)
            .collect()
    }

    /// Records a change, and returns the circuit to report.
    fn change(&mut self, entry: &Entry) -> Option<StoredCircuit> {
        match decode(entry) {
            Some(circuit) => Some(self.add(StoredCircuit {
                circuit,
                revision: Some(entry.revision),
            })),
            None => {
                let deleted = self.all.remove(&entry.key)?;
                Some(StoredCircuit::deleted(&deleted))
            }
        }
    }

    fn add(&mut self, stored: StoredCircuit) -> StoredCircuit {
        let destination = Destination::of(&stored.circuit);
        self.all.insert(destination.key(), destination);
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys<const N: usize>(names: [&str; N]) -> HashSet<String> {
        names
            .map(|name| Destination::whole("apps", name).key())
            .into()
    }

    #[test]
    fn a_reported_circuit_that_is_deleted_is_found() {
        let (mut reported, created) = (Reported::default(), Timestamp::UNIX_EPOCH);
        let deleted = reported.remove_deleted(created, &keys(["a", "b"]));
        assert!(deleted.is_empty());
        for name in ["a", "b"] {
            reported.add(StoredCircuit {
                circuit: Destination::whole("apps", name).closed(),
                revision: Some(1),
            });
        }
        let deleted = reported.remove_deleted(created, &keys(["a", "b"]));
        assert!(deleted.is_empty());
        let deleted = reported.remove_deleted(created, &keys(["a"]));
        assert_eq!(deleted, [Destination::whole("apps", "b")]);
        let recreated = created + Duration::from_secs(1);
        let deleted = reported.remove_deleted(recreated, &keys(["a"]));
        assert_eq!(
            deleted,
            [Destination::whole("apps", "a")],
            "revisions of a former bucket are invalid"
        );
    }
}
