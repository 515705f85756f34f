//! The bucket `clusters`: the clusters of the fleet, as operators of the hub describe them.

use std::collections::{BTreeMap, BTreeSet};

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

/// The names that a cluster had before it was renamed, except those that another cluster got since.
pub fn former_names<'a>(clusters: &'a Clusters, name: &'a str) -> impl Iterator<Item = &'a str> {
    let cluster = clusters.get(name).into_iter();
    cluster.flat_map(move |cluster| {
        let former = cluster.former_names.iter().map(String::as_str);
        former.filter(move |former| !is_of_another(clusters, cluster, former))
    })
}

/// Whether two names are those of one cluster, which was renamed.
pub fn are_names_of_one_cluster(clusters: &Clusters, one: &str, other: &str) -> bool {
    had_before(clusters, one, other) || had_before(clusters, other, one)
}

/// Whether a cluster had this name before it was renamed. The names are compared first: this is
/// asked for each pair of an event and an Alert, and few clusters were ever renamed.
fn had_before(clusters: &Clusters, name: &str, former: &str) -> bool {
    clusters.get(name).is_some_and(|cluster| {
        cluster.former_names.iter().any(|name| name == former)
            && !is_of_another(clusters, cluster, former)
    })
}

/// All names of a cluster that was renamed: this one, and those of former and later times.
pub fn names_of_cluster<'a>(clusters: &'a Clusters, name: &'a str) -> BTreeSet<&'a str> {
    let later = clusters.keys().map(String::as_str);
    let later = later.filter(|later| are_names_of_one_cluster(clusters, later, name));
    let former = former_names(clusters, name);
    std::iter::once(name).chain(former).chain(later).collect()
}

/// Whether another cluster got a former name of this one after this one got its own name. The other
/// has the name now, or had it before it was renamed.
fn is_of_another(clusters: &Clusters, cluster: &Cluster, former: &str) -> bool {
    let added = |cluster: &Cluster| from_proto(cluster.added_at).unwrap_or(Timestamp::MIN);
    let is_renamed = |other: &Cluster| other.former_names.contains(&cluster.name);
    let has_had = |other: &Cluster| other.former_names.iter().any(|name| name == former);
    let has_it = |other: &Cluster| other.name == former || has_had(other) && !is_renamed(other);
    let mut later = clusters
        .values()
        .filter(|other| added(other) > added(cluster));
    later.any(has_it)
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

    /// Removes a name that a new cluster gets from the former names of all others but one. The name
    /// does not return to them when the new cluster is removed.
    ///
    /// # Errors
    /// Some may still have the name.
    pub async fn take_name(&self, name: &str, except: Option<&str>) -> Result<(), BusError> {
        let has_had = |cluster: &Cluster| cluster.former_names.iter().any(|it| it == name);
        let all = self.all().await?;
        let others = all
            .values()
            .filter(|it| Some(it.name.as_str()) != except && has_had(it));
        for other in others {
            // Until no other process changes the record meanwhile.
            while let (Some(mut cluster), revision) = self.load(&other.name).await? {
                cluster.former_names.retain(|it| it != name);
                if self.store(&cluster, revision).await? {
                    break;
                }
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::to_proto;

    fn record(name: &str, former: &[&str], second: i64) -> (String, Cluster) {
        let cluster = Cluster {
            name: name.into(),
            former_names: former.iter().map(|it| (*it).to_owned()).collect(),
            added_at: Timestamp::from_second(second).ok().map(to_proto),
            ..Cluster::default()
        };
        (name.to_owned(), cluster)
    }

    #[test]
    fn a_former_name_is_that_of_the_cluster_that_got_it_last() {
        let new = || record("prod-1", &["dev-0", "dev-1"], 5);
        let both = ["dev-0", "dev-1"].as_slice();
        for (what, others, expected) in [
            ("the rename is finished", vec![], both),
            ("both are valid", vec![record("dev-1", &["dev-0"], 2)], both),
            ("another has it", vec![record("dev-1", &[], 9)], &["dev-0"]),
            (
                "another had it",
                vec![record("qa-1", &["dev-1"], 9)],
                &["dev-0"],
            ),
            (
                "another had it before",
                vec![record("qa-1", &["dev-1"], 3)],
                both,
            ),
            (
                "the cluster is renamed again",
                vec![record("eu-1", &["dev-0", "dev-1", "prod-1"], 9)],
                both,
            ),
        ] {
            let clusters: Clusters = others.into_iter().chain([new()]).collect();
            let names: Vec<_> = former_names(&clusters, "prod-1").collect();
            assert_eq!(names, expected, "{what}");
            for name in ["dev-0", "dev-1"] {
                let is_same = expected.contains(&name);
                for (one, other) in [("prod-1", name), (name, "prod-1")] {
                    let are = are_names_of_one_cluster(&clusters, one, other);
                    assert_eq!(are, is_same, "{what}: {one}, {other}");
                }
            }
        }
    }
}
