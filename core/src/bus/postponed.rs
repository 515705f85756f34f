//! Events that were routed without the rules of their member, because no router had read these yet.
//! They wait in the bucket `consumers`, so that a router catches up when it has the rules.

use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams};
use crate::model::token::Token;
use crate::wire::{Event, PostponedEvent};

/// What the keys begin with.
const PREFIX: &str = "postponed";
/// The most bytes of a record that is read together with others.
const LARGEST: usize = 4 << 10;

/// Reads and changes the events that wait for the rules of their member.
#[derive(Clone)]
pub struct PostponedEvents {
    bus: Bus,
    records: Records,
}

impl PostponedEvents {
    /// Opens the bucket.
    ///
    /// # Errors
    /// The bucket does not exist, or the bus is unavailable.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            bus: bus.clone(),
            records: Records::open(bus, streams::CONSUMERS).await?,
        })
    }

    /// Notes an event. Safe to repeat.
    ///
    /// # Errors
    /// The event might not be noted.
    pub async fn add(&self, postponed: &PostponedEvent) -> Result<(), BusError> {
        let key = key(postponed);
        self.records.store(&key, postponed, None).await.map(drop)
    }

    /// All postponed events of a cluster, oldest first.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn of(&self, cluster: &str) -> Result<Vec<PostponedEvent>, BusError> {
        let keys = format!("{PREFIX}.{}.*", Token::new(cluster));
        let stored = self.records.all::<PostponedEvent>(&keys, LARGEST).await?;
        let mut all: Vec<_> = stored.into_iter().map(|record| record.value).collect();
        all.sort_unstable_by_key(|postponed| postponed.sequence);
        Ok(all)
    }

    /// The event itself; `None` if it is not stored any more.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn event(&self, postponed: &PostponedEvent) -> Result<Option<Event>, BusError> {
        let (sequence, id) = (postponed.sequence, &postponed.event_id);
        self.bus.event_at(sequence, id).await
    }

    /// Removes an event whose deliveries are stored.
    ///
    /// # Errors
    /// The event may still be noted.
    pub async fn remove(&self, postponed: &PostponedEvent) -> Result<(), BusError> {
        self.records.remove(&key(postponed)).await
    }
}

fn key(postponed: &PostponedEvent) -> String {
    let cluster = Token::new(&postponed.cluster);
    format!("{PREFIX}.{cluster}.{}", postponed.sequence)
}
