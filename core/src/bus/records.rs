//! A bucket of records that several processes change: by compare-and-set, never blindly. One that
//! gets lost is made anew.

use async_nats::jetstream::kv::{CreateErrorKind, Entry, Operation, Store, UpdateErrorKind, Watch};
use async_nats::jetstream::stream::Config;
use futures::TryStreamExt;
use jiff::Timestamp;
use prost::Message;

use crate::bus::{Bus, NotStored, unavailable};

/// A bucket whose values are protobuf messages.
#[derive(Clone)]
pub struct Records {
    bus: Bus,
    bucket: Store,
    /// How it is kept, to make it anew.
    config: Config,
}

impl Records {
    /// Opens a bucket.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus, name: &str) -> Result<Self, NotStored> {
        let bucket = bus
            .jetstream()
            .get_key_value(name)
            .await
            .map_err(unavailable)?;
        let config = bucket.stream.cached_info().config.clone();
        Ok(Self {
            bus: bus.clone(),
            bucket,
            config,
        })
    }

    /// The record of a key and its revision, for [`Records::store`]. A record that can't be read is
    /// as good as none.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn load<T: Message + Default>(
        &self,
        key: &str,
    ) -> Result<(Option<T>, Option<u64>), NotStored> {
        let entry = match self.bucket.entry(key).await {
            Ok(entry) => entry,
            Err(_) => {
                self.since().await?;
                self.bucket.entry(key).await.map_err(unavailable)?
            }
        };
        let Some(entry) = entry else {
            return Ok((None, None));
        };
        Ok((record(&entry), Some(entry.revision)))
    }

    /// Stores a record if its key has not moved since `revision` (none: there was no record); tells
    /// its new revision, and nothing where it has moved.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn store(
        &self,
        key: &str,
        record: &impl Message,
        revision: Option<u64>,
    ) -> Result<Option<u64>, NotStored> {
        let value = record.encode_to_vec().into();
        match revision {
            None => match self.bucket.create(key, value).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(unavailable(error)),
            },
            Some(revision) => match self.bucket.update(key, value, revision).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(error) => Err(unavailable(error)),
            },
        }
    }

    /// Takes a key's record away.
    ///
    /// # Errors
    /// It is not known to be gone.
    pub async fn remove(&self, key: &str) -> Result<(), NotStored> {
        self.bucket.purge(key).await.map_err(unavailable)
    }

    /// All keys that have a record.
    pub(super) async fn keys(&self) -> Result<Vec<String>, NotStored> {
        self.bucket
            .keys()
            .await
            .map_err(unavailable)?
            .try_collect()
            .await
            .map_err(unavailable)
    }

    /// The last change of each of some keys, then every change.
    pub(super) async fn watch(&self, keys: &str) -> Result<Watch, NotStored> {
        self.bucket
            .watch_with_history(keys)
            .await
            .map_err(unavailable)
    }

    /// Since when the bucket stands. One that somebody has deleted is made anew, empty: what it
    /// held is found out again, or forgotten.
    pub(super) async fn since(&self) -> Result<Timestamp, NotStored> {
        let name = &self.config.name;
        if let Some(info) = self
            .bus
            .find_stream(name)
            .await
            .map_err(NotStored::Unavailable)?
        {
            return Ok(info.created);
        }
        self.bus
            .recreate_stream(self.config.clone())
            .await
            .map_err(unavailable)?;
        Ok(self
            .bus
            .stream_info(name)
            .await
            .map_err(NotStored::Unavailable)?
            .created)
    }
}

/// What an entry holds; nothing where its key has been deleted.
pub(super) fn record<T: Message + Default>(entry: &Entry) -> Option<T> {
    (entry.operation == Operation::Put).then(|| T::decode(entry.value.clone()).ok())?
}
