//! The bucket `extensions`: which extension fields each Alert and Provider had. All routers share
//! it. The keys of members begin with the name of the cluster, because each cluster deletes the
//! records of its deleted objects, and clusters that were cloned have equal uids.

use crate::bus::records::{BucketVersion, MOST_RECORDS, Records};
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::token::Token;
use crate::wire::RuleExtensions;

/// The most bytes of a record. No object of a cluster is larger.
const LARGEST: usize = 2 << 20;

/// Reads and changes the records of extension fields.
#[derive(Clone)]
pub struct ExtensionRecords {
    records: Records,
    /// What the keys begin with.
    prefix: String,
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredExtensions {
    /// The record.
    pub record: RuleExtensions,
    /// The revision for [`ExtensionRecords::store`].
    pub revision: u64,
}

impl ExtensionRecords {
    /// Opens the records of the hub's own cluster, or of a member of the fleet.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus, member: Option<&str>) -> Result<Self, BusError> {
        Ok(Self {
            records: Records::open(bus, streams::EXTENSIONS).await?,
            prefix: member.map_or_else(String::new, |name| format!("{}.", Token::new(name))),
        })
    }

    fn key(&self, uid: &str) -> String {
        format!("{}{}", self.prefix, Token::new(uid))
    }

    /// The version of the bucket. A deleted bucket is first recreated, empty.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn version(&self) -> Result<BucketVersion, BusError> {
        self.records.version().await
    }

    /// Reads all records of this cluster.
    ///
    /// # Errors
    /// The bus is unavailable, or there are too many records: some were not read, and what these
    /// restrict would be lost.
    pub async fn all(&self) -> Result<Vec<StoredExtensions>, BusError> {
        // A uid has no dot.
        let keys = format!("{}*", self.prefix);
        let stored = self.records.all::<RuleExtensions>(&keys, LARGEST).await?;
        if stored.len() >= MOST_RECORDS {
            let bucket = streams::EXTENSIONS;
            return Err(unavailable(format!(
                "bucket {bucket} holds {MOST_RECORDS} records or more with the keys {keys}, so \
                 the rules of this cluster are not read again: remove the annotations and fields \
                 of Tidings from objects that need none"
            )));
        }
        let stored = stored.into_iter().map(|stored| StoredExtensions {
            record: stored.value,
            revision: stored.revision,
        });
        Ok(stored.collect())
    }

    /// Stores the record of an object if it is still at `revision`; `None` means that there must
    /// be none. Returns the new revision, or `None` if another process changed the record. What
    /// cannot be decoded counts as no record and is overwritten.
    ///
    /// # Errors
    /// The record might not be stored.
    pub async fn store(
        &self,
        record: &RuleExtensions,
        revision: Option<u64>,
    ) -> Result<Option<u64>, BusError> {
        let key = self.key(&record.uid);
        let stored = self.records.store(&key, record, revision).await?;
        if stored.is_some() || revision.is_some() {
            return Ok(stored);
        }
        match self.records.load::<RuleExtensions>(&key).await? {
            (None, undecodable @ Some(_)) => self.records.store(&key, record, undecodable).await,
            _ => Ok(None),
        }
    }

    /// Deletes the record of the object with this uid.
    ///
    /// # Errors
    /// The record may still be there.
    pub async fn remove(&self, uid: &str) -> Result<(), BusError> {
        self.records.remove(&self.key(uid)).await
    }
}
