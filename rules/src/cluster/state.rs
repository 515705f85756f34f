//! All that is known of a cluster's rules, without any way to ask for more.

use std::collections::{BTreeMap, HashMap, HashSet};

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;

use super::catalog::Catalog;
use super::listing::Listing;
use super::watch::Source;
use crate::check::{Checked, Options, check_one};
use crate::cluster::discovery::Served;
use crate::cluster::finalizer::Waiting;
use crate::cluster::object::Reading;
use crate::cluster::references::{Named, names};
use crate::kind::Kinds;
use crate::last_good::LastGood;
use crate::object::{Identity, Object};
use crate::problem::{Problem, Severity};
use crate::snapshot::Rules;

/// All that is known of a cluster's rules.
pub(super) struct State {
    kinds: Kinds,
    options: Options,
    listings: BTreeMap<Source, Listing>,
    /// What lists of Secrets and ConfigMaps that are under way have held so far, of those that are
    /// named.
    listed: HashMap<Source, HashSet<Identity>>,
    pub(super) named: Named,
    good: LastGood,
    good_data: LastGood,
    /// What its deletion waits for notification-controller.
    leaving: HashMap<Identity, Leaving>,
}

/// An object whose deletion waits.
struct Leaving {
    waiting: Waiting,
    source: Source,
    /// Whether it was tried to release it.
    tried: bool,
    /// Whether it was told of since the latest list began.
    fresh: bool,
}

impl State {
    /// Nothing is known yet.
    pub(super) fn new(kinds: Kinds, options: Options) -> Self {
        Self {
            kinds,
            options,
            listings: BTreeMap::new(),
            listed: HashMap::new(),
            named: Named::default(),
            good: LastGood::default(),
            good_data: LastGood::default(),
            leaving: HashMap::new(),
        }
    }

    /// What these watches tell makes the rules.
    pub(super) fn expect(&mut self, sources: &[Source]) {
        for source in sources {
            self.listings.entry(source.clone()).or_default();
        }
    }

    /// Takes what a watch of Alerts or Providers has told. Whether the rules have changed.
    pub(super) fn rule(
        &mut self,
        source: Source,
        event: Event<DynamicObject>,
        served: &Served,
        catalog: &Catalog,
    ) -> bool {
        let listing = self.listings.entry(source.clone()).or_default();
        match event {
            Event::Init => {
                listing.begin();
                self.leaving
                    .values_mut()
                    .filter(|leaving| leaving.source == source)
                    .for_each(|leaving| leaving.fresh = false);
                false
            }
            Event::InitDone => {
                let (changed, gone) = listing.finish();
                gone.iter().for_each(|identity| catalog.remove(identity));
                self.leaving
                    .retain(|_, leaving| leaving.fresh || leaving.source != source);
                catalog.listed();
                changed
            }
            Event::Delete(object) => {
                let identity = Reading::new(object, served).object.identity();
                self.leaving.remove(&identity);
                catalog.remove(&identity);
                listing.remove(&identity)
            }
            Event::Apply(object) | Event::InitApply(object) => {
                let Reading {
                    object,
                    digest,
                    seen,
                    leaving,
                } = Reading::new(object, served);
                let identity = object.identity();
                // What is being deleted counts as deleted.
                if let Some(finalizers) = leaving {
                    catalog.remove(&identity);
                    let changed = listing.remove(&identity);
                    match Waiting::new(identity.clone(), seen.uid, &finalizers) {
                        Some(waiting) => {
                            let leaving = Leaving {
                                waiting,
                                source,
                                tried: false,
                                fresh: true,
                            };
                            drop(self.leaving.insert(identity, leaving));
                        }
                        // It waits for others only.
                        None => drop(self.leaving.remove(&identity)),
                    }
                    return changed;
                }
                self.leaving.remove(&identity);
                catalog.put(identity, seen);
                listing.put(&object, digest, |object| {
                    check_one(object, self.kinds, &self.options)
                })
            }
        }
    }

    /// Takes what a watch of Secrets or ConfigMaps has told. Whether something must be read.
    pub(super) fn hint(&mut self, source: &Source, event: Event<(Identity, String)>) -> bool {
        match event {
            Event::Init => {
                self.listed.insert(source.clone(), HashSet::new());
                false
            }
            Event::InitApply((identity, version)) => {
                let stale = self.named.hint(&identity, Some(&version));
                if self.named.is_named(&identity) {
                    self.listed
                        .entry(source.clone())
                        .or_default()
                        .insert(identity);
                }
                stale
            }
            Event::InitDone => {
                let listed = self.listed.remove(source).unwrap_or_default();
                self.named
                    .listed(source.kind, source.namespace.as_deref(), &listed)
            }
            Event::Apply((identity, version)) => self.named.hint(&identity, Some(&version)),
            Event::Delete((identity, _)) => self.named.hint(&identity, None),
        }
    }

    /// Checks a Secret or a ConfigMap that was read.
    pub(super) fn check(&self, object: &Object) -> Checked {
        check_one(object, self.kinds, &self.options)
    }

    /// Finds out which Secrets and ConfigMaps are named by what is there, and by what stays in
    /// force for it.
    pub(super) fn refer(&mut self) {
        let checked = self.rules_checked();
        self.named.want(
            checked
                .iter()
                .filter_map(|checked| checked.resource.as_ref())
                .flat_map(names)
                .collect(),
        );
    }

    /// Whether all has been listed and read once.
    pub(super) fn is_complete(&self) -> bool {
        self.listings.values().all(Listing::is_complete) && self.named.is_complete()
    }

    /// The rules as they are now.
    pub(super) fn rules(&mut self) -> Rules {
        let mut checked = self.rules_checked();
        let mut data: Vec<_> = self.named.checked().cloned().collect();
        self.good_data.stand_in(&mut data);
        checked.extend(data);
        checked.sort_by(|left, right| left.identity.cmp(&right.identity));
        let unreadable: BTreeMap<_, _> = self
            .named
            .troubles()
            .map(|(identity, why)| (identity.clone(), why.to_owned()))
            .collect();
        Rules::new(
            checked,
            unreadable.iter().map(problem).collect(),
            &self.options,
        )
        .with_unreadable(unreadable)
    }

    /// One that must be released for its deletion to go on, each once.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        let leaving = self.leaving.values_mut().find(|leaving| !leaving.tried)?;
        leaving.tried = true;
        Some(leaving.waiting.clone())
    }

    /// Those that wait are to be released again.
    pub(super) fn release_again(&mut self) {
        self.leaving
            .values_mut()
            .for_each(|leaving| leaving.tried = false);
    }

    /// Alerts and Providers, with the last good states of those that are refused.
    fn rules_checked(&mut self) -> Vec<Checked> {
        let mut checked: Vec<_> = self
            .listings
            .values()
            .flat_map(Listing::checked)
            .cloned()
            .collect();
        self.good.stand_in(&mut checked);
        checked
    }
}

fn problem((identity, why): (&Identity, &String)) -> Problem {
    Problem {
        file: None,
        line: None,
        object: Some(identity.to_string()),
        field: None,
        sentence: format!("can't be read: {why}"),
        severity: Severity::Warning,
    }
}

#[cfg(test)]
mod tests;
