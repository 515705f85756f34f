//! What a caller may see and act on. Users of the Kubernetes API may be limited to namespaces.
//!
//! # Invariants
//! - What is stored names namespaces: an event that of its object, a delivery those of its Alert,
//!   its Provider and its event's object. It is visible if all of them are.
//! - An event of another cluster, or of an object without a namespace, is visible only to callers
//!   who see all namespaces: this cluster's API cannot say who may see it. The same holds for the
//!   rules of a member, whose namespaces are qualified.

use std::collections::BTreeSet;

use tidings_core::model::excerpt::carried_event;
use tidings_core::wire::Outcome;
use tidings_core::{AlertReference, Delivery, Event, ProviderReference};

use super::Console;
use super::access::{Caller, Refusal, Role};
use super::permissions::Verb;
use super::problem::Problem;

/// What a caller sees.
#[derive(Clone, Debug)]
pub enum Visible {
    /// Everything.
    All,
    /// What is in these namespaces of this cluster.
    Of {
        namespaces: BTreeSet<String>,
        cluster: String,
    },
}

/// That a caller may act on something.
pub struct Permit(());

impl Console {
    /// What a caller sees of something that names these namespaces.
    ///
    /// # Errors
    /// The Kubernetes API cannot be asked.
    pub async fn visible(
        &self,
        caller: &Caller,
        namespaces: impl IntoIterator<Item = String>,
    ) -> Result<Visible, Problem> {
        if !caller.is_limited {
            return Ok(Visible::All);
        }
        let namespaces = namespaces.into_iter().collect();
        Ok(Visible::Of {
            namespaces: self.among(caller, Verb::Get, namespaces).await?,
            cluster: self.parts.settings.cluster.clone(),
        })
    }

    /// The namespaces of those given that a caller may act on.
    ///
    /// # Errors
    /// The Kubernetes API cannot be asked.
    pub async fn operable(
        &self,
        caller: &Caller,
        namespaces: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Problem> {
        if caller.role == Role::Operate {
            return Ok(namespaces);
        }
        let visible = match caller.is_limited {
            true => self.among(caller, Verb::Get, namespaces).await?,
            false => namespaces,
        };
        self.among(caller, Verb::Update, visible).await
    }

    /// Permits an action on what names these namespaces.
    ///
    /// # Errors
    /// The caller may not do it, or the Kubernetes API cannot be asked.
    pub async fn permit(
        &self,
        caller: &Caller,
        namespaces: BTreeSet<String>,
    ) -> Result<Permit, Problem> {
        let is_named = !namespaces.is_empty() || caller.role == Role::Operate;
        let operable = self.operable(caller, namespaces.clone()).await?;
        match is_named && operable == namespaces {
            true => Ok(Permit(())),
            false => Err(Problem::Refused(Refusal::NotInNamespace)),
        }
    }

    /// The namespace of an event's object, if this cluster's API can say who may see it. `None` for
    /// an event of another cluster, about which it is not asked.
    pub fn namespace_to_ask(&self, event: &Event) -> Option<String> {
        let is_own = event.cluster == self.parts.settings.cluster;
        is_own.then(|| namespace_of_event(event))
    }

    /// The namespaces of a delivery that decide who may see it.
    pub fn namespaces_to_ask(&self, delivery: &Delivery) -> impl Iterator<Item = String> {
        let event = carried_event(delivery).and_then(|event| self.namespace_to_ask(event));
        namespaces_of_rules(delivery).into_iter().chain(event)
    }

    /// The namespaces of all rules.
    pub fn namespaces_of_rules(&self) -> BTreeSet<String> {
        let rules = self.parts.rules.current();
        let entries = rules.entries().iter();
        entries
            .map(|entry| entry.identity.namespace.to_string())
            .collect()
    }

    async fn among(
        &self,
        caller: &Caller,
        verb: Verb,
        namespaces: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, Problem> {
        let (Some(kubernetes), Some(user)) = (&self.access.kubernetes, &caller.user) else {
            return Ok(BTreeSet::new());
        };
        Ok(kubernetes.permissions.among(user, verb, namespaces).await?)
    }
}

impl Visible {
    /// Whether everything is visible.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether what is in a namespace is visible.
    pub fn namespace(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of { namespaces, .. } => namespaces.contains(name),
        }
    }

    /// Whether what `NAMESPACE/NAME` names is visible.
    pub fn name(&self, name: &str) -> bool {
        self.namespace(namespace_of(name))
    }

    /// Whether what comes from a cluster is visible.
    pub fn cluster(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of { cluster, .. } => cluster == name,
        }
    }

    /// Whether an event is visible.
    pub fn event(&self, event: &Event) -> bool {
        self.cluster(&event.cluster) && self.namespace(&namespace_of_event(event))
    }

    /// Whether a delivery is visible.
    pub fn delivery(&self, delivery: &Delivery) -> bool {
        if self.is_all() {
            return true;
        }
        let event = carried_event(delivery);
        event.is_some_and(|event| self.event(event)) && self.rules_of(delivery)
    }

    /// Whether Alert and Provider of a delivery are visible. Its event must be, too.
    pub fn rules_of(&self, delivery: &Delivery) -> bool {
        let mut names = namespaces_of_rules(delivery).into_iter();
        names.all(|name| self.namespace(&name))
    }
}

/// The namespace in `NAMESPACE/NAME`.
pub fn namespace_of(name: &str) -> &str {
    name.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// The namespace of an event's object.
fn namespace_of_event(event: &Event) -> String {
    let object = event.involved_object.as_ref();
    object.map_or_else(String::new, |object| object.namespace.clone())
}

/// The namespaces of the Alert and the Provider of a delivery.
pub fn namespaces_of_rules(delivery: &Delivery) -> [String; 2] {
    namespaces(delivery.alert.as_ref(), delivery.provider.as_ref())
}

/// The namespaces that an outcome names.
pub fn namespaces_of_outcome(outcome: &Outcome) -> [String; 2] {
    namespaces(outcome.alert.as_ref(), outcome.provider.as_ref())
}

fn namespaces(alert: Option<&AlertReference>, provider: Option<&ProviderReference>) -> [String; 2] {
    [
        alert.map_or_else(String::new, |alert| alert.namespace.clone()),
        provider.map_or_else(String::new, |provider| provider.namespace.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use tidings_core::ObjectReference;

    use super::*;

    fn event(cluster: &str, namespace: &str) -> Event {
        Event {
            cluster: cluster.to_owned(),
            involved_object: Some(ObjectReference {
                namespace: namespace.to_owned(),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }

    fn delivery(alert: &str, provider: &str, event: Option<Event>) -> Delivery {
        Delivery {
            alert: Some(AlertReference {
                namespace: alert.to_owned(),
                ..AlertReference::default()
            }),
            provider: Some(ProviderReference {
                namespace: provider.to_owned(),
                ..ProviderReference::default()
            }),
            event,
            ..Delivery::default()
        }
    }

    #[test]
    fn what_is_stored_is_visible_if_all_namespaces_that_it_names_are() {
        let visible = Visible::Of {
            namespaces: ["a".to_owned(), "b".to_owned()].into(),
            cluster: "here".to_owned(),
        };
        for (cluster, namespace, is_visible) in [
            ("here", "a", true),
            ("here", "c", false),
            ("here", "", false),
            ("there", "a", false),
            ("", "a", false),
        ] {
            let event = event(cluster, namespace);
            assert_eq!(visible.event(&event), is_visible, "{cluster} {namespace}");
            assert!(Visible::All.event(&event));
        }
        let own = || Some(event("here", "a"));
        for (alert, provider, event, is_visible) in [
            ("a", "b", own(), true),
            ("c", "b", own(), false),
            ("a", "c", own(), false),
            ("", "a", own(), false),
            ("a", "b", Some(event("here", "c")), false),
            ("a", "b", Some(event("there", "a")), false),
            ("a", "b", None, false),
        ] {
            let delivery = delivery(alert, provider, event);
            assert_eq!(visible.delivery(&delivery), is_visible, "{delivery:?}");
            assert!(Visible::All.delivery(&delivery));
        }
        assert!(visible.name("a/x") && !visible.name("c/a") && !visible.name("a"));
    }
}
