//! Which events the hub stored since the recorded position.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

/// The ids of a generation. A table of 2¹⁶ places is full with them. Each place takes 17 bytes, so
/// two generations and the half table that one grew from take 2.8 MB, less than
/// [`KNOWN_IDS`](crate::runtime::memory::KNOWN_IDS).
const GENERATION: usize = (1 << 16) / 8 * 7;

/// The ids of events that the hub has, as hashes.
///
/// An edge forwards its events in order, so those whose confirmation it did not get are the last
/// ones. Usually the set holds all events since the recorded position. If these are too many, it
/// holds at least the last 57,344, so that its memory has a bound.
#[derive(Debug, Default)]
pub(super) struct Known {
    newer: HashSet<u128>,
    older: HashSet<u128>,
    /// How many were left out.
    left_out: usize,
}

impl Known {
    /// Adds an event. Those of the hub are added in its order.
    pub(super) fn add(&mut self, id: &str) {
        self.add_within(id, GENERATION);
    }

    fn add_within(&mut self, id: &str, generation: usize) {
        if self.newer.len() >= generation {
            let newer = std::mem::take(&mut self.newer);
            self.left_out += std::mem::replace(&mut self.older, newer).len();
        }
        self.newer.insert(hash(id));
    }

    /// Whether the hub has this event. It is taken out.
    pub(super) fn take(&mut self, id: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let hash = hash(id);
        self.older.remove(&hash) | self.newer.remove(&hash)
    }

    /// Whether no event is left.
    pub(super) fn is_empty(&self) -> bool {
        self.newer.is_empty() && self.older.is_empty()
    }

    /// How many events were left out because there were too many.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }
}

fn hash(id: &str) -> u128 {
    let digest: [u8; 32] = Sha256::digest(id).into();
    let (first, _) = digest.split_at(16);
    first
        .iter()
        .fold(0, |hash, byte| (hash << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::memory::KNOWN_IDS;

    /// The bytes of a table: each place has an id and a byte of control.
    fn bytes(capacity: usize) -> usize {
        (capacity * 8 / 7).next_power_of_two() * (size_of::<u128>() + 1)
    }

    #[test]
    fn the_ids_fit_their_share_of_the_memory() {
        let mut known = Known::default();
        for number in 0..GENERATION * 3 {
            known.add(&number.to_string());
        }
        assert_eq!(known.newer.len() + known.older.len(), 2 * GENERATION);
        let tables = bytes(known.newer.capacity()) + bytes(known.older.capacity());
        let grown_from = bytes(known.newer.capacity()) / 2;
        assert!((tables + grown_from) as u64 <= KNOWN_IDS, "{tables}");
    }

    #[test]
    fn an_event_is_taken_out_once() {
        let mut known = Known::default();
        known.add("a");
        assert!(!known.take("b"));
        assert!(known.take("a"));
        assert!(known.is_empty() && !known.take("a"));
    }

    #[test]
    fn the_last_events_are_known_if_there_are_too_many() {
        let mut known = Known::default();
        for number in 0..95 {
            known.add_within(&number.to_string(), 10);
        }
        assert_eq!(known.left_out(), 80);
        let found = (0..95).filter(|number: &u32| known.take(&number.to_string()));
        assert_eq!(found.collect::<Vec<_>>(), (80..95).collect::<Vec<_>>());
    }
}
