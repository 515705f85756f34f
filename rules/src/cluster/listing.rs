//! The Alerts or Providers of one watch: checked once for each change of what users wrote.

use std::collections::HashMap;

use crate::check::Checked;
use crate::object::{Identity, Object};

/// The objects of one kind in one namespace, or in all.
#[derive(Default)]
pub(super) struct Listing {
    held: HashMap<Identity, Held>,
    /// What has come of a list that is not over yet. Until it is, what was held before counts.
    fresh: Option<HashMap<Identity, Held>>,
    complete: bool,
}

struct Held {
    digest: String,
    checked: Checked,
}

impl Listing {
    /// A list begins, the first one or one that takes the place of all that is held.
    pub(super) fn begin(&mut self) {
        self.fresh = Some(HashMap::new());
    }

    /// An object is there, as this object with this digest. Whether the rules have changed.
    pub(super) fn put(
        &mut self,
        object: &Object,
        digest: String,
        check: impl FnOnce(&Object) -> Checked,
    ) -> bool {
        let identity = object.identity();
        if let Some(held) = self
            .held
            .get(&identity)
            .filter(|held| held.digest == digest)
        {
            let known = Held {
                digest,
                checked: held.checked.clone(),
            };
            self.fresh
                .as_mut()
                .map(|fresh| fresh.insert(identity, known));
            return false;
        }
        let held = Held {
            digest,
            checked: check(object),
        };
        match &mut self.fresh {
            Some(fresh) => drop(fresh.insert(identity, held)),
            None => drop(self.held.insert(identity, held)),
        }
        self.fresh.is_none()
    }

    /// An object is not there, or is being deleted. Whether the rules have changed.
    pub(super) fn remove(&mut self, identity: &Identity) -> bool {
        match &mut self.fresh {
            Some(fresh) => {
                fresh.remove(identity);
                false
            }
            None => self.held.remove(identity).is_some(),
        }
    }

    /// The list is over: what it did not hold is gone. Whether the rules have changed, and who is
    /// gone.
    pub(super) fn finish(&mut self) -> (bool, Vec<Identity>) {
        let Some(fresh) = self.fresh.take() else {
            return (false, Vec::new());
        };
        let gone: Vec<_> = self
            .held
            .keys()
            .filter(|identity| !fresh.contains_key(identity))
            .cloned()
            .collect();
        let is_known = |(identity, held): (&Identity, &Held)| {
            self.held
                .get(identity)
                .is_some_and(|old| old.digest == held.digest)
        };
        let changed = !self.complete || !gone.is_empty() || !fresh.iter().all(is_known);
        (self.held, self.complete) = (fresh, true);
        (changed, gone)
    }

    /// Whether there has been a whole list.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is there, in no order.
    pub(super) fn checked(&self) -> impl Iterator<Item = &Checked> {
        self.held.values().map(|held| &held.checked)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::{Options, check_one};

    /// Puts an object, and says whether the rules have changed and whether it was checked.
    fn put(listing: &mut Listing, name: &str, digest: &str) -> (bool, bool) {
        let value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "apps"}});
        let mut was_checked = false;
        let changed = listing.put(&Object::new(value), digest.to_owned(), |object| {
            was_checked = true;
            check_one(object, &[], &Options::default())
        });
        (changed, was_checked)
    }

    fn identity(name: &str) -> Identity {
        Identity {
            kind: "Secret".into(),
            namespace: "apps".into(),
            name: name.into(),
        }
    }

    fn names(listing: &Listing) -> Vec<String> {
        let mut names: Vec<_> = listing
            .checked()
            .map(|checked| checked.identity.name.clone())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_has_not_changed_is_not_checked_again() {
        let mut listing = Listing::default();
        listing.begin();
        assert_eq!(put(&mut listing, "a", "1"), (false, true));
        assert!(!listing.is_complete());
        assert_eq!(listing.finish(), (true, vec![]));
        assert_eq!(
            put(&mut listing, "a", "1"),
            (false, false),
            "a write to its status"
        );
        assert_eq!(put(&mut listing, "a", "2"), (true, true));
        listing.begin();
        assert_eq!(put(&mut listing, "a", "2"), (false, false));
        assert_eq!(
            listing.finish(),
            (false, vec![]),
            "a list that says what is known"
        );
    }

    #[test]
    fn what_a_new_list_does_not_hold_is_gone_once_it_is_over() {
        let mut listing = Listing::default();
        listing.begin();
        put(&mut listing, "a", "1");
        put(&mut listing, "b", "1");
        listing.finish();
        listing.begin();
        put(&mut listing, "b", "1");
        put(&mut listing, "c", "1");
        assert_eq!(names(&listing), ["a", "b"], "until then, what was");
        listing.begin();
        put(&mut listing, "b", "1");
        assert_eq!(
            listing.finish(),
            (true, vec![identity("a")]),
            "a list that was broken off does not count"
        );
        assert_eq!(names(&listing), ["b"]);
    }

    #[test]
    fn a_removal_counts_once() {
        let mut listing = Listing::default();
        listing.begin();
        assert_eq!(listing.finish(), (true, vec![]), "an empty list is a list");
        put(&mut listing, "a", "1");
        assert!(listing.remove(&identity("a")));
        assert!(!listing.remove(&identity("a")));
    }
}
