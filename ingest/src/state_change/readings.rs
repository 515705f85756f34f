//! The readings that ingest remembers, within one bound.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::reading::Reading;

/// All readings together remember at most this many events.
const MAX_EVENTS: usize = 50_000;
/// A reading counts as this many events more than it has.
const COST: usize = 50;

/// Readings by cluster, namespace and kind.
#[derive(Default)]
pub(super) struct Readings {
    entries: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    reading: Arc<tokio::sync::Mutex<Reading>>,
    /// The number of its events, after the last read.
    events: usize,
    used: Instant,
}

impl Readings {
    /// The reading for a filter; an empty one if there is none.
    pub(super) fn get(&self, filter: &str) -> Arc<tokio::sync::Mutex<Reading>> {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        let entry = entries.entry(filter.to_owned()).or_insert_with(|| Entry {
            reading: Arc::default(),
            events: 0,
            used: now,
        });
        entry.used = now;
        let reading = entry.reading.clone();
        evict(&mut entries);
        reading
    }

    /// Notes the number of events of a reading. Forgets readings that were last used before the
    /// dedupe interval, and then the least recently used ones until the bound is kept.
    pub(super) fn note_size(&self, filter: &str, reading: &Reading) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(filter) {
            entry.events = reading.len();
        }
        if let Some(dedupe_interval) = reading.dedupe_interval() {
            entries.retain(|_, entry| entry.used.elapsed() <= dedupe_interval);
        }
        evict(&mut entries);
    }
}

fn evict(entries: &mut HashMap<String, Entry>) {
    let mut events: usize = entries.values().map(|entry| entry.events + COST).sum();
    while events > MAX_EVENTS {
        let oldest = entries.iter().min_by_key(|(_, entry)| entry.used);
        let Some(oldest) = oldest.map(|(filter, _)| filter.clone()) else {
            return;
        };
        events -= entries
            .remove(&oldest)
            .map_or(0, |entry| entry.events + COST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state_change::reading::tests::{STREAM, reading};

    fn total(readings: &Readings) -> (usize, usize) {
        let entries = readings.entries.lock();
        let events = entries.values().map(|entry| entry.events).sum();
        (entries.len(), events)
    }

    #[tokio::test(start_paused = true)]
    async fn all_readings_together_are_bounded() {
        let readings = Readings::default();
        let large = reading(1_000);
        for number in 0..100 {
            tokio::time::advance(Duration::from_millis(1)).await;
            drop(readings.get(&number.to_string()));
            readings.note_size(&number.to_string(), &large);
        }
        assert_eq!(total(&readings), (47, 47_000));
        assert!(readings.entries.lock().contains_key("99"), "the last one");
        for number in 100..3_000 {
            drop(readings.get(&number.to_string()));
        }
        assert!(total(&readings).0 <= MAX_EVENTS / COST, "empty ones count");
    }

    #[tokio::test(start_paused = true)]
    async fn unused_readings_are_forgotten_after_the_dedupe_interval() {
        let readings = Readings::default();
        drop(readings.get("unused"));
        tokio::time::advance(STREAM.dedupe_interval + Duration::from_secs(1)).await;
        drop(readings.get("used"));
        readings.note_size("used", &reading(1));
        assert_eq!(total(&readings), (1, 1));
    }
}
