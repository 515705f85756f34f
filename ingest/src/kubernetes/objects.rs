//! Looks up labels of involved objects, with one metadata watch for each kind.

mod cache;
mod kind_watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use tidings_core::model::{flux, object_name};
use tidings_core::runtime::kubernetes::kind::ObjectKind;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::LabelLookup;
use tidings_core::{ObjectLabels, ObjectReference, object_labels};

use cache::ObjectMetadata;
use kind_watch::KindWatch;

/// The time limit for a lookup: the sender of the event waits for it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks up objects of the configured kinds. The watch of a kind starts with its first event.
pub struct Objects {
    client: Client,
    kinds: Vec<ObjectKind>,
    watched: Mutex<HashMap<(String, String), Arc<KindWatch>>>,
    metrics: Metrics,
}

/// The result of looking up an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectLookup {
    /// The object exists.
    Found(Arc<ObjectMetadata>),
    /// The object does not exist.
    NotFound,
    /// The API server cannot be reached.
    Unknown,
}

impl Objects {
    /// Prepares lookups of these kinds. Nothing is watched yet.
    pub fn new(client: Client, kinds: Vec<ObjectKind>, metrics: Metrics) -> Self {
        Self {
            client,
            kinds,
            watched: Mutex::default(),
            metrics,
        }
    }

    /// Looks up an object. Returns `None` if its kind is not configured. Takes microseconds while
    /// the kind's watch works, and never more than two seconds.
    pub async fn find(&self, object: &ObjectReference) -> Option<ObjectLookup> {
        let kind = self.kind(object)?;
        // The event may come from anyone, and its names become a path of the API.
        let lookup = match object_name::can_exist(object) {
            true => {
                let lookup = kind.find(&object.namespace, &object.name);
                let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
                lookup.unwrap_or(ObjectLookup::Unknown)
            }
            false => ObjectLookup::NotFound,
        };
        self.metrics
            .ingest_label_lookups_total
            .get_or_create(&lookup.outcome())
            .inc();
        Some(lookup)
    }

    fn kind(&self, object: &ObjectReference) -> Option<Arc<KindWatch>> {
        let group = flux::api_group(&object.api_version);
        let configured = self
            .kinds
            .iter()
            .find(|kind| kind.kind == object.kind && kind.group == group)?;
        let mut watched = self.watched.lock();
        let key = (configured.group.clone(), configured.kind.clone());
        let watch = || {
            let version = object
                .api_version
                .rsplit('/')
                .next()
                .filter(|version| object_name::is_label(version))
                .map(str::to_owned);
            let versioned = ObjectKind {
                version: configured.version.clone().or(version),
                ..configured.clone()
            };
            KindWatch::start(self.client.clone(), versioned)
        };
        Some(watched.entry(key).or_insert_with(watch).clone())
    }
}

impl ObjectLookup {
    /// The labels to store in the event.
    pub fn labels(&self) -> ObjectLabels {
        let (state, labels) = match self {
            Self::Found(metadata) => (object_labels::State::Known, metadata.labels.clone()),
            Self::NotFound => (object_labels::State::Absent, BTreeMap::new()),
            Self::Unknown => (object_labels::State::Unknown, BTreeMap::new()),
        };
        ObjectLabels {
            state: state.into(),
            labels,
        }
    }

    /// The object's annotations that are added to events.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        match self {
            Self::Found(metadata) => metadata.annotations.clone(),
            Self::NotFound | Self::Unknown => BTreeMap::new(),
        }
    }

    fn outcome(&self) -> LabelLookup {
        match self {
            Self::Found(_) => LabelLookup::Found,
            Self::NotFound => LabelLookup::NotFound,
            Self::Unknown => LabelLookup::Unknown,
        }
    }
}
