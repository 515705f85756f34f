//! The objects that events are about: their labels, from one metadata watch for each kind.

mod kind;
mod memory;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tidings_core::model::flux;
use tidings_core::runtime::kubernetes::kind::ObjectKind;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::LabelLookup;
use tidings_core::{ObjectLabels, ObjectReference, object_labels};

use kind::Kind;
use memory::Meta;
use parking_lot::Mutex;

/// How long a look-up may take: its sender waits for the answer.
const FOUND_WITHIN: Duration = Duration::from_secs(2);

/// Objects of the kinds that are asked for. A kind's watch begins with its first event.
pub struct Objects {
    client: Client,
    kinds: Vec<ObjectKind>,
    watched: Mutex<HashMap<(String, String), Arc<Kind>>>,
    metrics: Metrics,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Known(Arc<Meta>),
    /// There is no such object.
    Absent,
    /// Nobody can say.
    Unknown,
}

impl Objects {
    /// Objects of these kinds.
    pub fn new(client: Client, kinds: Vec<ObjectKind>, metrics: Metrics) -> Self {
        Self {
            client,
            kinds,
            watched: Mutex::default(),
            metrics,
        }
    }

    /// What is known of an object; nothing where its kind is not asked for. Takes two seconds at
    /// most, and microseconds where the kind is watched already.
    pub async fn find(&self, object: &ObjectReference) -> Option<Found> {
        let kind = self.kind(object)?;
        let found = tokio::time::timeout(FOUND_WITHIN, kind.find(&object.namespace, &object.name));
        let found = found.await.unwrap_or(Found::Unknown);
        self.metrics
            .ingest_label_lookups_total
            .get_or_create(&found.outcome())
            .inc();
        Some(found)
    }

    fn kind(&self, object: &ObjectReference) -> Option<Arc<Kind>> {
        let group = flux::api_group(&object.api_version);
        let asked = self
            .kinds
            .iter()
            .find(|kind| kind.kind == object.kind && kind.group == group)?;
        let mut watched = self.watched.lock();
        let key = (asked.group.clone(), asked.kind.clone());
        let watch = || {
            let version = object
                .api_version
                .rsplit('/')
                .next()
                .filter(|version| !version.is_empty())
                .map(str::to_owned);
            let wanted = ObjectKind {
                version: asked.version.clone().or(version),
                ..asked.clone()
            };
            Kind::watch(self.client.clone(), wanted)
        };
        Some(watched.entry(key).or_insert_with(watch).clone())
    }
}

impl Found {
    /// For the event.
    pub fn labels(&self) -> ObjectLabels {
        let (state, labels) = match self {
            Self::Known(meta) => (object_labels::State::Known, meta.labels.clone()),
            Self::Absent => (object_labels::State::Absent, BTreeMap::new()),
            Self::Unknown => (object_labels::State::Unknown, BTreeMap::new()),
        };
        ObjectLabels {
            state: state.into(),
            labels,
        }
    }

    /// The user's annotations for events.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        match self {
            Self::Known(meta) => meta.annotations.clone(),
            Self::Absent | Self::Unknown => BTreeMap::new(),
        }
    }

    fn outcome(&self) -> LabelLookup {
        match self {
            Self::Known(_) => LabelLookup::Found,
            Self::Absent => LabelLookup::NotFound,
            Self::Unknown => LabelLookup::Unknown,
        }
    }
}
