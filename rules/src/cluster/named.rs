//! The Secrets and ConfigMaps that rules name: what they hold, and which of them must be read.
//!
//! A watch of metadata only hints that something has changed. What an object holds is always read by its name, so that
//! no other object is read.

use std::collections::{HashMap, HashSet};

use crate::check::{Checked, Resource};
use crate::object::Identity;
use crate::template::Template;

/// All that are named.
#[derive(Default)]
pub(super) struct Named(HashMap<Identity, Entry>);

/// One of them.
#[derive(Default)]
struct Entry {
    known: Option<Known>,
    /// Why it could not be read the last time.
    trouble: Option<String>,
    reading: bool,
    stale: bool,
}

enum Known {
    There { version: String, checked: Box<Checked> },
    Missing,
    Unreadable,
}

/// What reading one of them has brought.
pub(super) enum Answer {
    /// It is there.
    There {
        /// The state that was read.
        version: String,
        /// What it holds.
        checked: Box<Checked>,
    },
    /// It does not exist.
    Missing,
    /// We may not read it.
    Refused(String),
    /// Nobody has answered.
    Failed(String),
}

impl Named {
    /// These are named now, and no others.
    pub(super) fn want(&mut self, names: HashSet<Identity>) {
        self.0.retain(|identity, _| names.contains(identity));
        for name in names {
            self.0.entry(name).or_insert_with(|| Entry { stale: true, ..Entry::default() });
        }
    }

    /// The kinds that are named.
    pub(super) fn kinds(&self) -> HashSet<&'static str> {
        let kind = |identity: &Identity| if identity.kind == "Secret" { "Secret" } else { "ConfigMap" };
        self.0.keys().map(kind).collect()
    }

    /// Whether a rule names it.
    pub(super) fn is_named(&self, identity: &Identity) -> bool {
        self.0.contains_key(identity)
    }

    /// A watch says that an object is in this state, or gone. Whether it must be read.
    pub(super) fn hint(&mut self, identity: &Identity, version: Option<&str>) -> bool {
        let Some(entry) = self.0.get_mut(identity) else {
            return false;
        };
        let is_known = match (&entry.known, version) {
            (Some(Known::There { version: known, .. }), Some(version)) => known == version,
            (Some(Known::Missing), None) => true,
            _ => false,
        };
        entry.stale |= !is_known;
        entry.stale
    }

    /// A watch has listed all there are of a kind in a namespace, or in all.
    pub(super) fn listed(&mut self, kind: &str, namespace: Option<&str>, listed: &HashSet<Identity>) -> bool {
        let in_scope =
            |identity: &&Identity| identity.kind == kind && namespace.is_none_or(|namespace| identity.namespace == namespace);
        let unlisted: Vec<_> = self.0.keys().filter(in_scope).filter(|identity| !listed.contains(identity)).cloned().collect();
        unlisted.iter().filter(|identity| self.hint(identity, None)).count() > 0
    }

    /// All are read again: nothing that is known of them can be relied on.
    pub(super) fn doubt(&mut self) {
        self.0.values_mut().for_each(|entry| entry.stale = true);
    }

    /// What could not be read is tried again. Whether there is any.
    pub(super) fn try_again(&mut self) -> bool {
        let troubled = self.0.values_mut().filter(|entry| entry.trouble.is_some());
        troubled.map(|entry| entry.stale = true).count() > 0
    }

    /// Which to read now, at most so many. Each is to be answered by [`Named::put`].
    pub(super) fn take_stale(&mut self, most: usize) -> Vec<Identity> {
        let stale = self.0.iter_mut().filter(|(_, entry)| entry.stale && !entry.reading).take(most);
        stale
            .map(|(identity, entry)| {
                (entry.reading, entry.stale) = (true, false);
                identity.clone()
            })
            .collect()
    }

    /// The answer for one of them. Whether the rules have changed.
    pub(super) fn put(&mut self, identity: &Identity, answer: Answer) -> bool {
        let Some(entry) = self.0.get_mut(identity) else {
            return false;
        };
        entry.reading = false;
        let trouble = match &answer {
            Answer::Refused(why) | Answer::Failed(why) => Some(why.clone()),
            Answer::There { .. } | Answer::Missing => None,
        };
        let told = std::mem::replace(&mut entry.trouble, trouble) != entry.trouble;
        let known = match answer {
            Answer::There { version, checked } => Known::There { version, checked },
            Answer::Missing => Known::Missing,
            Answer::Refused(_) if entry.known.is_none() => Known::Unreadable,
            // What was known stays in force.
            Answer::Refused(_) | Answer::Failed(_) => return told,
        };
        let same = entry.known.as_ref().is_some_and(|old| old.holds_the_same(&known));
        entry.known = Some(known);
        told || !same
    }

    /// Whether it is known of each what it holds, or that it can't be had.
    pub(super) fn is_complete(&self) -> bool {
        self.0.values().all(|entry| entry.known.is_some())
    }

    /// Whether nothing is to be read.
    pub(super) fn is_settled(&self) -> bool {
        self.0.values().all(|entry| !entry.stale && !entry.reading)
    }

    /// What is there, in no order.
    pub(super) fn checked(&self) -> impl Iterator<Item = &Checked> {
        self.0.values().filter_map(|entry| match &entry.known {
            Some(Known::There { checked, .. }) => Some(checked.as_ref()),
            _ => None,
        })
    }

    /// What can't be read, each with the reason, in no order.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&Identity, &str)> {
        self.0.iter().filter_map(|(identity, entry)| Some((identity, entry.trouble.as_deref()?)))
    }
}

impl Known {
    /// A write that changes only an annotation of a Secret changes no rule.
    fn holds_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::There { checked: old, .. }, Self::There { checked: new, .. }) => {
                let same = match (&old.resource, &new.resource) {
                    (Some(Resource::Secret(old)), Some(Resource::Secret(new))) => old == new,
                    (Some(Resource::ConfigMap(old)), Some(Resource::ConfigMap(new))) => old == new,
                    _ => false,
                };
                same && old.uid == new.uid
            }
            (Self::Missing, Self::Missing) | (Self::Unreadable, Self::Unreadable) => true,
            _ => false,
        }
    }
}

/// The Secrets and ConfigMaps that an Alert or a Provider names.
pub(super) fn names(resource: &Resource) -> Vec<Identity> {
    let (namespace, secrets, template) = match resource {
        Resource::Alert(alert) => (&alert.namespace, [None, None, None], &alert.template),
        Resource::Provider(provider) => {
            let secrets = [&provider.secret, &provider.cert_secret, &provider.proxy_secret];
            (&provider.namespace, secrets.map(Option::as_ref), &provider.template)
        }
        Resource::Secret(_) | Resource::ConfigMap(_) => return Vec::new(),
    };
    let identity = |kind: &str, name: &String| Identity { kind: kind.into(), namespace: namespace.clone(), name: name.clone() };
    let mut names: Vec<_> = secrets.into_iter().flatten().map(|name| identity("Secret", name)).collect();
    if let Some(Template::ConfigMap { name, .. }) = template {
        names.push(identity("ConfigMap", name));
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::{Options, check_one};
    use crate::object::Object;

    fn secret(name: &str) -> Identity {
        Identity { kind: "Secret".into(), namespace: "apps".into(), name: name.into() }
    }

    fn there(version: &str, token: &str) -> Answer {
        let metadata = json!({"name": "s", "namespace": "apps"});
        let object =
            Object::new(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": token}}));
        Answer::There { version: version.to_owned(), checked: Box::new(check_one(&object, &[], &Options::default())) }
    }

    /// One Secret that is named and known.
    fn known() -> Named {
        let mut named = Named::default();
        named.want(HashSet::from([secret("s")]));
        assert!(!named.is_complete());
        assert_eq!(named.take_stale(9), [secret("s")]);
        assert!(!named.is_settled() && named.take_stale(9).is_empty(), "it is being read");
        assert!(named.put(&secret("s"), there("1", "a")));
        assert!(named.is_complete() && named.is_settled());
        named
    }

    #[test]
    fn only_what_is_named_and_has_changed_is_read() {
        let mut named = known();
        assert!(!named.hint(&secret("other"), Some("1")), "nobody names it");
        assert!(!named.hint(&secret("s"), Some("1")), "that state is known");
        assert!(named.take_stale(9).is_empty());
        assert!(named.hint(&secret("s"), Some("2")));
        assert_eq!(named.take_stale(9), [secret("s")]);
        assert!(!named.put(&secret("s"), there("2", "a")), "its values are the same");
        named.hint(&secret("s"), Some("3"));
        assert_eq!(named.take_stale(9).len(), 1);
        assert!(named.put(&secret("s"), there("3", "b")));
    }

    #[test]
    fn a_change_while_it_is_read_is_read_again() {
        let mut named = known();
        named.hint(&secret("s"), Some("2"));
        named.take_stale(9);
        named.hint(&secret("s"), Some("3"));
        assert!(named.take_stale(9).is_empty());
        named.put(&secret("s"), there("2", "b"));
        assert_eq!(named.take_stale(9), [secret("s")]);
    }

    #[test]
    fn one_that_goes_and_comes_is_followed() {
        let mut named = known();
        assert!(named.listed("Secret", None, &HashSet::new()), "a list without it");
        named.take_stale(9);
        assert!(named.put(&secret("s"), Answer::Missing) && named.checked().count() == 0);
        assert!(!named.listed("Secret", Some("apps"), &HashSet::new()), "that is known");
        assert!(named.hint(&secret("s"), Some("5")), "it appears");
        named.want(HashSet::new());
        assert!(named.is_settled(), "nobody names it any more");
    }

    #[test]
    fn what_can_not_be_read_is_told_and_what_was_known_stays() {
        let mut named = known();
        named.hint(&secret("s"), Some("2"));
        named.take_stale(9);
        assert!(named.put(&secret("s"), Answer::Refused("forbidden".into())));
        assert_eq!((named.checked().count(), named.troubles().count()), (1, 1));
        assert!(named.try_again());
        named.take_stale(9);
        assert!(!named.put(&secret("s"), Answer::Refused("forbidden".into())), "no news");
        named.want(HashSet::from([secret("t")]));
        named.take_stale(9);
        named.put(&secret("t"), Answer::Failed("no answer".into()));
        assert!(!named.is_complete(), "whether it is there is open");
        named.try_again();
        named.take_stale(9);
        named.put(&secret("t"), Answer::Refused("forbidden".into()));
        assert!(named.is_complete());
    }
}
