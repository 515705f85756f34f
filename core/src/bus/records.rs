//! A bucket of records that several processes change: by compare-and-set, never blindly.

use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use prost::Message;

use crate::bus::{Bus, NotStored, unavailable};

/// A bucket whose values are protobuf messages.
#[derive(Clone)]
pub struct Records {
    pub(super) store: Store,
}

impl Records {
    /// Opens a bucket.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus, bucket: &str) -> Result<Self, NotStored> {
        let store = bus.jetstream().get_key_value(bucket).await.map_err(unavailable)?;
        Ok(Self { store })
    }

    /// The record of a key and its revision, for [`Records::store`]. A record that can't be read is as good as none.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn load<T: Message + Default>(&self, key: &str) -> Result<(Option<T>, Option<u64>), NotStored> {
        let Some(entry) = self.store.entry(key).await.map_err(unavailable)? else {
            return Ok((None, None));
        };
        if entry.operation != Operation::Put {
            return Ok((None, Some(entry.revision)));
        }
        Ok((T::decode(entry.value).ok(), Some(entry.revision)))
    }

    /// Stores a record if its key has not moved since `revision` (none: there was no record); tells its new revision, and
    /// nothing where it has moved.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn store(&self, key: &str, record: &impl Message, revision: Option<u64>) -> Result<Option<u64>, NotStored> {
        let value = record.encode_to_vec().into();
        match revision {
            None => match self.store.create(key, value).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(unavailable(error)),
            },
            Some(revision) => match self.store.update(key, value, revision).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
                Err(error) => Err(unavailable(error)),
            },
        }
    }
}
