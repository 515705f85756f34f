//! A map that drops entries that are no longer used.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// The map is not cleaned up below this number of entries.
const FEW: usize = 1000;

/// Drops unused entries whenever the map has doubled.
pub struct BoundedMap<K, V> {
    all: HashMap<K, V>,
    full_at: usize,
}

impl<K: Eq + Hash, V> BoundedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.all.get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.all.get_mut(key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.all.values()
    }

    /// Inserts a value. If the map has doubled since its last cleanup, it first drops the entries
    /// that are not used.
    pub fn insert(&mut self, key: K, value: V, mut is_used: impl FnMut(&K, &V) -> bool) {
        if self.all.len() >= self.full_at && !self.all.contains_key(&key) {
            self.all.retain(|key, value| is_used(key, value));
            self.full_at = FEW.max(2 * self.all.len());
        }
        self.all.insert(key, value);
    }

    /// The number of entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl<K, V> Default for BoundedMap<K, V> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            full_at: FEW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_entries_are_dropped_before_the_map_doubles() {
        let mut map = BoundedMap::default();
        let is_even = |_: &usize, value: &usize| value.is_multiple_of(2);
        for number in 0..FEW {
            map.insert(number, number, is_even);
        }
        assert_eq!(map.len(), FEW, "a small map is not cleaned up");
        map.insert(FEW, FEW, is_even);
        assert_eq!(map.len(), FEW / 2 + 1);
        for number in FEW..100 * FEW {
            map.insert(number, 1, is_even);
            assert!(
                map.len() <= FEW,
                "{} entries, {} of them used",
                map.len(),
                FEW / 2
            );
        }
        for number in 0..10 * FEW {
            map.insert(number, 2, is_even);
        }
        assert_eq!(map.len(), 10 * FEW, "used entries stay");
        assert!(map.get(&7).is_some() && map.get(&(50 * FEW)).is_none());
    }
}
