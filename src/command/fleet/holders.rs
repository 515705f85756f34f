//! Who has a name: clusters, taps and workers of pools share one folder of credentials.

use std::fmt;

use anyhow::{bail, ensure};
use tidings_core::bus::clusters::ClusterRecords;

use super::Fleet;

/// The kinds of users that a fleet adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member.
    Cluster,
    /// A reader of events.
    Tap,
    /// A worker of one pool.
    Worker,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cluster => "cluster",
            Self::Tap => "tap",
            Self::Worker => "worker",
        })
    }
}

impl Fleet {
    /// Checks that no user of another kind has the name.
    ///
    /// # Errors
    /// One has, or the folder or the server cannot be read.
    pub(super) async fn check_not_taken(
        &self,
        records: &ClusterRecords,
        kind: Kind,
        name: &str,
    ) -> anyhow::Result<()> {
        for (other, has) in [
            (Kind::Cluster, records.load(name).await?.0.is_some()),
            (Kind::Tap, self.tap(name)?.is_some()),
            (Kind::Worker, self.description.workers.contains_key(name)),
        ] {
            ensure!(
                !has || other == kind,
                "{kind} {name}: a {other} has this name; choose another name"
            );
        }
        Ok(())
    }

    /// Checks that a cluster has the name.
    ///
    /// # Errors
    /// None has, or the folder or the server cannot be read.
    pub(super) async fn require(&self, records: &ClusterRecords, name: &str) -> anyhow::Result<()> {
        if records.load(name).await?.0.is_some() {
            return Ok(());
        }
        if self.description.workers.contains_key(name) {
            bail!(
                "{name} is a worker and no cluster: `tidings fleet remove-worker` and \
                 `add-worker` issue new credentials"
            );
        }
        if self.tap(name)?.is_some() {
            bail!("{name} is a tap and no cluster: remove it and add it again to change it");
        }
        bail!("cluster {name} not found: see `tidings fleet list`");
    }
}
