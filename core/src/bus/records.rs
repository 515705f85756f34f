//! A bucket of records that several processes change by compare-and-set.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::kv::{CreateErrorKind, Entry, Operation, Store, UpdateErrorKind, Watch};
use async_nats::jetstream::stream::{Config, DirectGetErrorKind};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use prost::Message;

use crate::bus::{Bus, BusError, unavailable};

/// The server sends the next record within this time.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// The most records that are read at a time.
pub(super) const MOST_RECORDS: usize = 50_000;
/// The header of a message that deletes its key.
pub(super) const OPERATION: &str = "KV-Operation";

/// A bucket whose values are protobuf messages. A deleted bucket is recreated.
#[derive(Clone)]
pub struct Records {
    bus: Bus,
    bucket: Store,
    /// The configuration of its stream, to recreate it.
    config: Config,
}

/// Versions of a bucket are equal while nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketVersion {
    created: Timestamp,
    last_sequence: u64,
    messages: u64,
}

/// What a key of a bucket holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<T> {
    /// A record.
    Record(T),
    /// The record was removed.
    Removed,
    /// Nothing was stored, or the bucket lost it.
    Missing,
}

/// A record as it is stored.
pub(super) struct StoredRecord<T> {
    pub(super) key: String,
    pub(super) value: T,
    /// By the server's clock.
    pub(super) stored_at: Timestamp,
    /// The revision for [`Records::store`].
    pub(super) revision: u64,
}

impl<T: Message + Default> StoredRecord<T> {
    /// `None` if the message deletes the key, is larger than `largest`, or holds no `T`.
    fn read(
        message: &async_nats::jetstream::Message,
        key: String,
        largest: usize,
    ) -> Result<Option<Self>, BusError> {
        let info = message.info().map_err(unavailable)?;
        let time = info.published.unix_timestamp_nanos();
        let stored_at = Timestamp::from_nanosecond(time).map_err(unavailable)?;
        let headers = message.headers.as_ref();
        let is_deleted = headers.is_some_and(|headers| headers.get(OPERATION).is_some());
        if is_deleted || message.payload.len() > largest {
            return Ok(None);
        }
        let record = |value| Self {
            key,
            revision: info.stream_sequence,
            value,
            stored_at,
        };
        Ok(T::decode(message.payload.clone()).ok().map(record))
    }
}

impl BucketVersion {
    /// Whether nothing was ever stored in the bucket.
    pub(super) fn is_empty(&self) -> bool {
        self.last_sequence == 0
    }

    /// Whether the bucket holds nothing, so that a watch shows nothing.
    pub(super) fn holds_nothing(&self) -> bool {
        self.messages == 0
    }

    /// Whether nothing was ever stored in the bucket, which exists since `time` or earlier.
    pub(super) fn is_untouched_since(&self, time: Timestamp) -> bool {
        self.last_sequence == 0 && self.created <= time
    }

    /// Whether both are versions of the same bucket, which was not recreated in between.
    pub fn is_same_bucket(&self, other: &Self) -> bool {
        self.created == other.created
    }
}

impl Records {
    /// Opens a bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus, name: &str) -> Result<Self, BusError> {
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

    /// Reads the record of a key and its revision, for [`Records::store`]. A record that cannot be
    /// decoded counts as absent.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn load<T: Message + Default>(
        &self,
        key: &str,
    ) -> Result<(Option<T>, Option<u64>), BusError> {
        let entry = match self.bucket.entry(key).await {
            Ok(entry) => entry,
            Err(_) => {
                self.created().await?;
                self.bucket.entry(key).await.map_err(unavailable)?
            }
        };
        let Some(entry) = entry else {
            return Ok((None, None));
        };
        Ok((decode(&entry), Some(entry.revision)))
    }

    /// Stores a record if its key is still at `revision`; `None` means that the key must not exist.
    /// Returns the new revision, or `None` if another process changed the key.
    ///
    /// # Errors
    /// The record might not be stored.
    pub async fn store(
        &self,
        key: &str,
        record: &impl Message,
        revision: Option<u64>,
    ) -> Result<Option<u64>, BusError> {
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

    /// Reads all records whose keys fit a filter, such as `>`, at most 50,000. Ignores those that
    /// cannot be decoded or are larger than `largest` bytes.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub(super) async fn all<T: Message + Default>(
        &self,
        keys: &str,
        largest: usize,
    ) -> Result<Vec<StoredRecord<T>>, BusError> {
        let mut found = HashMap::new();
        // A record that changes meanwhile comes twice. Deleted keys take no room.
        let see = |key: String, record: Option<StoredRecord<T>>| {
            match record {
                Some(record) => found.insert(key, record),
                None => found.remove(&key),
            };
            found.len() < MOST_RECORDS
        };
        self.each(keys, largest, see).await?;
        Ok(found.into_values().collect())
    }

    /// Calls `see` with the key and the record of all keys that fit a filter, until it returns
    /// `false`. The record is `None` if it is deleted, cannot be decoded, or is larger than
    /// `largest` bytes. A record that changes meanwhile comes twice.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub(super) async fn each<T: Message + Default>(
        &self,
        keys: &str,
        largest: usize,
        mut see: impl FnMut(String, Option<StoredRecord<T>>) -> bool,
    ) -> Result<(), BusError> {
        let config = OrderedConfig {
            filter_subject: format!("{}{keys}", self.bucket.prefix),
            ..OrderedConfig::default()
        };
        let consumer = self.bucket.stream.create_consumer(config).await;
        let consumer = consumer.map_err(unavailable)?;
        let info = consumer.cached_info();
        let (name, pending) = (info.name.clone(), info.num_pending);
        if pending > 0 {
            let mut messages = consumer.messages().await.map_err(unavailable)?;
            loop {
                // A record that expires meanwhile would be waited for without an end.
                let next = tokio::time::timeout(READ_WITHIN, messages.next()).await;
                let message = next.ok().flatten().ok_or_else(|| {
                    let bucket = &self.bucket.name;
                    BusError::Unavailable(format!("bucket {bucket} changed while it was read"))
                })?;
                let message = message.map_err(unavailable)?;
                let info = message.info().map_err(unavailable)?;
                let is_last = info.pending == 0;
                let key = message.subject.strip_prefix(&self.bucket.prefix);
                let key = key.unwrap_or(&message.subject).to_owned();
                let record = StoredRecord::read(&message, key.clone(), largest)?;
                if !see(key, record) || is_last {
                    break;
                }
            }
        }
        // Otherwise the server deletes it half a minute later.
        let _ = self.bucket.stream.delete_consumer(&name).await;
        Ok(())
    }

    /// Deletes the record of a key if it is still at `revision`. Returns whether it was.
    ///
    /// # Errors
    /// The record may still be there.
    pub(super) async fn remove_at(&self, key: &str, revision: u64) -> Result<bool, BusError> {
        let removed = self.bucket.purge_expect_revision(key, Some(revision)).await;
        match removed {
            Ok(()) => Ok(true),
            // The error does not say whether the revision changed.
            Err(error) => match self.bucket.entry(key).await {
                Ok(Some(entry)) if entry.revision == revision => Err(unavailable(error)),
                Ok(_) => Ok(false),
                Err(_) => Err(unavailable(error)),
            },
        }
    }

    /// Deletes the record of a key.
    ///
    /// # Errors
    /// The record may still be there.
    pub async fn remove(&self, key: &str) -> Result<(), BusError> {
        self.bucket.purge(key).await.map_err(unavailable)
    }

    /// Deletes the record of a key and leaves nothing behind, unlike [`Records::remove`], which
    /// leaves a marker. For keys that are used once; who watches the bucket does not see it.
    ///
    /// # Errors
    /// The record may still be there.
    pub(super) async fn erase(&self, key: &str) -> Result<(), BusError> {
        let subject = format!("{}{key}", self.bucket.prefix);
        let purged = self.bucket.stream.purge().filter(subject).await;
        purged.map(drop).map_err(unavailable)
    }

    /// Lists the keys that have a record.
    pub(super) async fn keys(&self) -> Result<Vec<String>, BusError> {
        let keys = self.bucket.keys().await.map_err(unavailable)?;
        keys.try_collect().await.map_err(unavailable)
    }

    /// Watches keys: first the last change of each, then every change.
    pub(super) async fn watch(&self, keys: &str) -> Result<Watch, BusError> {
        self.bucket
            .watch_with_history(keys)
            .await
            .map_err(unavailable)
    }

    /// The version of the bucket. A deleted bucket is first recreated, empty.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn version(&self) -> Result<BucketVersion, BusError> {
        self.created().await?;
        let info = self.bus.stream_info(&self.config.name).await;
        let info = info.map_err(BusError::Unavailable)?;
        Ok(BucketVersion {
            created: info.created,
            last_sequence: info.last_sequence(),
            messages: info.messages(),
        })
    }

    /// Returns when the bucket was created. A deleted bucket is first recreated, empty. Its content
    /// is computed again, or its loss costs one call. Two buckets are different. Running routers
    /// write what they know of `extensions`, so that a restriction is lost if none runs. Nobody
    /// writes `clusters` again: processes that run keep what they know.
    pub(super) async fn created(&self) -> Result<Timestamp, BusError> {
        let name = &self.config.name;
        let found = self.bus.find_stream(name).await;
        if let Some(info) = found.map_err(BusError::Unavailable)? {
            return Ok(info.created);
        }
        self.bus
            .recreate_stream(self.config.clone())
            .await
            .map_err(unavailable)?;
        let info = self.bus.stream_info(name).await;
        Ok(info.map_err(BusError::Unavailable)?.created)
    }
}

impl Bus {
    /// Reads the record of a key with one request, whose subject contains bucket and key. So the
    /// permission for it covers nothing else.
    ///
    /// # Errors
    /// The bus is unavailable, or the record cannot be decoded.
    pub(super) async fn record<T: Message + Default>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Found<T>, BusError> {
        let stream = self.jetstream.get_stream_no_info(format!("KV_{bucket}"));
        let stream = stream.await.map_err(unavailable)?;
        let found = stream.direct_get_last_for_subject(subject(bucket, key));
        match found.await {
            Ok(message) if message.headers.get(OPERATION).is_some() => Ok(Found::Removed),
            Ok(message) => {
                let record = T::decode(message.payload);
                record.map(Found::Record).map_err(unavailable)
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl<T> Found<T> {
    /// The record, if there is one.
    pub fn into_record(self) -> Option<T> {
        match self {
            Self::Record(record) => Some(record),
            Self::Removed | Self::Missing => None,
        }
    }
}

/// The subject of a record.
pub fn subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// Decodes an entry. `None` if its key was deleted or the value is not a `T`.
pub(super) fn decode<T: Message + Default>(entry: &Entry) -> Option<T> {
    (entry.operation == Operation::Put).then(|| T::decode(entry.value.clone()).ok())?
}
