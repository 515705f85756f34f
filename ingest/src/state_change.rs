//! Finds out whether a duplicate reports a state that has changed in between: error, success, and
//! the same error again.
//!
//! Only duplicates cost something here. The answer follows from the stream alone, so that every
//! replica gives the same one: the cache remembers what was read, and each answer first reads what
//! was stored since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_core::bus::{Bus, LaterEvents};
use tidings_core::model::object_state::{self, ObjectState};
use tidings_core::model::{id, subject};
use tidings_core::runtime::codes::log as codes;
use tidings_core::{Event, ObjectReference};

/// A read takes at most this long. Senders give up after 5 s.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// A read returns at most this many events.
const MAX_READ: usize = 1_000;
/// A reading remembers at most this many reports of states; the oldest are forgotten.
const MAX_REPORTS: usize = 10_000;
/// The most readings that are remembered. At one more all are forgotten.
const MAX_READINGS: usize = 256;

/// Reads the events that were stored after a duplicate's first copy.
pub struct StateChanges {
    bus: Bus,
    readings: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Reading>>>>,
}

/// What the events of one cluster, namespace and kind report, from a sequence on.
#[derive(Default)]
struct Reading {
    /// Later events are read, up to `up_to`.
    after: u64,
    up_to: u64,
    /// When the last complete read began.
    read_at: Option<Instant>,
    /// Successes and failures by sequence.
    reports: BTreeMap<u64, Report>,
}

/// A success or failure of an object.
struct Report {
    object: String,
    state: ObjectState,
    time_ms: i64,
}

impl StateChanges {
    /// Reads from this bus.
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            readings: Mutex::default(),
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
        let asked = Instant::now();
        let reading = self.reading(event);
        let mut reading = reading.lock().await;
        if reading.up_to == 0 || stored < reading.after {
            *reading = Reading::after(stored);
        }
        let is_complete = reading.read_at.is_some_and(|read_at| read_at >= asked)
            || self.read(&mut reading, event).await;
        let since = if is_complete {
            reading.opposite(&report, stored)?
        } else {
            reading.up_to
        };
        Some(id::message_id_since(&event.dedupe_key, since))
    }

    fn reading(&self, event: &Event) -> Arc<tokio::sync::Mutex<Reading>> {
        let mut readings = self.readings.lock();
        let filter = filter(event);
        if readings.len() >= MAX_READINGS && !readings.contains_key(&filter) {
            readings.clear();
        }
        readings.entry(filter).or_default().clone()
    }

    /// Reads what was stored since the last read. Returns whether that was everything.
    async fn read(&self, reading: &mut Reading, event: &Event) -> bool {
        let started = Instant::now();
        let later = self
            .bus
            .events_after(filter(event), reading.up_to, MAX_READ);
        let error = match tokio::time::timeout(READ_TIMEOUT, later).await {
            Ok(Ok(later)) => match reading.add(later, started) {
                true => return true,
                false => format!("more than {MAX_READ} events or 8 MiB"),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not read within {} s", READ_TIMEOUT.as_secs()),
        };
        tracing::warn!(
            code = codes::LATER_EVENTS_NOT_READ,
            error,
            object = filter(event),
            "later events not read, the duplicate is stored"
        );
        false
    }
}

impl Reading {
    fn after(sequence: u64) -> Self {
        Self {
            after: sequence,
            up_to: sequence,
            ..Self::default()
        }
    }

    fn add(&mut self, later: LaterEvents, started: Instant) -> bool {
        for (sequence, event) in later.events {
            self.up_to = sequence;
            self.reports
                .extend(Report::of(&event).map(|report| (sequence, report)));
        }
        while self.reports.len() > MAX_REPORTS {
            let forgotten = self.reports.pop_first();
            self.after = forgotten.map_or(self.after, |(sequence, _)| sequence);
        }
        if later.is_complete {
            self.read_at = Some(started);
        }
        later.is_complete
    }

    /// The last report of the opposite state after `stored` that happened before `report`.
    fn opposite(&self, report: &Report, stored: u64) -> Option<u64> {
        let opposite = report.state.opposite()?;
        let mut later = self.reports.range(stored + 1..).rev();
        let found = later.find(|(_, other)| {
            other.state == opposite
                && other.object == report.object
                && other.time_ms < report.time_ms
        });
        found.map(|(sequence, _)| *sequence)
    }
}

impl Report {
    /// `None` if the event reports neither success nor failure.
    fn of(event: &Event) -> Option<Self> {
        let state = object_state::of(event);
        state.opposite()?;
        let object = event.involved_object.clone().unwrap_or_default();
        let ObjectReference {
            kind,
            namespace,
            name,
            ..
        } = object;
        Some(Self {
            object: id::digest(&[&event.cluster, &kind, &namespace, &name]),
            state,
            time_ms: object_state::time_ms(event),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, reason: &str, second: i64) -> Event {
        let time = |seconds| Some(tidings_core::ProtoTimestamp { seconds, nanos: 0 });
        Event {
            involved_object: Some(ObjectReference {
                name: name.into(),
                ..Default::default()
            }),
            severity: if reason.ends_with("Failed") {
                "error"
            } else {
                "info"
            }
            .into(),
            reason: reason.into(),
            timestamp: time(second),
            received_at: time(1_000),
            ..Default::default()
        }
    }

    /// The sequence of the state change that a repeated failure of `app` at `second` follows. Its
    /// first copy has the sequence 10; the others follow.
    fn found(later: &[Event], second: i64) -> Option<u64> {
        let mut reading = Reading::after(10);
        let events = (11..).zip(later.iter().cloned()).collect();
        let later = LaterEvents {
            events,
            is_complete: true,
        };
        assert!(reading.add(later, Instant::now()));
        let report = Report::of(&event("app", "BuildFailed", second)).unwrap();
        reading.opposite(&report, 10)
    }

    #[test]
    fn a_success_in_between_is_a_change() {
        let success = event("app", "ReconciliationSucceeded", 20);
        assert_eq!(found(std::slice::from_ref(&success), 30), Some(11));
        assert_eq!(
            found(std::slice::from_ref(&success), 20),
            None,
            "equal seconds"
        );
        assert_eq!(
            found(std::slice::from_ref(&success), 10),
            None,
            "a late copy"
        );
        let again = event("app", "BuildFailed", 25);
        let later = event("app", "ReconciliationSucceeded", 28);
        let all = [success, again, later];
        assert_eq!(found(&all, 30), Some(13), "the last change counts");
        assert_eq!(found(&all, 25), Some(11), "a retry finds its own change");
    }

    #[test]
    fn what_is_no_success_of_the_object_is_no_change() {
        for other in [
            event("other", "ReconciliationSucceeded", 20),
            event("app", "BuildFailed", 20),
            event("app", "Progressing", 20),
            event("app", "DependencyNotReady", 20),
        ] {
            assert_eq!(found(std::slice::from_ref(&other), 30), None, "{other:?}");
        }
    }

    #[test]
    fn an_event_without_success_or_failure_has_no_report() {
        assert!(Report::of(&event("app", "Progressing", 1)).is_none());
        assert!(Report::of(&event("app", "DependencyNotReady", 1)).is_none());
    }

    #[test]
    fn the_oldest_reports_are_forgotten_together_with_their_place() {
        let mut reading = Reading::after(10);
        let events = (11..).zip(vec![event("app", "BuildFailed", 1); MAX_REPORTS + 5]);
        let later = LaterEvents {
            events: events.collect(),
            is_complete: false,
        };
        assert!(!reading.add(later, Instant::now()));
        assert_eq!((reading.after, reading.reports.len()), (15, MAX_REPORTS));
        assert_eq!(reading.read_at, None);
    }
}
