//! What is kept of the objects of a kind. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use tidings_core::model::flux;

/// What is kept of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations for events: `event.toolkit.fluxcd.io/…`.
    pub annotations: BTreeMap<String, String>,
}

/// The objects of a kind, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Memory {
    objects: HashMap<String, Arc<Meta>>,
    /// A list that is under way.
    listed: HashMap<String, Arc<Meta>>,
}

impl Meta {
    pub(super) fn of(metadata: ObjectMeta) -> Self {
        let is_ours = |key: &String| {
            key.strip_prefix(flux::EVENT_GROUP)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let annotations = metadata
            .annotations
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| is_ours(key));
        Self {
            labels: metadata.labels.unwrap_or_default(),
            annotations: annotations.collect(),
        }
    }
}

impl Memory {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Meta>> {
        self.objects.get(&key(namespace, name)).cloned()
    }

    /// Follows a watch; says whether the objects are complete now.
    pub(super) fn apply(&mut self, change: Event<PartialObjectMeta<DynamicObject>>) -> bool {
        match change {
            Event::Init => self.listed = HashMap::new(),
            Event::InitApply(object) => {
                let (key, meta) = entry(object.metadata);
                self.listed.insert(key, meta);
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listed);
                return true;
            }
            Event::Apply(object) => {
                let (key, meta) = entry(object.metadata);
                self.objects.insert(key, meta);
            }
            Event::Delete(object) => {
                self.objects.remove(&entry(object.metadata).0);
            }
        }
        false
    }
}

fn entry(metadata: ObjectMeta) -> (String, Arc<Meta>) {
    let key = key(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    (key, Arc::new(Meta::of(metadata)))
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, label: &str) -> PartialObjectMeta<DynamicObject> {
        let metadata = json!({
            "namespace": "apps", "name": name, "labels": {"a": label},
            "annotations": {"event.toolkit.fluxcd.io/x": "y", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        });
        serde_json::from_value(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}))
            .unwrap()
    }

    fn label(memory: &Memory, name: &str) -> Option<String> {
        memory
            .get("apps", name)
            .map(|meta| meta.labels["a"].clone())
    }

    #[test]
    fn a_watch_is_followed() {
        let mut memory = Memory::default();
        assert!(!memory.apply(Event::Init));
        assert!(!memory.apply(Event::InitApply(object("one", "1"))));
        assert_eq!(
            label(&memory, "one"),
            None,
            "a list that is not complete counts for nothing"
        );
        assert!(memory.apply(Event::InitDone));
        memory.apply(Event::Apply(object("two", "2")));
        assert_eq!(
            (label(&memory, "one"), label(&memory, "two")),
            (Some("1".to_owned()), Some("2".to_owned()))
        );
        memory.apply(Event::Delete(object("one", "1")));
        assert_eq!(label(&memory, "one"), None);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone() {
        let mut memory = Memory::default();
        for change in [
            Event::Init,
            Event::InitApply(object("one", "1")),
            Event::InitDone,
            Event::Init,
        ] {
            memory.apply(change);
        }
        assert_eq!(
            label(&memory, "one"),
            Some("1".to_owned()),
            "the old state holds until the new one is complete"
        );
        memory.apply(Event::InitDone);
        assert_eq!(label(&memory, "one"), None);
    }

    #[test]
    fn little_is_kept_of_an_object() {
        let meta = Meta::of(object("one", "1").metadata);
        assert_eq!(
            meta.annotations.into_iter().collect::<Vec<_>>(),
            [("event.toolkit.fluxcd.io/x".to_owned(), "y".to_owned())]
        );
    }
}
