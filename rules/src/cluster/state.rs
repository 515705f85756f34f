//! The state of the rules of a cluster. It makes no requests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;

use super::catalog::Catalog;
use super::kept::{Change, Kept};
use super::listing::Listing;
use super::watch::WatchedKind;
use crate::check::{Checked, Resource, check_one};
use crate::cluster::discovery::ServedKind;
use crate::cluster::finalizer::BlockedDeletion;
use crate::cluster::object::ReceivedObject;
use crate::cluster::references::{References, references_of};
use crate::cluster_selector::ClusterSelector;
use crate::extensions::{CLUSTER_SELECTOR, CLUSTERS, Extension, PREFIX};
use crate::kind::Kinds;
use crate::last_good::LastGood;
use crate::object::{Identity, Object};
use crate::options::Options;
use crate::pattern_memory::Automata;
use crate::problem::{Problem, Severity};
use crate::snapshot::{LostExtensions, Rules};
use tidings_core::model::glob::Globs;

/// The state of the rules of a cluster. It makes no requests.
pub(super) struct ClusterState {
    kinds: Kinds,
    options: Options,
    listings: BTreeMap<WatchedKind, Listing>,
    /// The referenced objects in unfinished lists of Secrets and ConfigMaps.
    listed: HashMap<WatchedKind, HashSet<Identity>>,
    pub(super) references: References,
    last_good: LastGood,
    last_good_data: LastGood,
    /// The compiled patterns of the Alerts in effect.
    automata: Automata,
    /// The extensions that objects had.
    pub(super) kept: Kept,
    /// Deleted objects with the finalizer of notification-controller.
    deleting: HashMap<Identity, DeletingObject>,
}

/// A deleted object that still exists.
struct DeletingObject {
    blocked: BlockedDeletion,
    watch: WatchedKind,
    /// Whether its finalizer removal was started.
    is_started: bool,
    /// Whether it was observed since the last list started.
    is_listed: bool,
}

impl ClusterState {
    /// Starts without objects.
    pub(super) fn new(kinds: Kinds, options: Options) -> Self {
        Self {
            kinds,
            options,
            listings: BTreeMap::new(),
            listed: HashMap::new(),
            references: References::default(),
            last_good: LastGood::default(),
            last_good_data: LastGood::default(),
            automata: Automata::default(),
            kept: Kept::default(),
            deleting: HashMap::new(),
        }
    }

    /// Adds watches of Alerts and Providers.
    pub(super) fn add_watches(&mut self, watches: &[WatchedKind]) {
        for watch in watches {
            self.listings.entry(watch.clone()).or_default();
        }
    }

    /// Forgets the objects of other watches: the CRD of an optional kind was removed. Returns
    /// whether there were any.
    pub(super) fn retain_watches(&mut self, watches: &[WatchedKind]) -> bool {
        let before = self.listings.len();
        self.listings.retain(|watch, _| watches.contains(watch));
        self.listings.len() < before
    }

    /// Handles a watch that is denied. Without the permission to read grants, there are none.
    /// Returns whether the rules have changed.
    pub(super) fn handle_denied(&mut self, watch: &WatchedKind) -> bool {
        let listing = self.listings.get_mut(watch);
        listing.is_some_and(|listing| {
            listing.begin();
            listing.finish().0
        })
    }

    /// Handles an event of a watch of Alerts or Providers. Returns whether the rules have changed.
    pub(super) fn handle_rule_event(
        &mut self,
        watch: WatchedKind,
        event: Event<DynamicObject>,
        served: &ServedKind,
        catalog: &Catalog,
    ) -> bool {
        let listing = self.listings.entry(watch.clone()).or_default();
        match event {
            Event::Init => {
                listing.begin();
                self.deleting
                    .values_mut()
                    .filter(|deleting| deleting.watch == watch)
                    .for_each(|deleting| deleting.is_listed = false);
                false
            }
            Event::InitDone => {
                let (changed, removed) = listing.finish();
                removed.iter().for_each(|identity| catalog.remove(identity));
                self.deleting
                    .retain(|_, deleting| deleting.is_listed || deleting.watch != watch);
                catalog.listed();
                changed
            }
            Event::Delete(object) => {
                let identity = ReceivedObject::new(object, served).object.identity();
                self.deleting.remove(&identity);
                catalog.remove(&identity);
                listing.remove(&identity)
            }
            Event::Apply(object) | Event::InitApply(object) => {
                let ReceivedObject {
                    object,
                    digest,
                    observed,
                    pending_finalizers,
                } = ReceivedObject::new(object, served);
                let identity = object.identity();
                // An object that is being deleted counts as deleted.
                if let Some(finalizers) = pending_finalizers {
                    catalog.remove(&identity);
                    let changed = listing.remove(&identity);
                    match BlockedDeletion::new(identity.clone(), observed.uid, &finalizers) {
                        Some(blocked) => {
                            let deleting = DeletingObject {
                                blocked,
                                watch,
                                is_started: false,
                                is_listed: true,
                            };
                            drop(self.deleting.insert(identity, deleting));
                        }
                        // Only other finalizers are left.
                        None => drop(self.deleting.remove(&identity)),
                    }
                    return changed;
                }
                self.deleting.remove(&identity);
                catalog.put(identity.clone(), observed);
                let kept = &mut self.kept;
                listing.put(&object, digest, |object| {
                    kept.saw(identity);
                    check_one(object, self.kinds, &self.options)
                })
            }
        }
    }

    /// Handles an event of a watch of Secrets or ConfigMaps. Returns whether an object must be
    /// read.
    pub(super) fn handle_metadata_event(
        &mut self,
        watch: &WatchedKind,
        event: Event<(Identity, String)>,
    ) -> bool {
        match event {
            Event::Init => {
                self.listed.insert(watch.clone(), HashSet::new());
                false
            }
            Event::InitApply((identity, version)) => {
                let stale = self.references.observe(&identity, Some(&version));
                if self.references.contains(&identity) {
                    self.listed
                        .entry(watch.clone())
                        .or_default()
                        .insert(identity);
                }
                stale
            }
            Event::InitDone => {
                let listed = self.listed.remove(watch).unwrap_or_default();
                self.references
                    .listed(watch.kind, watch.namespace.as_deref(), &listed)
            }
            Event::Apply((identity, version)) => self.references.observe(&identity, Some(&version)),
            Event::Delete((identity, _)) => self.references.observe(&identity, None),
        }
    }

    /// Checks a Secret or a ConfigMap.
    pub(super) fn check(&self, object: &Object) -> Checked {
        check_one(object, self.kinds, &self.options)
    }

    /// Updates the set of referenced Secrets and ConfigMaps, including the references of last good
    /// states.
    pub(super) fn update_references(&mut self) {
        let checked = self.rules_checked();
        self.references.replace(
            checked
                .iter()
                .filter_map(|checked| checked.resource.as_ref())
                .flat_map(references_of)
                .map(|(_, identity)| identity)
                .collect(),
        );
    }

    /// Whether all lists and reads have completed once.
    pub(super) fn is_complete(&self) -> bool {
        self.listings.values().all(Listing::is_complete) && self.references.is_complete()
    }

    /// Creates a snapshot of the current rules.
    pub(super) fn rules(&mut self) -> Rules {
        let mut checked = self.rules_checked();
        let mut data: Vec<_> = self.references.checked().cloned().collect();
        self.last_good_data.restore(&mut data, &self.options);
        checked.extend(data);
        checked.sort_by(|left, right| left.identity.cmp(&right.identity));
        let unreadable: BTreeMap<_, _> = self
            .references
            .errors()
            .map(|(identity, why)| (identity.clone(), why.to_owned()))
            .collect();
        let problems = checked
            .iter()
            .flat_map(|checked| read_problems(checked, &unreadable))
            .collect();
        let decided = checked.iter().filter(|it| !self.kept.is_undecided(it));
        let lost = decided.filter_map(|checked| self.lost(checked)).collect();
        Rules::new(checked, problems, &self.options)
            .with_automata(self.automata.clone())
            .with_unreadable(unreadable)
            .with_lost(lost)
    }

    /// The changes of the records of extensions. They must be written before the rules take effect.
    pub(super) fn extension_changes(&mut self, covers: impl Fn(&str) -> bool) -> Vec<Change> {
        let objects: Vec<_> = self
            .listings
            .values()
            .flat_map(Listing::checked)
            .cloned()
            .collect();
        let listings = &self.listings;
        self.kept
            .retain_seen(|identity| listings.values().any(|it| it.contains(identity)));
        let existing: HashSet<_> = objects.iter().map(|it| it.identity.clone()).collect();
        self.kept.changes(&objects, |record| {
            let identity = Identity {
                kind: record.kind.clone(),
                namespace: record.namespace.clone(),
                name: record.name.clone(),
            };
            covers(&record.namespace) || existing.contains(&identity)
        })
    }

    fn lost(&self, checked: &Checked) -> Option<LostExtensions> {
        let lost = self.kept.lost(checked)?;
        Some(LostExtensions {
            identity: checked.identity.clone(),
            uid: checked.uid.clone(),
            fields: lost.fields,
            clusters: lost.clusters,
            cluster_selector: lost.cluster_selector,
        })
    }

    /// Reports the lost extensions of an object, and restores the restrictions of an Alert. While
    /// it is undecided whether a user removed the fields, nothing is reported.
    fn restore_extensions(&self, checked: &mut Checked) {
        let Some(lost) = self.lost(checked) else {
            return;
        };
        if !self.kept.is_undecided(checked) {
            let problems = lost.fields.iter().map(|field| lost_problem(&lost, field));
            checked.problems.extend(problems);
        }
        if lost.restrictions().is_empty() {
            return;
        }
        if let Some(Resource::Alert(alert)) = &checked.resource {
            let mut alert = alert.as_ref().clone();
            if let Some(clusters) = &lost.clusters {
                alert.clusters = Some(Globs::new(clusters));
            }
            if let Some(selector) = &lost.cluster_selector {
                match ClusterSelector::read(selector) {
                    Some(selector) => alert.cluster_selector = Some(selector),
                    // Another version wrote it. The Alert must not select every cluster.
                    None => alert.clusters = Some(Globs::new(&[])),
                }
            }
            checked.resource = Some(Resource::Alert(Arc::new(alert)));
        }
    }

    /// The next deleted object whose finalizer must be removed; each is returned once.
    pub(super) fn next_blocked_deletion(&mut self) -> Option<BlockedDeletion> {
        let deleting = self
            .deleting
            .values_mut()
            .find(|deleting| !deleting.is_started)?;
        deleting.is_started = true;
        Some(deleting.blocked.clone())
    }

    /// Returns all blocked deletions once more.
    pub(super) fn retry_finalizers(&mut self) {
        self.deleting
            .values_mut()
            .for_each(|deleting| deleting.is_started = false);
    }

    /// The Alerts and Providers, with the last good states of rejected ones.
    fn rules_checked(&mut self) -> Vec<Checked> {
        let mut checked: Vec<_> = self
            .listings
            .values()
            .flat_map(Listing::checked)
            .cloned()
            .collect();
        for checked in &mut checked {
            self.restore_extensions(checked);
        }
        // The former ones are dropped afterwards, so that equal patterns are not compiled again.
        self.automata = self.last_good.restore(&mut checked, &self.options);
        checked
    }
}

fn lost_problem(lost: &LostExtensions, field: &str) -> Problem {
    let row = Extension::of(&lost.identity.kind).find(|row| row.field == field);
    let annotation = row.map_or_else(|| PREFIX.to_owned(), Extension::annotation);
    let identity = &lost.identity;
    let restriction = match field {
        CLUSTERS => lost.clusters.as_ref().map(|clusters| clusters.join(", ")),
        CLUSTER_SELECTOR => lost.cluster_selector.clone(),
        _ => None,
    };
    let effect = match restriction {
        Some(restriction) => {
            format!("the last known restriction stays in effect: {restriction}")
        }
        None => "it has no effect".to_owned(),
    };
    Problem {
        file: None,
        line: None,
        object: Some(identity.to_string()),
        field: Some(format!("spec.{field}")),
        message: format!(
            "was dropped by the API server; {effect}. Set the annotation {annotation}, or run \
             `tidings rules forget {} {}/{}` if the field is not needed",
            identity.kind.to_lowercase(),
            identity.namespace,
            identity.name
        ),
        severity: Severity::Warning,
    }
}

/// The failed reads of the references of an object.
fn read_problems(checked: &Checked, unreadable: &BTreeMap<Identity, String>) -> Vec<Problem> {
    let references = checked.resource.iter().flat_map(references_of);
    references
        .filter_map(|(field, reference)| {
            let reason = unreadable.get(&reference)?;
            Some(Problem {
                file: None,
                line: None,
                object: Some(checked.identity.to_string()),
                field: Some(field.to_owned()),
                message: format!("{reference} cannot be read: {reason}"),
                severity: Severity::Warning,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
