//! Divides the memory for all patterns among namespaces. Pure.
//!
//! A pattern that several namespaces use counts for each with an equal part. While all fit, nobody
//! is refused. Otherwise each namespace gets what it needs up to a share, which is the same for
//! all: those that need less leave the rest to the others. So a namespace that needs little is
//! never refused because of one that needs much. Within a namespace, Alerts are served in their
//! order until the share is used up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::pattern::Pattern;

/// What one Alert needs.
#[derive(Debug)]
pub(super) struct Demand {
    /// Identifies the Alert for the caller.
    pub owner: usize,
    pub namespace: String,
    /// Each pattern once, with its size.
    pub patterns: Vec<(Arc<Pattern>, usize)>,
    /// The field of each pattern.
    pub fields: Vec<String>,
}

/// The demands that are refused.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The positions of refused demands; for each, the position of the pattern that does not fit.
    pub at: BTreeMap<usize, usize>,
    /// The share of each namespace that needs more.
    pub share: usize,
}

type Id = *const Pattern;

/// Decides which demands are refused. They are served by namespace, in the order given.
pub(super) fn refusals(demands: &[Demand], total: usize) -> Refusals {
    let parts = parts(demands);
    let all: usize = parts.values().map(|part| part.bytes).sum();
    if all <= total {
        return Refusals::default();
    }
    let mut needs: BTreeMap<&str, usize> = BTreeMap::new();
    for part in parts.values() {
        for namespace in &part.namespaces {
            *needs.entry(namespace).or_default() += part.of_each();
        }
    }
    let mut order: Vec<_> = needs.iter().map(|(name, need)| (*need, *name)).collect();
    order.sort_unstable();
    let share = share(order.iter().map(|(need, _)| *need), total);
    let mut refusals = Refusals {
        share,
        ..Refusals::default()
    };
    let mut stored = Stored {
        ids: HashSet::new(),
        left: total,
    };
    for (_, namespace) in order {
        let own = demands.iter().enumerate();
        let own = own.filter(|(_, demand)| demand.namespace == namespace);
        serve(own, &parts, &mut stored, &mut refusals);
    }
    refusals
}

/// A pattern and the namespaces that use it.
struct Part<'a> {
    bytes: usize,
    namespaces: BTreeSet<&'a str>,
}

impl Part<'_> {
    fn of_each(&self) -> usize {
        self.bytes.div_ceil(self.namespaces.len().max(1))
    }
}

fn parts(demands: &[Demand]) -> HashMap<Id, Part<'_>> {
    let mut parts: HashMap<Id, Part<'_>> = HashMap::new();
    for demand in demands {
        for (pattern, bytes) in &demand.patterns {
            let part = parts.entry(Arc::as_ptr(pattern)).or_insert_with(|| Part {
                bytes: *bytes,
                namespaces: BTreeSet::new(),
            });
            part.namespaces.insert(&demand.namespace);
        }
    }
    parts
}

/// The most that each may get, so that all together get no more than `total`. `needs` ascend.
fn share(needs: impl ExactSizeIterator<Item = usize>, total: usize) -> usize {
    let (mut left, count) = (total, needs.len());
    for (number, need) in needs.enumerate() {
        let share = left / (count - number);
        if need > share {
            return share;
        }
        left -= need;
    }
    total
}

/// The patterns that are stored, and the memory that is left.
struct Stored {
    ids: HashSet<Id>,
    left: usize,
}

/// Serves the demands of one namespace. After the first one that does not fit, the others get only
/// what the namespace has already.
fn serve<'a>(
    demands: impl Iterator<Item = (usize, &'a Demand)>,
    parts: &HashMap<Id, Part<'_>>,
    stored: &mut Stored,
    refusals: &mut Refusals,
) {
    let mut own: HashSet<Id> = HashSet::new();
    let mut share_left = refusals.share;
    for (position, demand) in demands {
        let (mut needed, mut new_bytes, mut over) = (0, 0, None);
        for (number, (pattern, bytes)) in demand.patterns.iter().enumerate() {
            let id = Arc::as_ptr(pattern);
            if own.contains(&id) {
                continue;
            }
            needed += parts.get(&id).map_or(*bytes, Part::of_each);
            if !stored.ids.contains(&id) {
                new_bytes += bytes;
            }
            if needed > share_left || new_bytes > stored.left {
                over = Some(number);
                break;
            }
        }
        if let Some(number) = over {
            refusals.at.insert(position, number);
            share_left = 0;
            continue;
        }
        share_left -= needed;
        stored.left -= new_bytes;
        let ids = demand
            .patterns
            .iter()
            .map(|(pattern, _)| Arc::as_ptr(pattern));
        own.extend(ids.clone());
        stored.ids.extend(ids);
    }
}
