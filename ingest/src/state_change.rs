//! Finds out whether a duplicate reports a state that has changed in between: error, success, and
//! the same error again.
//!
//! Only duplicates cost something here. The answer follows from the stream alone, so that every
//! replica gives the same one: the cache remembers what was read, and each answer first reads what
//! was stored since.

mod reading;
mod readings;

use std::time::Duration;

use tidings_core::Event;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::{id, subject};
use tidings_core::runtime::codes::log as codes;
use tokio::time::{Instant, timeout_at};

use reading::{MAX_EVENTS, Reading, Report};
use readings::Readings;

/// A duplicate waits at most this long for the events. Senders give up after 5 s.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the events that were stored after a duplicate's first copy.
pub struct StateChanges {
    bus: Bus,
    readings: Readings,
}

/// Why the later events are not known.
#[derive(Debug, thiserror::Error)]
enum NotRead {
    #[error("more than {MAX_EVENTS} events or 8 MiB")]
    TooMany,
    #[error("not read within {} s", READ_TIMEOUT.as_secs())]
    TimedOut,
    #[error("another read failed at the same time")]
    OtherFailed,
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl StateChanges {
    /// Reads from this bus.
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            readings: Readings::default(),
        }
    }

    /// The message id under which a duplicate of the event with this sequence is stored
    /// nevertheless: the opposite state was reported since, and before this report. `None` if
    /// nothing has changed, or if the event reports neither success nor failure.
    ///
    /// If the events cannot be read in full, the event is stored: a notification too many is better
    /// than a state that is lost. A retry has the same id, on every replica.
    pub async fn message_id(&self, event: &Event, stored: u64) -> Option<String> {
        let report = Report::of(event)?;
        let filter = filter(event);
        let since = match self
            .opposite(&report, (&event.cluster, &filter), stored)
            .await
        {
            Ok(opposite) => opposite?,
            Err(error) => {
                tracing::warn!(
                    code = codes::LATER_EVENTS_NOT_READ,
                    %error,
                    object = filter,
                    "later events not read, the duplicate is stored"
                );
                stored
            }
        };
        Some(id::message_id_since(&event.dedupe_key, since))
    }

    /// The sequence of the last opposite report. Waiting for other reads counts as time of the
    /// read, and a failed read counts for all that waited for it.
    async fn opposite(
        &self,
        report: &Report,
        (cluster, filter): (&str, &str),
        stored: u64,
    ) -> Result<Option<u64>, NotRead> {
        let asked = Instant::now();
        let deadline = asked + READ_TIMEOUT;
        let shared = self.readings.get(filter);
        let locked = timeout_at(deadline, shared.lock()).await;
        let mut reading = locked.map_err(|_| NotRead::TimedOut)?;
        if reading.has_failed_since(asked) {
            return Err(NotRead::OtherFailed);
        }
        let find = self.find(&mut reading, report, (cluster, filter), stored, asked);
        let found = timeout_at(deadline, find).await;
        let found = found.unwrap_or(Err(NotRead::TimedOut));
        if matches!(found, Err(NotRead::TimedOut | NotRead::Bus(_))) {
            reading.failed();
        }
        self.readings.note_size(filter, &reading);
        found
    }

    async fn find(
        &self,
        reading: &mut Reading,
        report: &Report,
        (cluster, filter): (&str, &str),
        stored: u64,
        asked: Instant,
    ) -> Result<Option<u64>, NotRead> {
        let is_read = reading.covers(stored) && reading.is_complete_since(asked)
            || self.read(reading, (cluster, filter), stored).await?;
        if is_read && !reading.exceeds(stored) {
            return Ok(reading.opposite(report, stored));
        }
        // A copy of the first report is no new state, whatever was stored since.
        let first = self
            .bus
            .events_after(cluster, filter.to_owned(), stored.saturating_sub(1), 1);
        let first = first.await?.events.into_iter();
        let mut first = first.filter(|first| first.sequence == stored);
        match first.next().and_then(|first| Report::of(&first.event)) {
            Some(first) if !report.is_later_than(&first) => Ok(None),
            _ => Err(NotRead::TooMany),
        }
    }

    /// Reads what was stored since the last read. Returns whether all events after `stored` are
    /// known. Where that is not so, a new reading would not know more.
    async fn read(
        &self,
        reading: &mut Reading,
        (cluster, filter): (&str, &str),
        stored: u64,
    ) -> Result<bool, BusError> {
        let started = Instant::now();
        reading.begin(self.bus.events_stream().await?, stored);
        if reading.exceeds(stored) {
            return Ok(false);
        }
        let up_to = reading.up_to();
        let later = self
            .bus
            .events_after(cluster, filter.to_owned(), up_to, MAX_EVENTS);
        if reading.add(later.await?, started) {
            return Ok(true);
        }
        if up_to >= stored {
            return Ok(false);
        }
        reading.restart(stored);
        let later = self
            .bus
            .events_after(cluster, filter.to_owned(), stored, MAX_EVENTS);
        Ok(reading.add(later.await?, started))
    }
}

/// Selects the events of the object's cluster, namespace and kind.
fn filter(event: &Event) -> String {
    let object = event.involved_object.clone().unwrap_or_default();
    subject::event_filter(
        Some(&event.cluster),
        Some(&object.namespace),
        Some(&object.kind),
        None,
    )
}
