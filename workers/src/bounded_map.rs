//! A map that does not grow with all that was there once.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// With fewer entries than this nothing is looked through.
const FEW: usize = 1000;

/// Drops what is of no use any more whenever it has doubled.
pub struct Bounded<K, V> {
    all: HashMap<K, V>,
    full_at: usize,
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    /// The value under a key.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.all.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.all.get_mut(key)
    }

    /// Puts a value in. Where that would double what was of use last, all others are asked whether
    /// they still are.
    pub fn insert(&mut self, key: K, value: V, mut is_of_use: impl FnMut(&K, &V) -> bool) {
        if self.all.len() >= self.full_at && !self.all.contains_key(&key) {
            self.all.retain(|key, value| is_of_use(key, value));
            self.full_at = FEW.max(2 * self.all.len());
        }
        self.all.insert(key, value);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl<K, V> Default for Bounded<K, V> {
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
    fn what_is_of_no_use_any_more_is_dropped_before_the_map_doubles() {
        let mut map = Bounded::default();
        let is_even = |_: &usize, value: &usize| value.is_multiple_of(2);
        for number in 0..FEW {
            map.insert(number, number, is_even);
        }
        assert_eq!(map.len(), FEW, "few are no burden");
        map.insert(FEW, FEW, is_even);
        assert_eq!(map.len(), FEW / 2 + 1);
        for number in FEW..100 * FEW {
            map.insert(number, 1, is_even);
            assert!(
                map.len() <= FEW,
                "{} where {} are of use",
                map.len(),
                FEW / 2
            );
        }
        for number in 0..10 * FEW {
            map.insert(number, 2, is_even);
        }
        assert_eq!(map.len(), 10 * FEW, "what is of use stays");
        assert!(map.get(&7).is_some() && map.get(&(50 * FEW)).is_none());
    }
}
