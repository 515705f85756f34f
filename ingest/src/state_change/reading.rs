//! What the events of one cluster, namespace and kind report, as far as they were read. Makes no
//! requests.

use std::collections::VecDeque;
use std::time::Duration;

use tidings_core::bus::{EventsStream, LaterEvents};
use tidings_core::model::id;
use tidings_core::model::object_state::{self, ObjectState};
use tidings_core::{Event, ObjectReference};
use tokio::time::Instant;

/// An answer follows from at most this many later events. A reading remembers no more.
pub(super) const MAX_EVENTS: usize = 1_000;

/// What the events of one cluster, namespace and kind report, from a sequence on.
#[derive(Default)]
pub(super) struct Reading {
    /// The stream that was read; `None` before the first read.
    stream: Option<EventsStream>,
    /// Later events were read, up to `up_to`.
    after: u64,
    up_to: u64,
    /// More than the maximum of events follow each sequence below this one.
    exceeded_below: u64,
    /// When the last complete read began.
    complete_at: Option<Instant>,
    /// When the last failed read ended.
    failed_at: Option<Instant>,
    events: VecDeque<ReadEvent>,
}

struct ReadEvent {
    sequence: u64,
    size: usize,
    read_at: Instant,
    /// `None` if it reports neither success nor failure.
    report: Option<Report>,
}

/// A success or failure of an object.
pub(super) struct Report {
    /// A digest.
    object: Box<str>,
    state: ObjectState,
    time_ms: i64,
}

impl Reading {
    /// Prepares for a read of this stream that includes what follows `stored`. Forgets the events
    /// of another stream, and those that no duplicate can be older than.
    pub(super) fn begin(&mut self, stream: EventsStream, stored: u64) {
        let former = self.stream.replace(stream);
        let is_same = former.is_some_and(|former| former.created == stream.created);
        while let Some(first) = self.events.front()
            && first.read_at.elapsed() > stream.dedupe_interval
        {
            self.after = self.after.max(first.sequence);
            self.events.pop_front();
        }
        if !is_same || !self.covers(stored) {
            self.restart(stored);
        }
    }

    /// Forgets all events. Those that follow `stored` are read next.
    pub(super) fn restart(&mut self, stored: u64) {
        *self = Self {
            stream: self.stream,
            after: stored,
            up_to: stored,
            ..Self::default()
        };
    }

    /// Adds what was read. Returns whether that was everything.
    pub(super) fn add(&mut self, later: LaterEvents, started: Instant) -> bool {
        for later in later.events {
            self.up_to = later.sequence;
            self.events.push_back(ReadEvent {
                sequence: later.sequence,
                size: later.size,
                read_at: Instant::now(),
                report: Report::of(&later.event),
            });
        }
        while self.events.len() > MAX_EVENTS {
            let forgotten = self.events.pop_front();
            self.exceeded_below = forgotten.map_or(0, |event| event.sequence);
        }
        if later.is_complete {
            self.complete_at = Some(started);
        }
        later.is_complete
    }

    /// Whether what follows this sequence was read, up to some sequence.
    pub(super) fn covers(&self, stored: u64) -> bool {
        self.stream.is_some() && stored >= self.after
    }

    /// Whether more events or bytes follow this sequence than a read returns. An answer must not
    /// depend on what this replica happened to read before.
    pub(super) fn exceeds(&self, stored: u64) -> bool {
        let later = self.events.iter().rev();
        let later = later.take_while(|event| event.sequence > stored);
        let bytes: usize = later.map(|event| event.size).sum();
        stored < self.exceeded_below || bytes > LaterEvents::MAX_BYTES
    }

    /// The last report of the opposite state after `stored` that happened before `report`.
    pub(super) fn opposite(&self, report: &Report, stored: u64) -> Option<u64> {
        let opposite = report.state.opposite()?;
        let later = self.events.iter().rev();
        let mut later = later.take_while(|event| event.sequence > stored);
        let found = later.find(|event| {
            event.report.as_ref().is_some_and(|other| {
                other.state == opposite
                    && other.object == report.object
                    && report.is_later_than(other)
            })
        });
        found.map(|event| event.sequence)
    }

    /// The last sequence that was read.
    pub(super) fn up_to(&self) -> u64 {
        self.up_to
    }

    /// Whether a complete read began at this time or later.
    pub(super) fn is_complete_since(&self, asked: Instant) -> bool {
        self.complete_at.is_some_and(|at| at >= asked)
    }

    /// Whether a read failed at this time or later.
    pub(super) fn has_failed_since(&self, asked: Instant) -> bool {
        self.failed_at.is_some_and(|at| at >= asked)
    }

    /// Notes that a read failed.
    pub(super) fn failed(&mut self) {
        self.failed_at = Some(Instant::now());
    }

    /// The number of remembered events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// How long a second copy counts as a duplicate; `None` before the first read.
    pub(super) fn dedupe_interval(&self) -> Option<Duration> {
        self.stream.map(|stream| stream.dedupe_interval)
    }
}

impl Report {
    /// `None` if the event reports neither success nor failure.
    pub(super) fn of(event: &Event) -> Option<Self> {
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
            object: id::digest(&[&event.cluster, &kind, &namespace, &name]).into(),
            state,
            time_ms: object_state::time_ms(event),
        })
    }

    /// Whether it happened later than the other one.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.time_ms > other.time_ms
    }
}

#[cfg(test)]
pub(super) mod tests;
