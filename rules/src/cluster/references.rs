//! The Secrets and ConfigMaps that rules name: what they hold, and which of them must be read.
//!
//! A watch of metadata only hints that something has changed. What an object holds is always read
//! by its name, so that no other object is read.

use std::collections::{HashMap, HashSet};

use crate::check::{Checked, Resource};
use crate::object::Identity;
use crate::template::Template;

/// The longest name that an object can have (Kubernetes: Object Names and IDs, DNS subdomain
/// names).
const LONGEST_NAME: usize = 253;
/// The most retries that pass over one that may not be read: at one each 5 s, it is read every 5
/// min.
const MOST_PASSED: u32 = 59;

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
    /// How often in a row the API server has refused it.
    refusals: u32,
    /// How many retries still pass over it.
    passes: u32,
}

enum Known {
    There {
        version: String,
        checked: Box<Checked>,
    },
    Missing,
    Unreadable,
    /// No object can be called so: nothing is asked for.
    Impossible,
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
    /// We may not read it, or the API server can't give this one.
    Refused(String),
    /// Nobody has answered.
    Failed(String),
}

impl Named {
    /// These are named now, and no others.
    pub(super) fn want(&mut self, names: HashSet<Identity>) {
        self.0.retain(|identity, _| names.contains(identity));
        for name in names {
            let entry = Entry::new(&name);
            self.0.entry(name).or_insert(entry);
        }
    }

    /// The kinds that are named.
    pub(super) fn kinds(&self) -> HashSet<&'static str> {
        let kind = |identity: &Identity| {
            if identity.kind == "Secret" {
                "Secret"
            } else {
                "ConfigMap"
            }
        };
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
        if !is_known {
            entry.doubt();
        }
        entry.stale
    }

    /// A watch has listed all there are of a kind in a namespace, or in all.
    pub(super) fn listed(
        &mut self,
        kind: &str,
        namespace: Option<&str>,
        listed: &HashSet<Identity>,
    ) -> bool {
        let in_scope = |identity: &&Identity| {
            identity.kind == kind
                && namespace.is_none_or(|namespace| identity.namespace == namespace)
        };
        let unlisted: Vec<_> = self
            .0
            .keys()
            .filter(in_scope)
            .filter(|identity| !listed.contains(identity))
            .cloned()
            .collect();
        unlisted
            .iter()
            .filter(|identity| self.hint(identity, None))
            .count()
            > 0
    }

    /// All are read again: nothing that is known of them can be relied on.
    pub(super) fn doubt(&mut self) {
        self.0.values_mut().for_each(Entry::doubt);
    }

    /// What could not be read is tried again: what was refused more and more seldom. Whether
    /// anything is to be read.
    pub(super) fn try_again(&mut self) -> bool {
        for entry in self.0.values_mut().filter(|entry| entry.trouble.is_some()) {
            match entry.passes.checked_sub(1) {
                Some(left) => entry.passes = left,
                None => entry.doubt(),
            }
        }
        self.0.values().any(|entry| entry.stale)
    }

    /// Which to read now, at most so many. Each is to be answered by [`Named::put`].
    pub(super) fn take_stale(&mut self, most: usize) -> Vec<Identity> {
        let stale = self
            .0
            .iter_mut()
            .filter(|(_, entry)| entry.stale && !entry.reading)
            .take(most);
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
        entry.rest(&answer);
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
        let same = entry
            .known
            .as_ref()
            .is_some_and(|old| old.holds_the_same(&known));
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
        self.0
            .iter()
            .filter_map(|(identity, entry)| Some((identity, entry.trouble.as_deref()?)))
    }
}

impl Entry {
    fn new(identity: &Identity) -> Self {
        if is_possible(&identity.name) {
            return Self {
                stale: true,
                ..Self::default()
            };
        }
        let kind = &identity.kind;
        let why = format!(
            "no {kind} can have this name: 1 to {LONGEST_NAME} of a-z, 0-9, '-' and '.' (a DNS-1123 subdomain)"
        );
        Self {
            known: Some(Known::Impossible),
            trouble: Some(why),
            ..Self::default()
        }
    }

    /// It is to be read again.
    fn doubt(&mut self) {
        self.stale |= !matches!(self.known, Some(Known::Impossible));
    }

    /// Each refusal in a row doubles the time to the next retry.
    fn rest(&mut self, answer: &Answer) {
        self.refusals = if matches!(answer, Answer::Refused(_)) {
            self.refusals + 1
        } else {
            0
        };
        self.passes = self
            .refusals
            .checked_sub(1)
            .map_or(0, |before| ((1 << before.min(6)) - 1).min(MOST_PASSED));
    }
}

/// Whether an object can be called so: whether it is a DNS-1123 subdomain.
fn is_possible(name: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &[u8]| {
        let ends = [label.first(), label.last()];
        ends.into_iter().all(|end| end.is_some_and(is_alphanumeric))
            && label
                .iter()
                .all(|byte| is_alphanumeric(byte) || *byte == b'-')
    };
    name.len() <= LONGEST_NAME && name.as_bytes().split(|byte| *byte == b'.').all(is_label)
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
            let secrets = [
                &provider.secret,
                &provider.cert_secret,
                &provider.proxy_secret,
            ];
            (
                &provider.namespace,
                secrets.map(Option::as_ref),
                &provider.template,
            )
        }
        Resource::Secret(_) | Resource::ConfigMap(_) => return Vec::new(),
    };
    let identity = |kind: &str, name: &String| Identity {
        kind: kind.into(),
        namespace: namespace.clone(),
        name: name.clone(),
    };
    let mut names: Vec<_> = secrets
        .into_iter()
        .flatten()
        .map(|name| identity("Secret", name))
        .collect();
    if let Some(Template::ConfigMap { name, .. }) = template {
        names.push(identity("ConfigMap", name));
    }
    names
}

#[cfg(test)]
mod tests;
