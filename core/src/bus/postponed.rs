//! Events that were routed without the rules of their member, because no router had read these yet.
//! They wait in the bucket `consumers`, so that a router catches up when it has the rules.

use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams};
use crate::model::id;
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

/// An event that waits, as it is noted.
#[derive(Clone, Debug)]
pub struct WaitingEvent {
    /// The key of its record.
    key: String,
    /// What is noted.
    pub postponed: PostponedEvent,
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
        // An existing key is a record of the same event, because its id is in the key.
        let key = key(postponed);
        self.records.store(&key, postponed, None).await.map(drop)
    }

    /// Postponed events that wait for the rules of a member, oldest first: at most 50,000.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn of(&self, cluster: &str) -> Result<Vec<WaitingEvent>, BusError> {
        self.fitting(&format!("{PREFIX}.{}.>", Token::new(cluster)))
            .await
    }

    /// Postponed events of all clusters, oldest first: at most 50,000.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn all(&self) -> Result<Vec<WaitingEvent>, BusError> {
        self.fitting(&format!("{PREFIX}.>")).await
    }

    async fn fitting(&self, keys: &str) -> Result<Vec<WaitingEvent>, BusError> {
        let stored = self.records.all(keys, LARGEST).await?;
        let waiting = stored.into_iter().map(|record| WaitingEvent {
            key: record.key,
            postponed: record.value,
        });
        let mut all: Vec<_> = waiting.collect();
        all.sort_unstable_by_key(|waiting| waiting.postponed.sequence);
        Ok(all)
    }

    /// Whether the event still waits: no router has stored its deliveries and removed it.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn is_waiting(&self, waiting: &WaitingEvent) -> Result<bool, BusError> {
        let (record, _) = self.records.load::<PostponedEvent>(&waiting.key).await?;
        Ok(record.is_some())
    }

    /// The event itself; `None` if it is not stored any more.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn event(&self, waiting: &WaitingEvent) -> Result<Option<Event>, BusError> {
        let postponed = &waiting.postponed;
        let (sequence, id) = (postponed.sequence, &postponed.event_id);
        self.bus.event_at(sequence, id).await
    }

    /// Removes an event whose deliveries are stored, or that is gone. Leaves no marker: each key is
    /// used once, so the bucket would grow without an end.
    ///
    /// # Errors
    /// The event may still be noted.
    pub async fn remove(&self, waiting: &WaitingEvent) -> Result<(), BusError> {
        self.records.erase(&waiting.key).await
    }
}

/// The sequence alone is not unique: a recreated stream begins with 1 again.
fn key(postponed: &PostponedEvent) -> String {
    let cluster = Token::new(&postponed.cluster);
    let event = id::digest(&[&postponed.event_id]);
    format!("{PREFIX}.{cluster}.{}.{event}", postponed.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_events_with_the_same_sequence_have_different_keys() {
        let of = |event_id: &str| {
            key(&PostponedEvent {
                cluster: "prod.eu".into(),
                sequence: 7,
                event_id: event_id.into(),
            })
        };
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
        assert!(of("a").starts_with("postponed.prod=2Eeu.7."), "{}", of("a"));
    }
}
