//! The Alerts or Providers of one watch. Each is checked once per change by a user.

use std::collections::HashMap;

use crate::check::Checked;
use crate::object::{Identity, Object};

/// The objects of one kind in one namespace, or in all.
#[derive(Default)]
pub(super) struct Listing {
    objects: HashMap<Identity, ListedObject>,
    /// The objects of an unfinished list. The former objects are used until it ends.
    pending: Option<HashMap<Identity, ListedObject>>,
    complete: bool,
}

struct ListedObject {
    digest: String,
    checked: Checked,
}

impl Listing {
    /// Starts a list, which replaces all objects when it ends.
    pub(super) fn begin(&mut self) {
        self.pending = Some(HashMap::new());
    }

    /// Adds an object with its digest. Returns whether the rules have changed.
    pub(super) fn put(
        &mut self,
        object: &Object,
        digest: String,
        check: impl FnOnce(&Object) -> Checked,
    ) -> bool {
        let identity = object.identity();
        if let Some(listed) = self
            .objects
            .get(&identity)
            .filter(|listed| listed.digest == digest)
        {
            let unchanged = ListedObject {
                digest,
                checked: listed.checked.clone(),
            };
            self.pending
                .as_mut()
                .map(|pending| pending.insert(identity, unchanged));
            return false;
        }
        let listed = ListedObject {
            digest,
            checked: check(object),
        };
        match &mut self.pending {
            Some(pending) => drop(pending.insert(identity, listed)),
            None => drop(self.objects.insert(identity, listed)),
        }
        self.pending.is_none()
    }

    /// Removes an object that is deleted or being deleted. Returns whether the rules have changed.
    pub(super) fn remove(&mut self, identity: &Identity) -> bool {
        match &mut self.pending {
            Some(pending) => {
                pending.remove(identity);
                false
            }
            None => self.objects.remove(identity).is_some(),
        }
    }

    /// Ends a list and removes the objects that it did not contain. Returns whether the rules have
    /// changed, and the removed objects.
    pub(super) fn finish(&mut self) -> (bool, Vec<Identity>) {
        let Some(pending) = self.pending.take() else {
            return (false, Vec::new());
        };
        let removed: Vec<_> = self
            .objects
            .keys()
            .filter(|identity| !pending.contains_key(identity))
            .cloned()
            .collect();
        let is_unchanged = |(identity, listed): (&Identity, &ListedObject)| {
            self.objects
                .get(identity)
                .is_some_and(|old| old.digest == listed.digest)
        };
        let changed = !self.complete || !removed.is_empty() || !pending.iter().all(is_unchanged);
        (self.objects, self.complete) = (pending, true);
        (changed, removed)
    }

    /// Whether a list has been completed.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it has an object, or an unfinished list does.
    pub(super) fn contains(&self, identity: &Identity) -> bool {
        let pending = self.pending.as_ref();
        self.objects.contains_key(identity)
            || pending.is_some_and(|pending| pending.contains_key(identity))
    }

    /// The objects, in no order.
    pub(super) fn checked(&self) -> impl Iterator<Item = &Checked> {
        self.objects.values().map(|listed| &listed.checked)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::check_one;
    use crate::options::Options;
    use crate::testing;

    /// Adds an object. Returns whether the rules have changed and whether it was checked.
    fn put(listing: &mut Listing, name: &str, digest: &str) -> (bool, bool) {
        let object = testing::secret(name, json!({})).object();
        let mut was_checked = false;
        let changed = listing.put(&object, digest.to_owned(), |object| {
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
    fn an_unchanged_object_is_not_checked_again() {
        let mut listing = Listing::default();
        listing.begin();
        assert_eq!(put(&mut listing, "a", "1"), (false, true));
        assert!(!listing.is_complete());
        assert_eq!(listing.finish(), (true, vec![]));
        assert_eq!(
            put(&mut listing, "a", "1"),
            (false, false),
            "a status write"
        );
        assert_eq!(put(&mut listing, "a", "2"), (true, true));
        listing.begin();
        assert_eq!(put(&mut listing, "a", "2"), (false, false));
        assert_eq!(listing.finish(), (false, vec![]), "an unchanged list");
    }

    #[test]
    fn objects_missing_from_a_list_are_removed_when_it_ends() {
        let mut listing = Listing::default();
        listing.begin();
        put(&mut listing, "a", "1");
        put(&mut listing, "b", "1");
        listing.finish();
        listing.begin();
        put(&mut listing, "b", "1");
        put(&mut listing, "c", "1");
        assert_eq!(
            names(&listing),
            ["a", "b"],
            "the former objects until the list ends"
        );
        listing.begin();
        put(&mut listing, "b", "1");
        assert_eq!(
            listing.finish(),
            (true, vec![identity("a")]),
            "an interrupted list is ignored"
        );
        assert_eq!(names(&listing), ["b"]);
    }

    #[test]
    fn a_removal_is_reported_once() {
        let mut listing = Listing::default();
        listing.begin();
        assert_eq!(
            listing.finish(),
            (true, vec![]),
            "an empty list is complete"
        );
        put(&mut listing, "a", "1");
        assert!(listing.remove(&identity("a")));
        assert!(!listing.remove(&identity("a")));
    }
}
