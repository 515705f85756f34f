//! The Secrets and ConfigMaps that rules reference: their contents, and which of them must be read.
//!
//! A watch of metadata only signals changes. Contents are read by name, so that no other object is
//! read.

use std::collections::{HashMap, HashSet};

use tidings_core::model::object_name;

use crate::check::{Checked, Resource};
use crate::object::Identity;
use crate::template::Template;

/// The maximum number of retries that skip a denied object. With a retry every 5 s, it is read
/// every 5 minutes.
const MAX_SKIPS: u32 = 59;

/// All referenced objects.
#[derive(Default)]
pub(super) struct References(HashMap<Identity, ReferencedObject>);

/// A referenced object.
#[derive(Default)]
struct ReferencedObject {
    content: Option<Content>,
    /// Why the last read failed.
    error: Option<String>,
    reading: bool,
    stale: bool,
    /// How often in a row the API server has denied the read.
    denials: u32,
    /// How many retries still skip the object.
    skips: u32,
}

enum Content {
    Found {
        version: String,
        checked: Box<Checked>,
    },
    NotFound,
    Denied,
    /// The name is invalid, so the object is never read.
    InvalidName,
}

/// The result of a read.
pub(super) enum ReadResult {
    /// The object exists.
    Found {
        /// The resource version that was read.
        version: String,
        /// The checked contents.
        checked: Box<Checked>,
    },
    /// The object does not exist.
    NotFound,
    /// The API server denied the read, or failed for this object only.
    Denied(String),
    /// The API server did not respond.
    Failed(String),
}

impl References {
    /// Replaces the set of referenced objects.
    pub(super) fn replace(&mut self, names: HashSet<Identity>) {
        self.0.retain(|identity, _| names.contains(identity));
        for name in names {
            let entry = ReferencedObject::new(&name);
            self.0.entry(name).or_insert(entry);
        }
    }

    /// The referenced kinds.
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

    /// Whether a rule references the object.
    pub(super) fn contains(&self, identity: &Identity) -> bool {
        self.0.contains_key(identity)
    }

    /// Handles the current version of an object; `None` if it was deleted. Returns whether the
    /// object must be read.
    pub(super) fn observe(&mut self, identity: &Identity, version: Option<&str>) -> bool {
        let Some(entry) = self.0.get_mut(identity) else {
            return false;
        };
        let is_current = match (&entry.content, version) {
            (Some(Content::Found { version: read, .. }), Some(version)) => read == version,
            (Some(Content::NotFound), None) => true,
            _ => false,
        };
        if !is_current {
            entry.mark_stale();
        }
        entry.stale
    }

    /// Handles the end of a list of a kind in a namespace, or in all. Returns whether an object
    /// must be read.
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
            .filter(|identity| self.observe(identity, None))
            .count()
            > 0
    }

    /// Marks all objects for another read, because the cluster was restored.
    pub(super) fn mark_all_stale(&mut self) {
        self.0.values_mut().for_each(ReferencedObject::mark_stale);
    }

    /// Retries failed reads, those of denied objects with a backoff. Returns whether an object must
    /// be read.
    pub(super) fn retry(&mut self) -> bool {
        for entry in self.0.values_mut().filter(|entry| entry.error.is_some()) {
            match entry.skips.checked_sub(1) {
                Some(left) => entry.skips = left,
                None => entry.mark_stale(),
            }
        }
        self.0.values().any(|entry| entry.stale)
    }

    /// Takes at most this many objects to read. Each needs a call of [`References::record`].
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

    /// Records the result of a read. Returns whether the rules have changed.
    pub(super) fn record(&mut self, identity: &Identity, result: ReadResult) -> bool {
        let Some(entry) = self.0.get_mut(identity) else {
            return false;
        };
        entry.reading = false;
        entry.update_backoff(&result);
        let error = match &result {
            ReadResult::Denied(why) | ReadResult::Failed(why) => Some(why.clone()),
            ReadResult::Found { .. } | ReadResult::NotFound => None,
        };
        let error_changed = std::mem::replace(&mut entry.error, error) != entry.error;
        let content = match result {
            ReadResult::Found { version, checked } => Content::Found { version, checked },
            ReadResult::NotFound => Content::NotFound,
            ReadResult::Denied(_) if entry.content.is_none() => Content::Denied,
            // The former contents stay in effect.
            ReadResult::Denied(_) | ReadResult::Failed(_) => return error_changed,
        };
        let same = entry
            .content
            .as_ref()
            .is_some_and(|old| old.has_same_contents(&content));
        entry.content = Some(content);
        error_changed || !same
    }

    /// Whether each object has been read or cannot be read.
    pub(super) fn is_complete(&self) -> bool {
        self.0.values().all(|entry| entry.content.is_some())
    }

    /// Whether no reads are pending.
    pub(super) fn is_idle(&self) -> bool {
        self.0.values().all(|entry| !entry.stale && !entry.reading)
    }

    /// The existing objects, in no order.
    pub(super) fn checked(&self) -> impl Iterator<Item = &Checked> {
        self.0.values().filter_map(|entry| match &entry.content {
            Some(Content::Found { checked, .. }) => Some(checked.as_ref()),
            _ => None,
        })
    }

    /// The failed reads with the reason for each, in no order.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&Identity, &str)> {
        self.0
            .iter()
            .filter_map(|(identity, entry)| Some((identity, entry.error.as_deref()?)))
    }
}

impl ReferencedObject {
    fn new(identity: &Identity) -> Self {
        if object_name::is_subdomain(&identity.name) {
            return Self {
                stale: true,
                ..Self::default()
            };
        }
        let kind = &identity.kind;
        let why = format!(
            "invalid {kind} name; use a DNS-1123 subdomain of at most {} characters",
            object_name::MAX_NAME
        );
        Self {
            content: Some(Content::InvalidName),
            error: Some(why),
            ..Self::default()
        }
    }

    /// Marks the object for another read.
    fn mark_stale(&mut self) {
        self.stale |= !matches!(self.content, Some(Content::InvalidName));
    }

    /// Each denial in a row doubles the time to the next retry.
    fn update_backoff(&mut self, result: &ReadResult) {
        self.denials = if matches!(result, ReadResult::Denied(_)) {
            self.denials + 1
        } else {
            0
        };
        self.skips = self
            .denials
            .checked_sub(1)
            .map_or(0, |before| ((1 << before.min(6)) - 1).min(MAX_SKIPS));
    }
}

impl Content {
    /// Compares the contents. A changed annotation of a Secret changes no rule.
    fn has_same_contents(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Found { checked: old, .. }, Self::Found { checked: new, .. }) => {
                let same = match (&old.resource, &new.resource) {
                    (Some(Resource::Secret(old)), Some(Resource::Secret(new))) => old == new,
                    (Some(Resource::ConfigMap(old)), Some(Resource::ConfigMap(new))) => old == new,
                    _ => false,
                };
                same && old.uid == new.uid
            }
            (Self::NotFound, Self::NotFound) | (Self::Denied, Self::Denied) => true,
            _ => false,
        }
    }
}

/// The Secrets and ConfigMaps that an Alert or a Provider references, each with the field.
pub(super) fn references_of(resource: &Resource) -> Vec<(&'static str, Identity)> {
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
        Resource::Secret(_) | Resource::ConfigMap(_) | Resource::Grant(_) => return Vec::new(),
    };
    let identity = |kind: &str, name: &String| Identity {
        kind: kind.into(),
        namespace: namespace.clone(),
        name: name.clone(),
    };
    let fields = [
        "spec.secretRef",
        "spec.certSecretRef",
        "spec.proxySecretRef",
    ];
    let mut references: Vec<_> = fields
        .into_iter()
        .zip(secrets)
        .filter_map(|(field, name)| Some((field, identity("Secret", name?))))
        .collect();
    if let Some(Template::ConfigMap { name, .. }) = template {
        references.push(("spec.template.configMapKeyRef", identity("ConfigMap", name)));
    }
    references
}

#[cfg(test)]
mod tests;
