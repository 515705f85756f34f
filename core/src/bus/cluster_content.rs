//! What the bus holds of one cluster, for tools that remove or rename it.

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::DirectGetErrorKind;
use prost::Message as _;

use crate::bus::records::Records;
use crate::bus::wake::next_message;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::excerpt::carried_event;
use crate::model::subject;
use crate::model::token::Token;
use crate::wire::{Delivery, Record};

/// Larger records of states are ignored: the largest comments have 1 MiB.
const LARGEST_STATE: usize = 4 << 20;

/// The events of a cluster in EVENTS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterEvents {
    /// How many are stored.
    pub stored: u64,
    /// At most this many of them are not routed yet.
    pub unrouted: u64,
}

/// A message of DELIVERIES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingDelivery {
    /// Its sequence.
    pub sequence: u64,
    /// Whether it waits for its next attempt. Else it waits for a worker, or is with one.
    pub is_parked: bool,
}

/// A record in the bucket `latest`, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    key: String,
    revision: u64,
}

impl Bus {
    /// Counts the events of a cluster.
    ///
    /// # Errors
    /// The bus is unavailable, or EVENTS does not exist.
    pub async fn events_of(&self, cluster: &str) -> Result<ClusterEvents, BusError> {
        let stored = self.count_events(cluster, 1).await?;
        if stored == 0 {
            return Ok(ClusterEvents::default());
        }
        let events = self.jetstream().get_stream_no_info(streams::EVENTS);
        let events = events.await.map_err(unavailable)?;
        // Without the consumer, nothing is routed.
        let router = events.consumer_info(streams::ROUTER).await;
        let routed = router.map_or(0, |router| router.ack_floor.stream_sequence);
        let unrouted = self.count_events(cluster, routed + 1).await?;
        Ok(ClusterEvents { stored, unrouted })
    }

    /// The number of events of a cluster from a sequence on.
    pub(super) async fn count_events(&self, cluster: &str, from: u64) -> Result<u64, BusError> {
        let filter = format!("events.{}.>", Token::new(cluster));
        self.count_filtered(&filter, from).await
    }

    /// The number of events with a subject from a sequence on.
    pub(super) async fn count_filtered(&self, filter: &str, from: u64) -> Result<u64, BusError> {
        let events = self.jetstream().get_stream_no_info(streams::EVENTS);
        let events = events.await.map_err(unavailable)?;
        let counter = events.create_consumer(pull::Config {
            name: Some(format!("count-{:016x}", rand::random::<u64>())),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from,
            },
            filter_subject: filter.to_owned(),
            ..pull::Config::default()
        });
        let counter = counter.await.map_err(unavailable)?;
        let info = counter.cached_info();
        let (name, pending) = (info.name.clone(), info.num_pending);
        let _ = events.delete_consumer(&name).await;
        Ok(pending)
    }

    /// Finds the ready and parked deliveries of a cluster. Those of events above 64 KiB that an old
    /// version of Tidings planned do not say their cluster, and are not found.
    ///
    /// # Errors
    /// The bus is unavailable, or DELIVERIES does not exist.
    pub async fn deliveries_of(&self, cluster: &str) -> Result<Vec<WaitingDelivery>, BusError> {
        let deliveries = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        let deliveries = deliveries.await.map_err(unavailable)?;
        let mut found = Vec::new();
        // Parked ones first: one that becomes ready meanwhile is found as ready.
        for (filter, is_parked) in [
            (subject::ALL_PARKED, true),
            (subject::ALL_DELIVERIES, false),
        ] {
            let mut from = 1;
            while let Some(message) = next_message(&deliveries, filter, from).await? {
                from = message.sequence + 1;
                let delivery = Delivery::decode(message.payload).ok();
                if delivery.is_some_and(|delivery| is_of(&delivery, cluster)) {
                    let sequence = message.sequence;
                    found.push(WaitingDelivery {
                        sequence,
                        is_parked,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Reads a message of DELIVERIES. `None` if it is gone.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn waiting_delivery(&self, sequence: u64) -> Result<Option<Delivery>, BusError> {
        let deliveries = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        let deliveries = deliveries.await.map_err(unavailable)?;
        match deliveries.direct_get(sequence).await {
            Ok(message) => Ok(Delivery::decode(message.payload).ok()),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Deletes a message of DELIVERIES. Publish an outcome that ended the delivery first, or the
    /// delivery counts as lost.
    ///
    /// # Errors
    /// The message may still be there.
    pub async fn delete_delivery(&self, sequence: u64) -> Result<(), BusError> {
        let deliveries = self.jetstream().get_stream_no_info(streams::DELIVERIES);
        let deliveries = deliveries.await.map_err(unavailable)?;
        match deliveries.delete_message(sequence).await {
            Ok(_) => Ok(()),
            // It was acknowledged or published again meanwhile.
            Err(_) if self.waiting_delivery(sequence).await?.is_none() => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Finds the states that a cluster wrote last. `see` gets each record.
    ///
    /// # Errors
    /// The bus is unavailable, or the bucket does not exist.
    pub async fn states_of(
        &self,
        cluster: &str,
        mut see: impl FnMut(&Record),
    ) -> Result<Vec<StateRecord>, BusError> {
        let records = Records::open(self, streams::LATEST).await?;
        let mut found = Vec::new();
        let select = |key, stored: Option<crate::bus::records::StoredRecord<Record>>| {
            let stored = stored.filter(|stored| {
                let desired = stored.value.desired.as_ref();
                desired.is_some_and(|desired| desired.cluster == cluster)
            });
            if let Some(stored) = stored {
                see(&stored.value);
                let revision = stored.revision;
                found.push(StateRecord { key, revision });
            }
            true
        };
        records.each(">", LARGEST_STATE, select).await?;
        Ok(found)
    }

    /// Deletes states that did not change since they were read. Returns how many it deleted.
    ///
    /// # Errors
    /// The bus is unavailable. Some may be deleted.
    pub async fn delete_states(&self, states: &[StateRecord]) -> Result<usize, BusError> {
        let records = Records::open(self, streams::LATEST).await?;
        let mut deleted = 0;
        for state in states {
            let is_deleted = records.remove_at(&state.key, state.revision).await?;
            deleted += usize::from(is_deleted);
        }
        Ok(deleted)
    }
}

fn is_of(delivery: &Delivery, cluster: &str) -> bool {
    carried_event(delivery).is_some_and(|event| event.cluster == cluster)
}
