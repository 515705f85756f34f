//! Which extension fields each object had, so that their loss is noticed, and the clusters of an
//! Alert that lost them. Makes no requests.
//!
//! An API server with Flux's CRDs drops our fields whenever an object is read or written. A field
//! that is gone was either removed by a user or dropped by the API server. It was removed if the
//! generation has risen while the schema has the field. Otherwise it is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tidings_core::bus::extensions::StoredExtensions;
use tidings_core::wire::RuleExtensions;
use tokio::time::Instant;

use crate::check::Checked;
use crate::cluster::discovery::{ServedApi, ServedKind};
use crate::extensions::{CLUSTER_SELECTOR, CLUSTERS, ObjectExtensions};
use crate::object::Identity;

/// The schema that the API server reports may be this much older than the one that it applies.
const SCHEMA_DELAY: Duration = Duration::from_secs(3);
/// The maximum size of the clusters in a record, in bytes.
const MAX_CLUSTERS_BYTES: usize = 64 << 10;

/// The records of all objects, and what is known of the schemas.
#[derive(Default)]
pub(super) struct Kept {
    /// The records by uid; `None` before they are read.
    records: Option<BTreeMap<String, StoredExtensions>>,
    /// When the current version of each object was first seen.
    seen: HashMap<Identity, Instant>,
    /// The schemas, and when they were requested.
    schema: Option<(ServedApi, Instant)>,
    /// The objects whose records wait for a newer schema, by uid.
    undecided: BTreeMap<String, Identity>,
}

/// A record to write; without a record it is to be deleted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub uid: String,
    pub record: Option<RuleExtensions>,
    pub revision: Option<u64>,
}

/// The extension fields that an object has lost, and the restrictions among them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lost {
    pub fields: Vec<String>,
    pub clusters: Option<Vec<String>>,
    pub cluster_selector: Option<String>,
}

/// What is known about a schema.
#[derive(Clone, Copy)]
struct Schema<'a> {
    served: Option<&'a ServedKind>,
    /// How long after the object was first seen the schema was requested; `None` if before.
    age: Option<Duration>,
}

impl Schema<'_> {
    /// Whether the schema lacks a field; `None` while that is not certain.
    fn lacks(self, field: &str) -> Option<bool> {
        let lacks = self.served?.lacks.as_ref()?.contains(field);
        let certain_after = if lacks { Duration::ZERO } else { SCHEMA_DELAY };
        (self.age? >= certain_after).then_some(lacks)
    }

    /// Whether it is certain of any field whether the schema lacks it.
    fn is_certain(self) -> bool {
        let lacks = self.served.and_then(|served| served.lacks.as_ref());
        lacks
            .zip(self.age)
            .is_some_and(|(lacks, age)| age >= SCHEMA_DELAY || !lacks.is_empty())
    }
}

impl Kept {
    pub(super) fn is_loaded(&self) -> bool {
        self.records.is_some()
    }

    /// Whether a newer schema will decide about an object. Without a schema nothing can.
    pub(super) fn will_decide(&self) -> bool {
        self.undecided.values().any(|it| self.knows_schema(it))
    }

    /// Whether the current schema decides about an object.
    pub(super) fn decides(&self) -> bool {
        let mut schemas = self.undecided.values().map(|it| self.schema_for(it));
        schemas.any(Schema::is_certain)
    }

    /// Whether a newer schema will decide if a field of this object is lost or was removed.
    pub(super) fn is_undecided(&self, object: &Checked) -> bool {
        let undecided = self.undecided.get(&object.uid);
        undecided.is_some_and(|it| self.knows_schema(it))
    }

    /// Whether the API server publishes the schema of an object.
    fn knows_schema(&self, identity: &Identity) -> bool {
        let served = self.schema_for(identity).served;
        served.is_some_and(|served| served.lacks.is_some())
    }

    fn schema_for(&self, identity: &Identity) -> Schema<'_> {
        let schema = self.schema.as_ref();
        let seen = self.seen.get(identity);
        let age = schema
            .zip(seen)
            .and_then(|((_, requested), seen)| requested.checked_duration_since(*seen));
        Schema {
            served: schema.map(|(served_api, _)| served_api.of(&identity.kind)),
            age,
        }
    }

    /// Replaces all records.
    pub(super) fn load(&mut self, stored: Vec<StoredExtensions>) {
        let by_uid = |stored: StoredExtensions| (stored.record.uid.clone(), stored);
        self.records = Some(stored.into_iter().map(by_uid).collect());
    }

    /// Forgets the revisions, because the bucket was recreated: every record is written again.
    pub(super) fn bucket_was_recreated(&mut self, stored: &[StoredExtensions]) {
        for (uid, record) in self.records.iter_mut().flatten() {
            let revision = stored.iter().find(|stored| stored.record.uid == *uid);
            record.revision = revision.map_or(0, |stored| stored.revision);
        }
    }

    /// Notes a change that was written, with its revision.
    pub(super) fn written(&mut self, change: Change, revision: u64) {
        let records = self.records.get_or_insert_default();
        match change.record {
            Some(record) => {
                drop(records.insert(change.uid, StoredExtensions { record, revision }));
            }
            None => drop(records.remove(&change.uid)),
        }
    }

    /// Notes that an object was changed by a user or is new.
    pub(super) fn saw(&mut self, identity: Identity) {
        self.seen.insert(identity, Instant::now());
    }

    /// Forgets when objects were seen that do not exist any more.
    pub(super) fn retain_seen(&mut self, exists: impl Fn(&Identity) -> bool) {
        self.seen.retain(|identity, _| exists(identity));
    }

    /// Notes the schemas that were requested at this time.
    pub(super) fn set_schema(&mut self, served_api: &ServedApi, requested: Instant) {
        self.schema = Some((served_api.clone(), requested));
    }

    /// The records to write for these objects, which are all of the watched scope. `is_in_scope`
    /// is false for objects that may exist and are not watched.
    pub(super) fn changes(
        &mut self,
        objects: &[Checked],
        is_in_scope: impl Fn(&RuleExtensions) -> bool,
    ) -> Vec<Change> {
        self.undecided.clear();
        let Some(records) = self.records.take() else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        let mut existing = BTreeSet::new();
        for object in objects {
            existing.insert(object.uid.as_str());
            let stored = records.get(&object.uid);
            let record = stored.map(|stored| &stored.record);
            let next = self.next(record, object);
            let is_stored = stored.is_none_or(|stored| stored.revision > 0);
            if next.as_ref() != record || !is_stored {
                changes.push(Change {
                    uid: object.uid.clone(),
                    record: next,
                    revision: stored.map(|stored| stored.revision).filter(|it| *it > 0),
                });
            }
        }
        let deleted = records.values().filter(|stored| {
            !existing.contains(stored.record.uid.as_str()) && is_in_scope(&stored.record)
        });
        changes.extend(deleted.map(|stored| Change {
            uid: stored.record.uid.clone(),
            record: None,
            revision: Some(stored.revision),
        }));
        self.records = Some(records);
        changes
    }

    /// The next record of an object. That of a rejected object stays as it is.
    fn next(
        &mut self,
        record: Option<&RuleExtensions>,
        object: &Checked,
    ) -> Option<RuleExtensions> {
        if object.rejection.is_some() {
            return record.cloned();
        }
        let schema = self.schema_for(&object.identity);
        let (next, is_undecided) = next_record(record, object, schema);
        if is_undecided {
            let identity = object.identity.clone();
            self.undecided.insert(object.uid.clone(), identity);
        }
        next
    }

    /// The fields that an object has lost, and the restrictions to keep if they are among them.
    /// While it is undecided, they count as lost.
    pub(super) fn lost(&self, object: &Checked) -> Option<Lost> {
        let record = &self.records.as_ref()?.get(&object.uid)?.record;
        let lost: Vec<_> = record
            .fields
            .iter()
            .filter(|field| !object.extensions.has(field) && !object.extensions.annotates(field))
            .cloned()
            .collect();
        let has_lost = |name: &str| lost.iter().any(|field| field == name);
        let clusters = has_lost(CLUSTERS).then(|| record.clusters.clone());
        let cluster_selector = has_lost(CLUSTER_SELECTOR).then(|| record.cluster_selector.clone());
        (!lost.is_empty()).then_some(Lost {
            fields: lost,
            clusters,
            cluster_selector,
        })
    }
}

/// The next record of an object, and whether it needs a newer schema.
fn next_record(
    record: Option<&RuleExtensions>,
    object: &Checked,
    schema: Schema<'_>,
) -> (Option<RuleExtensions>, bool) {
    let ObjectExtensions { fields, .. } = &object.extensions;
    let generation = object.generation.unwrap_or_default();
    let has_risen = record.is_some_and(|record| generation > record.generation);
    let gone = record
        .into_iter()
        .flat_map(|record| &record.fields)
        .map(String::as_str)
        .filter(|field| !object.extensions.has(field) && !object.extensions.annotates(field));
    // Without a new generation no user has removed a field.
    let lost: BTreeSet<&str> = gone
        .filter(|field| !has_risen || schema.lacks(field) != Some(false))
        .collect();
    let is_undecided = has_risen && lost.iter().any(|field| schema.lacks(field).is_none());
    let all: BTreeSet<&str> = lost.iter().copied().chain(fields.iter().copied()).collect();
    if all.is_empty() {
        return (None, false);
    }
    let clusters = match record {
        Some(record) if lost.contains(CLUSTERS) => record.clusters.clone(),
        _ => bounded(&object.extensions.clusters),
    };
    let cluster_selector = match record {
        Some(record) if lost.contains(CLUSTER_SELECTOR) => record.cluster_selector.clone(),
        _ => object.extensions.cluster_selector.clone(),
    };
    let next = RuleExtensions {
        uid: object.uid.clone(),
        kind: object.identity.kind.clone(),
        namespace: object.identity.namespace.clone(),
        name: object.identity.name.clone(),
        generation: match record {
            Some(record) if is_undecided => record.generation,
            _ => generation,
        },
        fields: all.into_iter().map(str::to_owned).collect(),
        clusters,
        cluster_selector,
    };
    (Some(next), is_undecided)
}

/// The first clusters that fit into a record. Fewer clusters are a stricter restriction.
fn bounded(clusters: &[String]) -> Vec<String> {
    let mut left = MAX_CLUSTERS_BYTES;
    let fits = |name: &&String| {
        let is_small = name.len() < left;
        left = left.saturating_sub(name.len() + 1);
        is_small
    };
    clusters.iter().take_while(fits).cloned().collect()
}

#[cfg(test)]
mod tests;
