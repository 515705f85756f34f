//! Head-room: who may still write as the server's storage fills, and whether the router keeps up
//! with retention.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Above this part of the storage, ingest answers 503.
const INGEST_BELOW: f64 = 0.8;
/// Above this part of the storage, the router stops pulling; the rest belongs to the workers.
const ROUTER_BELOW: f64 = 0.9;
/// Ingest refuses when what the router has not read takes up this part of a limit of EVENTS.
const UNREAD_BELOW: f64 = 0.8;

/// What is known of the server's storage.
#[derive(Debug, Default)]
pub struct Storage {
    /// The used part, as the bits of an `f64`.
    used: AtomicU64,
    eviction_is_near: AtomicBool,
    routed: Mutex<Option<Routed>>,
}

/// How far the routers had come when they were last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// When the stream was made: sequences of another of the same name mean nothing.
    pub stream_created: Timestamp,
    /// All up to this sequence were routed.
    pub up_to: u64,
}

/// The numbers of EVENTS and its router.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Stored messages.
    pub messages: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// The limit in bytes; 0 for none.
    pub max_bytes: u64,
    /// The last sequence.
    pub last_sequence: u64,
    /// All up to this sequence are routed.
    pub routed_up_to: u64,
    /// The age of the oldest event that is not routed.
    pub oldest_unrouted: Duration,
    /// The limit of the age.
    pub max_age: Duration,
}

impl Storage {
    /// Notes what is stored of what may be; `None` where no limit is known.
    pub fn note_used(&self, used: u64, limit: Option<u64>) {
        let part = limit
            .filter(|limit| *limit > 0)
            .map_or(0.0, |limit| used as f64 / limit as f64);
        self.used.store(part.to_bits(), Ordering::Relaxed);
    }

    /// Notes how far the router is behind.
    pub fn note_backlog(&self, backlog: &Backlog) {
        self.eviction_is_near
            .store(backlog.is_near_eviction(), Ordering::Relaxed);
    }

    /// Notes how far the routers have come.
    pub fn note_routed(&self, routed: Routed) {
        *self.routed.lock() = Some(routed);
    }

    /// How far the routers had come in the stream that was made then, if that was seen.
    pub fn routed_up_to(&self, stream_created: Timestamp) -> Option<u64> {
        let routed = *self.routed.lock();
        routed
            .filter(|routed| routed.stream_created == stream_created)
            .map(|routed| routed.up_to)
    }

    /// The used part of the storage, 0 where no limit is known.
    pub fn used(&self) -> f64 {
        f64::from_bits(self.used.load(Ordering::Relaxed))
    }

    /// Whether ingest may store.
    pub fn has_room_for_events(&self) -> bool {
        self.used() <= INGEST_BELOW
    }

    /// Whether the router may plan.
    pub fn has_room_for_deliveries(&self) -> bool {
        self.used() <= ROUTER_BELOW
    }

    /// Whether EVENTS is about to evict what the router has not read.
    pub fn eviction_is_near(&self) -> bool {
        self.eviction_is_near.load(Ordering::Relaxed)
    }
}

impl Backlog {
    fn is_near_eviction(&self) -> bool {
        let unread = self
            .last_sequence
            .saturating_sub(self.routed_up_to)
            .min(self.messages);
        if unread == 0 {
            return false;
        }
        let unread_bytes = self.bytes as f64 * unread as f64 / self.messages as f64;
        let by_size = self.max_bytes > 0 && unread_bytes >= UNREAD_BELOW * self.max_bytes as f64;
        let by_age =
            !self.max_age.is_zero() && self.oldest_unrouted >= self.max_age.mul_f64(UNREAD_BELOW);
        by_size || by_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_stops_at_its_own_mark() {
        let storage = Storage::default();
        for (used, events, deliveries) in [
            (0, true, true),
            (80, true, true),
            (81, false, true),
            (91, false, false),
        ] {
            storage.note_used(used, Some(100));
            assert_eq!(
                (
                    storage.has_room_for_events(),
                    storage.has_room_for_deliveries()
                ),
                (events, deliveries),
                "{used}"
            );
        }
        storage.note_used(1 << 40, None);
        assert!(storage.has_room_for_events());
    }

    #[test]
    fn how_far_routers_had_come_counts_for_their_stream_only() {
        let storage = Storage::default();
        let made = Timestamp::from_second(1).unwrap();
        assert_eq!(storage.routed_up_to(made), None);
        storage.note_routed(Routed {
            stream_created: made,
            up_to: 7,
        });
        assert_eq!(storage.routed_up_to(made), Some(7));
        assert_eq!(
            storage.routed_up_to(Timestamp::from_second(2).unwrap()),
            None
        );
    }

    #[test]
    fn ingest_refuses_before_unread_events_are_evicted() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let full = Backlog {
            messages: 100,
            bytes: 1000,
            max_bytes: 1000,
            last_sequence: 500,
            routed_up_to: 500,
            max_age: hours(72),
            ..Backlog::default()
        };
        for (backlog, near) in [
            (full, false),
            (
                Backlog {
                    routed_up_to: 430,
                    ..full
                },
                false,
            ),
            (
                Backlog {
                    routed_up_to: 420,
                    ..full
                },
                true,
            ),
            (
                Backlog {
                    routed_up_to: 0,
                    ..full
                },
                true,
            ),
            (
                Backlog {
                    routed_up_to: 499,
                    oldest_unrouted: hours(57),
                    ..full
                },
                false,
            ),
            (
                Backlog {
                    routed_up_to: 499,
                    oldest_unrouted: hours(58),
                    ..full
                },
                true,
            ),
        ] {
            assert_eq!(backlog.is_near_eviction(), near, "{backlog:?}");
        }
    }
}
