//! The bucket `clusters`: the clusters of the fleet, as operators of the hub describe them.

use std::collections::BTreeMap;

use async_nats::jetstream::kv::Operation;
use futures::StreamExt;
use jiff::Timestamp;

use crate::bus::records::{BucketVersion, Found, Records, decode};
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::time::from_proto;
use crate::model::token::Token;
use crate::wire::Cluster;

/// The most bytes of a record that is read together with others: 64 labels and many namespaces.
const LARGEST: usize = 256 << 10;

/// The clusters by name.
pub type Clusters = BTreeMap<String, Cluster>;

/// The names that a cluster had before it was renamed.
pub fn former_names<'a>(clusters: &'a Clusters, name: &str) -> &'a [String] {
    let cluster = clusters.get(name);
    cluster.map_or(&[], |cluster| cluster.former_names.as_slice())
}

/// Whether two names are those of one cluster, which was renamed.
pub fn are_names_of_one_cluster(clusters: &Clusters, one: &str, other: &str) -> bool {
    let has = |name: &str, former: &str| former_names(clusters, name).iter().any(|it| it == former);
    has(one, other) || has(other, one)
}

/// Whether two names are those of one cluster, and the former one was not given to another cluster
/// since: then its record is newer than that of the new name.
pub fn are_still_of_one_cluster(clusters: &Clusters, one: &str, other: &str) -> bool {
    let added = |name: &str| {
        let cluster = clusters.get(name);
        cluster.map(|cluster| from_proto(cluster.added_at).unwrap_or(Timestamp::MIN))
    };
    let has = |name: &str, former: &str| {
        let is_former = former_names(clusters, name).iter().any(|it| it == former);
        is_former && added(former) <= added(name)
    };
    has(one, other) || has(other, one)
}

/// Reads and changes the records of clusters.
#[derive(Clone)]
pub struct ClusterRecords {
    records: Records,
}

impl ClusterRecords {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        let records = Records::open(bus, streams::CLUSTERS).await?;
        Ok(Self { records })
    }

    /// The version of the bucket. A deleted bucket is first recreated, empty.
    pub(super) async fn version(&self) -> Result<BucketVersion, BusError> {
        self.records.version().await
    }

    /// Reads all clusters.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn all(&self) -> Result<Clusters, BusError> {
        let stored = self.records.all::<Cluster>(">", LARGEST).await?;
        let named = stored.into_iter().map(|record| record.value);
        Ok(named
            .map(|cluster| (cluster.name.clone(), cluster))
            .collect())
    }

    /// Reads a cluster, and its revision for [`ClusterRecords::store`].
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn load(&self, name: &str) -> Result<(Option<Cluster>, Option<u64>), BusError> {
        self.records.load(&key(name)).await
    }

    /// Stores a cluster if it is still at `revision`; `None` means that there must be none. Returns
    /// whether it was stored.
    ///
    /// # Errors
    /// The cluster might not be stored.
    pub async fn store(&self, cluster: &Cluster, revision: Option<u64>) -> Result<bool, BusError> {
        let key = key(&cluster.name);
        let stored = self.records.store(&key, cluster, revision).await?;
        Ok(stored.is_some())
    }

    /// Deletes a cluster.
    ///
    /// # Errors
    /// The record may still be there.
    pub async fn remove(&self, name: &str) -> Result<(), BusError> {
        self.records.remove(&key(name)).await
    }

    /// Calls `changed` with all clusters, now and after each change. Returns when the server ends
    /// the watch.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn follow(&self, mut changed: impl FnMut(&Clusters)) -> Result<(), BusError> {
        let mut by_key = BTreeMap::<String, Cluster>::new();
        let all = |by_key: &BTreeMap<String, Cluster>| {
            let named = |cluster: &Cluster| (cluster.name.clone(), cluster.clone());
            by_key.values().map(named).collect::<Clusters>()
        };
        let version = self.records.version().await?;
        if version.holds_nothing() {
            changed(&Clusters::new());
        }
        let mut entries = self.records.watch(">").await?;
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(unavailable)?;
            match decode::<Cluster>(&entry) {
                Some(cluster) => by_key.insert(entry.key.clone(), cluster),
                None if entry.operation == Operation::Put => None,
                None => by_key.remove(&entry.key),
            };
            // The first entries come together.
            if entry.delta == 0 {
                changed(&all(&by_key));
            }
        }
        Ok(())
    }
}

impl Bus {
    /// Reads a cluster with one request, which the credentials of a member permit for its own.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn cluster(&self, name: &str) -> Result<Found<Cluster>, BusError> {
        self.record(streams::CLUSTERS, &key(name)).await
    }
}

fn key(name: &str) -> String {
    Token::new(name).as_str().to_owned()
}
