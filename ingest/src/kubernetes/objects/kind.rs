//! The objects of one kind: a metadata watch, and single reads where it does not have an object.

use std::sync::Arc;
use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use futures::StreamExt;
use kube::api::{ApiResource, PartialObjectMeta};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tidings_core::runtime::kubernetes::kind::ObjectKind;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Found;
use super::memory::{Memory, Meta};

/// The first events of a kind wait so long for its watch.
const SYNCED_WITHIN: Duration = Duration::from_secs(1);
/// How long a single read may take.
const READ_WITHIN: Duration = Duration::from_millis(900);
/// Before objects of a kind that could not be read are asked for again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Before the next look for a kind that the API server does not have.
const MISSING_FOR: Duration = Duration::from_secs(60);

/// A kind that is watched.
pub(super) struct Kind {
    shared: Arc<Shared>,
    started: Instant,
    synced: watch::Receiver<bool>,
    _watch: AbortOnDropHandle<()>,
}

struct Shared {
    client: Client,
    wanted: ObjectKind,
    resource: OnceCell<(ApiResource, Scope)>,
    memory: Mutex<Memory>,
    refused_until: Mutex<Option<Instant>>,
}

impl Kind {
    /// Begins to watch.
    pub(super) fn watch(client: Client, wanted: ObjectKind) -> Arc<Self> {
        let (tell, synced) = watch::channel(false);
        let shared = Arc::new(Shared {
            client,
            wanted,
            resource: OnceCell::new(),
            memory: Mutex::default(),
            refused_until: Mutex::default(),
        });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move { shared.follow(&tell).await }
        });
        Arc::new(Self {
            shared,
            started: Instant::now(),
            synced,
            _watch: AbortOnDropHandle::new(task),
        })
    }

    /// What is known of an object. What the watch does not have is read, since a new object's first
    /// event may be quicker than the watch.
    pub(super) async fn find(&self, namespace: &str, name: &str) -> Found {
        // Only in the first second: a watch that can't begin holds up nobody for longer.
        let _ = timeout_at(
            self.started + SYNCED_WITHIN,
            self.synced.clone().wait_for(|is_synced| *is_synced),
        )
        .await;
        if let Some(meta) = self.shared.memory.lock().get(namespace, name) {
            return Found::Known(meta);
        }
        self.shared.read(namespace, name).await
    }
}

impl Shared {
    async fn follow(&self, synced: &watch::Sender<bool>) {
        let resource = loop {
            match self.resource().await {
                Ok((resource, _)) => break resource,
                Err(error) => {
                    tracing::warn!(code = codes::LABELS_UNREADABLE, kind = %self.wanted, %error, "cannot read labels");
                    sleep(MISSING_FOR).await;
                }
            }
        };
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), resource);
        let mut changes =
            std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut is_refused = false;
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    is_refused = false;
                    if self.memory.lock().apply(change) {
                        synced.send_replace(true);
                    }
                }
                Err(error) if is_refused => {
                    tracing::debug!(code = codes::LABELS_UNREADABLE, kind = %self.wanted, %error, "cannot read labels")
                }
                Err(error) => {
                    is_refused = true;
                    tracing::warn!(code = codes::LABELS_UNREADABLE, kind = %self.wanted, %error, "cannot read labels, retrying");
                }
            }
        }
    }

    async fn read(&self, namespace: &str, name: &str) -> Found {
        if self
            .refused_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
        {
            return Found::Unknown;
        }
        let trouble = match timeout(READ_WITHIN, self.get(namespace, name)).await {
            Ok(Ok(Some(meta))) => return Found::Known(Arc::new(meta)),
            Ok(Ok(None)) => return Found::Absent,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server does not answer".to_owned(),
        };
        tracing::debug!(code = codes::OBJECT_UNREADABLE, kind = %self.wanted, namespace, name, %trouble, "cannot read object");
        *self.refused_until.lock() = Some(Instant::now() + REFUSED_FOR);
        Found::Unknown
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Meta>, kube::Error> {
        let (resource, scope) = self.resource().await?;
        let api: Api<DynamicObject> = match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
        };
        Ok(api
            .get_metadata_opt(name)
            .await?
            .map(|object| Meta::of(object.metadata)))
    }

    /// How the API server calls the kind, in the version that is wanted or else the one that it
    /// prefers.
    async fn resource(&self) -> Result<&(ApiResource, Scope), kube::Error> {
        self.resource
            .get_or_try_init(|| async {
                let ObjectKind {
                    group,
                    version,
                    kind,
                } = &self.wanted;
                if let Some(version) = version
                    && let Ok((resource, capabilities)) = discovery::pinned_kind(
                        &self.client,
                        &GroupVersionKind::gvk(group, version, kind),
                    )
                    .await
                {
                    return Ok((resource, capabilities.scope));
                }
                let group = discovery::group(&self.client, group).await?;
                let (resource, capabilities) = group.recommended_kind(kind).ok_or_else(|| {
                    kube::Error::Discovery(kube::error::DiscoveryError::MissingKind(
                        self.wanted.to_string(),
                    ))
                })?;
                Ok((resource, capabilities.scope))
            })
            .await
    }
}
