//! Headroom: which roles may still write while the server's storage fills up, and whether the
//! router keeps up with the retention of EVENTS.
//!
//! The roles stop one after the other, so that workers can always finish deliveries and free
//! storage: ingest at 80 %, the router at 90 %.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The used share of the storage above which ingest answers 503.
const INGEST_BELOW: f64 = 0.8;
/// The used share of the storage above which the router stops pulling.
const ROUTER_BELOW: f64 = 0.9;
/// Ingest answers 503 when unrouted events take up this share of a limit of EVENTS.
const UNROUTED_BELOW: f64 = 0.8;

/// The state of the server's storage, as last sampled.
#[derive(Debug, Default)]
pub struct Storage {
    /// The used share, as the bits of an `f64`.
    used: AtomicU64,
    eviction_is_near: AtomicBool,
    write_errors: Mutex<WriteErrors>,
}

/// The write errors that the server keeps until it restarts.
#[derive(Debug, Default)]
struct WriteErrors {
    /// One for each stream.
    lasting: Vec<String>,
    /// The one of EVENTS, and what to do.
    events: Option<String>,
}

/// The unrouted part of EVENTS and the limits of the stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// The number of stored messages.
    pub messages: u64,
    /// The number of stored bytes.
    pub bytes: u64,
    /// The limit of the bytes. 0 means no limit.
    pub max_bytes: u64,
    /// The sequence of the last message.
    pub last_sequence: u64,
    /// All events up to this sequence are routed.
    pub routed_up_to: u64,
    /// The age of the oldest unrouted event.
    pub oldest_unrouted: Duration,
    /// The limit of the age. Zero means no limit.
    pub max_age: Duration,
}

impl Storage {
    /// Stores a sample of the used bytes and their limit. `None` means that there is no limit.
    pub fn note_used(&self, used: u64, limit: Option<u64>) {
        let share = limit
            .filter(|limit| *limit > 0)
            .map_or(0.0, |limit| used as f64 / limit as f64);
        self.used.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Stores a sample of the router's backlog.
    pub fn note_backlog(&self, backlog: &Backlog) {
        self.eviction_is_near
            .store(backlog.is_near_eviction(), Ordering::Relaxed);
    }

    /// Stores the write errors that the server keeps until it restarts, one for each stream.
    pub fn note_lasting_write_errors(&self, errors: Vec<String>) {
        self.write_errors.lock().lasting = errors;
    }

    /// Stores the write error of EVENTS, and what to do.
    pub fn note_events_write_error(&self, error: Option<String>) {
        self.write_errors.lock().events = error;
    }

    /// The write errors that the server keeps until it restarts.
    pub fn lasting_write_errors(&self) -> Vec<String> {
        self.write_errors.lock().lasting.clone()
    }

    /// Why no event can be stored until the server restarts.
    pub fn events_write_error(&self) -> Option<String> {
        self.write_errors.lock().events.clone()
    }

    /// The used share of the storage. 0 if there is no limit.
    pub fn used(&self) -> f64 {
        f64::from_bits(self.used.load(Ordering::Relaxed))
    }

    /// Whether ingest may store events.
    pub fn has_room_for_events(&self) -> bool {
        self.used() <= INGEST_BELOW
    }

    /// Whether the router may store deliveries.
    pub fn has_room_for_deliveries(&self) -> bool {
        self.used() <= ROUTER_BELOW
    }

    /// Whether EVENTS is about to evict unrouted events.
    pub fn eviction_is_near(&self) -> bool {
        self.eviction_is_near.load(Ordering::Relaxed)
    }
}

impl Backlog {
    fn is_near_eviction(&self) -> bool {
        let unrouted = self
            .last_sequence
            .saturating_sub(self.routed_up_to)
            .min(self.messages);
        if unrouted == 0 {
            return false;
        }
        let unrouted_bytes = self.bytes as f64 * unrouted as f64 / self.messages as f64;
        let by_size =
            self.max_bytes > 0 && unrouted_bytes >= UNROUTED_BELOW * self.max_bytes as f64;
        let by_age =
            !self.max_age.is_zero() && self.oldest_unrouted >= self.max_age.mul_f64(UNROUTED_BELOW);
        by_size || by_age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_stops_at_its_own_share() {
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
    fn eviction_is_near_before_unrouted_events_are_evicted() {
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
