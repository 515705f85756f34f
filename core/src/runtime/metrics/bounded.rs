//! Names that label metrics. Tenants choose them, so their number is bounded.

use std::collections::HashSet;

use parking_lot::Mutex;

/// The most Providers that metrics name, in one process.
pub const MOST_PROVIDERS: usize = 500;
/// The most clusters that metrics name, in one process.
pub const MOST_CLUSTERS: usize = 500;
/// The label of all that come later. No Kubernetes name has parentheses.
pub const OTHER: &str = "(other)";

/// The first names of a process; later ones share a label.
#[derive(Debug)]
pub struct BoundedNames {
    most: usize,
    known: Mutex<HashSet<String>>,
}

impl BoundedNames {
    /// At most this many names.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    /// Whether a name has a label of its own.
    pub fn has(&self, name: &str) -> bool {
        let mut known = self.known.lock();
        if known.contains(name) {
            return true;
        }
        let has_room = known.len() < self.most;
        if has_room {
            known.insert(name.to_owned());
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_have_labels_of_their_own() {
        let names = BoundedNames::new(2);
        assert!(names.has("a") && names.has("b"));
        assert!(!names.has("c"));
        assert!(names.has("a") && names.has("b") && !names.has("c"));
    }
}
