//! The labels and annotations of a kind's objects, updated by a watch. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::api::{ObjectMeta, PartialObjectMeta};
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use tidings_core::model::flux;

/// The cached metadata of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations that are added to events: `event.toolkit.fluxcd.io/…`.
    pub annotations: BTreeMap<String, String>,
}

/// The objects of a kind, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct ObjectCache {
    objects: HashMap<String, Arc<ObjectMetadata>>,
    /// The objects of a list that is not complete yet.
    listed: HashMap<String, Arc<ObjectMetadata>>,
}

impl ObjectMetadata {
    pub(super) fn new(metadata: ObjectMeta) -> Self {
        let is_for_events = |key: &String| {
            key.strip_prefix(flux::EVENT_GROUP)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let annotations = metadata
            .annotations
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| is_for_events(key));
        Self {
            labels: metadata.labels.unwrap_or_default(),
            annotations: annotations.collect(),
        }
    }
}

impl ObjectCache {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<ObjectMetadata>> {
        self.objects.get(&key(namespace, name)).cloned()
    }

    /// Applies a change of the watch. Returns true if the objects are now complete.
    pub(super) fn apply(&mut self, change: Event<PartialObjectMeta<DynamicObject>>) -> bool {
        match change {
            Event::Init => self.listed = HashMap::new(),
            Event::InitApply(object) => {
                let (key, metadata) = entry(object.metadata);
                self.listed.insert(key, metadata);
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listed);
                return true;
            }
            Event::Apply(object) => {
                let (key, metadata) = entry(object.metadata);
                self.objects.insert(key, metadata);
            }
            Event::Delete(object) => {
                self.objects.remove(&entry(object.metadata).0);
            }
        }
        false
    }
}

fn entry(metadata: ObjectMeta) -> (String, Arc<ObjectMetadata>) {
    let key = key(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    (key, Arc::new(ObjectMetadata::new(metadata)))
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
            "namespace": "apps",
            "name": name,
            "labels": {"a": label},
            "annotations": {
                "event.toolkit.fluxcd.io/x": "y",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            },
        });
        serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata,
        }))
        .unwrap()
    }

    fn label(cache: &ObjectCache, name: &str) -> Option<String> {
        cache
            .get("apps", name)
            .map(|metadata| metadata.labels["a"].clone())
    }

    #[test]
    fn changes_of_the_watch_are_applied() {
        let mut cache = ObjectCache::default();
        assert!(!cache.apply(Event::Init));
        assert!(!cache.apply(Event::InitApply(object("one", "1"))));
        assert_eq!(label(&cache, "one"), None, "an incomplete list is not used");
        assert!(cache.apply(Event::InitDone));
        cache.apply(Event::Apply(object("two", "2")));
        assert_eq!(
            (label(&cache, "one"), label(&cache, "two")),
            (Some("1".to_owned()), Some("2".to_owned()))
        );
        cache.apply(Event::Delete(object("one", "1")));
        assert_eq!(label(&cache, "one"), None);
    }

    #[test]
    fn objects_that_are_not_in_a_new_list_are_removed() {
        let mut cache = ObjectCache::default();
        for change in [
            Event::Init,
            Event::InitApply(object("one", "1")),
            Event::InitDone,
            Event::Init,
        ] {
            cache.apply(change);
        }
        assert_eq!(
            label(&cache, "one"),
            Some("1".to_owned()),
            "the old state is used until the new list is complete"
        );
        cache.apply(Event::InitDone);
        assert_eq!(label(&cache, "one"), None);
    }

    #[test]
    fn only_labels_and_event_annotations_are_cached() {
        let metadata = ObjectMetadata::new(object("one", "1").metadata);
        assert_eq!(
            metadata.annotations.into_iter().collect::<Vec<_>>(),
            [("event.toolkit.fluxcd.io/x".to_owned(), "y".to_owned())]
        );
    }
}
