//! A hub that was restored from a backup: what its streams held then.
//!
//! Services may have newer states than the restored events and records say. The server cannot know
//! that it was restored, so an operator says it, before the workers start. Workers that run follow
//! within a second (see [`stream_history`](super::stream_history)).

use std::time::Duration;

use jiff::Timestamp;

use crate::bus::consumers::chosen::sequence_at;
use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::time::{after, from_proto, proto_ms, to_proto};
use crate::wire::{Delivery, Event, RestoredBackup};

/// The key in the bucket `consumers`.
const KEY: &str = "restored";
/// How many epochs are kept.
const MOST_EPOCHS: usize = 16;

impl Bus {
    /// Records that the streams were restored from a backup that was taken at this time.
    ///
    /// # Errors
    /// The bus is unavailable, or a stream does not exist.
    pub async fn note_restored(&self, taken_at: Timestamp) -> Result<RestoredBackup, BusError> {
        let backup = RestoredBackup {
            taken_at: Some(to_proto(taken_at)),
            events: self.last_sequence_at(streams::EVENTS, taken_at).await?,
            states: self
                .last_sequence_at(&format!("KV_{}", streams::LATEST), taken_at)
                .await?,
            epochs_ms: Vec::new(),
        };
        let restored = |before: RestoredBackup| RestoredBackup {
            epochs_ms: before.epochs_ms,
            ..backup
        };
        self.begin_epoch(restored).await
    }

    /// Begins an epoch: sequences of EVENTS may begin again. `changed` may change the record.
    pub(super) async fn begin_epoch(
        &self,
        changed: impl Fn(RestoredBackup) -> RestoredBackup,
    ) -> Result<RestoredBackup, BusError> {
        let now_ms = proto_ms(Some(to_proto(self.clock().now())));
        let records = Records::open(self, streams::CONSUMERS).await?;
        loop {
            let (before, revision) = records.load::<RestoredBackup>(KEY).await?;
            let backup = with_epoch(changed(before.unwrap_or_default()), now_ms);
            if records.store(KEY, &backup, revision).await?.is_some() {
                return Ok(backup);
            }
        }
    }

    /// What was restored last; the default if nothing ever was.
    ///
    /// # Errors
    /// The bus is unavailable, or the bucket does not exist.
    pub(super) async fn restored_backup(&self) -> Result<RestoredBackup, BusError> {
        let found = self.record(streams::CONSUMERS, KEY).await?;
        Ok(found.into_record().unwrap_or_default())
    }

    /// The sequence of the last message that was stored at this time or before.
    async fn last_sequence_at(&self, stream: &str, time: Timestamp) -> Result<u64, BusError> {
        let stream = self.jetstream().get_stream_no_info(stream).await;
        let stream = stream.map_err(unavailable)?;
        let next = after(time, Duration::from_nanos(1));
        Ok(sequence_at(&stream, next).await? - 1)
    }
}

/// The record with one more epoch, without the oldest one if there are too many.
fn with_epoch(mut backup: RestoredBackup, begins_ms: i64) -> RestoredBackup {
    let too_many = (backup.epochs_ms.len() + 1).saturating_sub(MOST_EPOCHS);
    backup.epochs_ms.drain(..too_many);
    backup.epochs_ms.push(begins_ms);
    backup
}

/// The clock of an ingest may be this much ahead of the server's.
const CLOCK_AHEAD: Duration = Duration::from_secs(60);

/// Whether the restored streams held the event of a delivery. A replay does not count: an operator
/// asked for it after the restore.
pub fn has_delivery(backup: &RestoredBackup, delivery: &Delivery, event: &Event) -> bool {
    // Sequences alone are not unique: a recreated stream begins with 1 again.
    let taken = from_proto(backup.taken_at).map(|at| after(at, CLOCK_AHEAD));
    let received = from_proto(event.received_at);
    let is_older = received.is_some_and(|at| taken >= Some(at));
    is_older && delivery.generation == 0 && delivery.event_sequence <= backup.events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_epochs_are_kept() {
        let all = (0..40).fold(RestoredBackup::default(), with_epoch);
        assert_eq!(all.epochs_ms, (24..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_delivery_of_a_backup_has_an_event_that_was_stored_before() {
        let backup = RestoredBackup {
            taken_at: Some(to_proto(at(100))),
            events: 50,
            states: 7,
            ..RestoredBackup::default()
        };
        for (backup, sequence, received, generation, expected) in [
            (&backup, 50, 100, 0, true),
            (&backup, 51, 100, 0, false),
            (&backup, 50, 160, 0, true),
            (&backup, 50, 161, 0, false),
            (&backup, 50, 100, 1, false),
            (&RestoredBackup::default(), 0, 100, 0, false),
        ] {
            let delivery = Delivery {
                event_sequence: sequence,
                generation,
                ..Delivery::default()
            };
            let event = Event {
                received_at: Some(to_proto(at(received))),
                ..Event::default()
            };
            assert_eq!(has_delivery(backup, &delivery, &event), expected);
        }
    }
}
