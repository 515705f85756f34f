//! Recreates the routers' consumer at a position that an operator chose.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use jiff::Timestamp;

use crate::bus::consumers::ConsumerRecords;
use crate::bus::consumers::recreate::replace;
use crate::bus::streams::{self, EVENTS, ROUTER, Sizing};
use crate::bus::watch::StreamInfo;
use crate::bus::{Bus, BusError, unavailable};
use crate::model::time::{to_offset, to_proto};
use crate::wire::ConsumerPosition;

/// How often the consumer is replaced while routers create it again at their own position.
const MAX_TRIES: usize = 5;
/// The server deletes the consumer of a look-up after this time.
const LOOK_UP_ENDS_AFTER: Duration = Duration::from_secs(10);

/// Where the routers must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginAt {
    /// With the event of this sequence.
    Sequence(u64),
    /// With the first event that was stored at this time or later.
    Time(Timestamp),
}

/// A consumer that was recreated.
#[derive(Clone, Copy, Debug)]
pub struct Recreated {
    /// The sequence with which it begins.
    pub sequence: u64,
    /// The number of events from there on.
    pub events: u64,
}

/// The consumer was not recreated.
#[derive(Debug, thiserror::Error)]
pub enum RecreateError {
    /// The stream does not have the sequence.
    #[error("sequence {sequence} is not in EVENTS, which holds {first} to {last}")]
    NotStored {
        /// The sequence that was asked for.
        sequence: u64,
        /// The first stored sequence.
        first: u64,
        /// The last stored sequence.
        last: u64,
    },
    /// Another process has the lease.
    #[error("another process recreates the consumer; try again in 15 s")]
    Leased,
    /// The server refused.
    #[error("{0}")]
    Refused(String),
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Bus {
    /// Deletes the routers' consumer, creates it where the operator says, and records the position.
    ///
    /// # Errors
    /// The sequence is not stored, another process recreates the consumer, or the bus failed.
    pub async fn recreate_router_consumer(
        &self,
        begin: BeginAt,
    ) -> Result<Recreated, RecreateError> {
        let stream = self.jetstream().get_stream_no_info(EVENTS).await;
        let stream = stream.map_err(unavailable)?;
        let sequence = match begin {
            BeginAt::Sequence(sequence) => sequence,
            BeginAt::Time(time) => sequence_at(&stream, time).await?,
        };
        let info = self.stream_info(EVENTS).await;
        let info = info.map_err(BusError::Unavailable)?;
        let (first, last) = (info.first_sequence(), info.last_sequence());
        // One after the last event is valid: everything counts as routed.
        if sequence < first || sequence == 0 || sequence > last + 1 {
            return Err(RecreateError::NotStored {
                sequence,
                first,
                last,
            });
        }
        let event = match sequence {
            1 => None,
            _ => self.event_with_sequence(sequence - 1).await?,
        };
        let position = ConsumerPosition {
            stream_created: Some(to_proto(info.created)),
            acknowledged: sequence - 1,
            event_id: event.map(|event| event.id).unwrap_or_default(),
            ..ConsumerPosition::default()
        };
        self.create_missing_bucket(&info).await?;
        let records = ConsumerRecords::open(self).await?;
        let lease = records.lease(EVENTS, ROUTER).await?;
        let lease = lease.ok_or(RecreateError::Leased)?;
        let replaced = self.replace_router(&records, &stream, position).await;
        records.release(lease).await;
        let consumer = replaced?;
        // The position was lost because EVENTS may have been restored, with sequences that are used
        // again.
        self.begin_epoch(|backup| backup).await?;
        Ok(Recreated {
            sequence,
            events: consumer.cached_info().num_pending,
        })
    }

    /// Roles create the bucket, but none may run.
    async fn create_missing_bucket(&self, events: &StreamInfo) -> Result<(), RecreateError> {
        let name = format!("KV_{}", streams::CONSUMERS);
        let found = self.find_stream(&name).await;
        if found.map_err(BusError::Unavailable)?.is_some() {
            return Ok(());
        }
        let sizing = Sizing {
            dedupe_interval: events.config.duplicate_window,
            storage_limit: None,
            replicas: events.config.num_replicas,
        };
        let config = streams::all(&sizing)
            .into_iter()
            .find(|stream| stream.name == name);
        if let Some(config) = config {
            let created = self.create_stream(config).await;
            created.map_err(|error| RecreateError::Refused(error.to_string()))?;
        }
        Ok(())
    }

    /// A router that finds no consumer creates one at the recorded position, so the position is
    /// recorded first. A router that still sees the old consumer may record that one's position
    /// meanwhile, and create the consumer there. Then it is replaced once more.
    async fn replace_router(
        &self,
        records: &ConsumerRecords,
        stream: &Stream<()>,
        position: ConsumerPosition,
    ) -> Result<PullConsumer, RecreateError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: position.acknowledged + 1,
            },
            ..streams::router_consumer()
        };
        let mut refused = String::new();
        for _ in 0..MAX_TRIES {
            records.overwrite(position.clone()).await?;
            match replace(stream, ROUTER, config.clone(), "an operator recreates it").await {
                Ok(consumer) => {
                    records.overwrite(position).await?;
                    return Ok(consumer);
                }
                Err(error) => refused = error,
            }
        }
        Err(RecreateError::Refused(refused))
    }
}

/// The sequence of the first event that was stored at this time or later. One after the last event
/// if there is none.
pub(in crate::bus) async fn sequence_at(
    stream: &Stream<()>,
    time: Timestamp,
) -> Result<u64, BusError> {
    let start_time = to_offset(time);
    let name = format!("look-up-{:016x}", rand::random::<u64>());
    let config = pull::Config {
        name: Some(name.clone()),
        deliver_policy: DeliverPolicy::ByStartTime { start_time },
        ack_policy: AckPolicy::None,
        inactive_threshold: LOOK_UP_ENDS_AFTER,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
    let sequence = consumer.cached_info().delivered.stream_sequence + 1;
    // If it fails, the consumer expires.
    drop(stream.delete_consumer(&name).await);
    Ok(sequence)
}
