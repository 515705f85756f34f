//! Merges the rules of several sources. Pure.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use tidings_core::model::origin;

use super::{ByName, LostExtensions, ProviderEntry, RuleEntry, Rules};
use crate::alert::Alert;
use crate::grant::ProviderGrant;
use crate::index::Index;
use crate::object::Identity;
use crate::problem::Problem;
use crate::provider::Provider;
use crate::source::RulesOrigin;

impl Rules {
    /// The rules of a source as they are merged with others: their namespaces are qualified, so
    /// that references stay within the source. Rules of the hub stay as they are; an object whose
    /// namespace has a colon is rejected in any case.
    pub fn of_origin(self: &Arc<Self>, origin: &RulesOrigin) -> Arc<Self> {
        let Some(name) = origin.qualifier() else {
            return self.clone();
        };
        let member = origin.member();
        Arc::new(Self {
            parts: vec![self.clone()],
            ..Qualifier { name, member }.rules(self)
        })
    }

    /// Merges rules whose namespaces are qualified. `unread` are members whose rules are missing.
    pub fn merge(parts: &[Arc<Self>], unread: BTreeSet<Arc<str>>) -> Self {
        let options = parts.first().map(|part| part.options.clone());
        let mut merged = Self {
            unread,
            options: options.unwrap_or_default(),
            parts: parts.to_vec(),
            ..Self::default()
        };
        for part in parts {
            merged.alerts.extend(part.alerts.iter().cloned());
            merged.providers.extend(&part.providers, unresolved);
            merged.secrets.extend(&part.secrets, Arc::clone);
            merged.config_maps.extend(&part.config_maps, Arc::clone);
            merged.grants.extend(part.grants.clone());
            merged.rejected.extend(part.rejected.iter().cloned());
            merged.unreadable.extend(part.unreadable.clone());
            merged.entries.extend(part.entries.iter().cloned());
            merged.problems.extend(part.problems.iter().cloned());
            merged.lost.extend(part.lost.iter().cloned());
        }
        merged.sort_problems();
        merged.sort_alerts();
        merged.index = Index::new(&merged.alerts);
        merged
    }
}

/// The Provider, to be resolved in another snapshot.
fn unresolved(entry: &ProviderEntry) -> ProviderEntry {
    ProviderEntry {
        provider: entry.provider.clone(),
        resolved: OnceLock::new(),
    }
}

/// Qualifies the namespaces of one source.
struct Qualifier<'a> {
    name: &'a str,
    member: Option<&'a Arc<str>>,
}

impl Qualifier<'_> {
    fn rules(&self, rules: &Rules) -> Rules {
        let grants = rules.grants.iter().map(|(namespace, grants)| {
            let grants = grants.iter().map(|grant| Arc::new(self.grant(grant)));
            (self.namespace(namespace), grants.collect())
        });
        let provider = |entry: &ProviderEntry| ProviderEntry {
            provider: Arc::new(self.provider(&entry.provider)),
            resolved: OnceLock::new(),
        };
        let reason =
            |(identity, reason): (&Identity, &String)| (self.identity(identity), reason.clone());
        let rejected = rules.rejected.iter();
        let rejected = rejected.map(|(identity, why)| reason((identity, why)));
        let alerts = rules.alerts.iter();
        Rules {
            alerts: alerts.map(|alert| Arc::new(self.alert(alert))).collect(),
            providers: self.named(&rules.providers, provider),
            secrets: self.named(&rules.secrets, Arc::clone),
            config_maps: self.named(&rules.config_maps, Arc::clone),
            grants: grants.collect(),
            rejected: rejected.collect(),
            unreadable: rules.unreadable.iter().map(reason).collect(),
            entries: rules.entries.iter().map(|it| self.entry(it)).collect(),
            problems: rules.problems.iter().map(|it| self.problem(it)).collect(),
            lost: rules.lost.iter().map(|it| self.lost(it)).collect(),
            options: rules.options.clone(),
            ..Rules::default()
        }
    }

    fn namespace(&self, namespace: &str) -> String {
        origin::qualified(self.name, namespace)
    }

    fn identity(&self, identity: &Identity) -> Identity {
        Identity {
            namespace: self.namespace(&identity.namespace),
            ..identity.clone()
        }
    }

    fn named<T>(&self, map: &ByName<T>, copy: impl Fn(&T) -> T) -> ByName<T> {
        let namespaces = map.0.iter().map(|(namespace, named)| {
            let named = named
                .iter()
                .map(|(name, value)| (name.clone(), copy(value)));
            (self.namespace(namespace), named.collect())
        });
        ByName(namespaces.collect())
    }

    fn alert(&self, alert: &Alert) -> Alert {
        Alert {
            namespace: self.namespace(&alert.namespace),
            provider_namespace: self.namespace(&alert.provider_namespace),
            member: self.member.cloned(),
            ..alert.clone()
        }
    }

    fn provider(&self, provider: &Provider) -> Provider {
        Provider {
            namespace: self.namespace(&provider.namespace),
            ..provider.clone()
        }
    }

    fn grant(&self, grant: &ProviderGrant) -> ProviderGrant {
        ProviderGrant {
            namespace: self.namespace(&grant.namespace),
            from: grant.from.iter().map(|from| self.namespace(from)).collect(),
            providers: grant.providers.clone(),
        }
    }

    fn entry(&self, entry: &RuleEntry) -> RuleEntry {
        RuleEntry {
            identity: self.identity(&entry.identity),
            problems: entry.problems.iter().map(|it| self.problem(it)).collect(),
            ..entry.clone()
        }
    }

    /// An object in a problem is `Kind namespace/name`.
    fn problem(&self, problem: &Problem) -> Problem {
        let object = problem.object.as_deref();
        let object = object.map(|object| match object.split_once(' ') {
            Some((kind, name)) => format!("{kind} {}", self.namespace(name)),
            None => object.to_owned(),
        });
        Problem {
            object,
            ..problem.clone()
        }
    }

    fn lost(&self, lost: &LostExtensions) -> LostExtensions {
        LostExtensions {
            identity: self.identity(&lost.identity),
            ..lost.clone()
        }
    }
}

impl<T> ByName<T> {
    /// Adds copies of the entries of another map, which has other namespaces.
    fn extend(&mut self, other: &Self, copy: impl Fn(&T) -> T) {
        for (namespace, named) in &other.0 {
            let named = named
                .iter()
                .map(|(name, value)| (name.clone(), copy(value)));
            let namespace = self.0.entry(namespace.clone()).or_default();
            namespace.extend(named);
        }
    }
}

#[cfg(test)]
mod tests;
