//! Looks up objects of one kind: in the cache of a metadata watch, else by reading the object.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, PartialObjectMeta};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::kubernetes::kind::ObjectKind;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::ObjectLookup;
use super::cache::{ObjectCache, ObjectMetadata};

/// How long the first events of a kind wait for its watch.
const SYNC_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit for reading an object.
const READ_TIMEOUT: Duration = Duration::from_millis(900);
/// How long no object is read after a read failed.
const READ_PAUSE: Duration = Duration::from_secs(10);
/// The pause before discovery of a kind is retried.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(60);

/// The characters of a name that have a meaning in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b':');

/// The watch of one kind.
pub(super) struct KindWatch {
    shared: Arc<Shared>,
    started: Instant,
    synced: watch::Receiver<bool>,
    _watch: AbortOnDropHandle<()>,
}

struct Shared {
    client: Client,
    kind: ObjectKind,
    resource: OnceCell<(ApiResource, Scope)>,
    cache: Mutex<ObjectCache>,
    reads_paused_until: Mutex<Option<Instant>>,
}

impl KindWatch {
    /// Starts the watch.
    pub(super) fn start(client: Client, kind: ObjectKind) -> Arc<Self> {
        let (set_synced, synced) = watch::channel(false);
        let shared = Arc::new(Shared {
            client,
            kind,
            resource: OnceCell::new(),
            cache: Mutex::default(),
            reads_paused_until: Mutex::default(),
        });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move { shared.watch(&set_synced).await }
        });
        Arc::new(Self {
            shared,
            started: Instant::now(),
            synced,
            _watch: AbortOnDropHandle::new(task),
        })
    }

    /// Looks up an object. Reads it if it is not in the cache, because the first event of a new
    /// object may arrive before the watch reports the object.
    pub(super) async fn find(&self, namespace: &str, name: &str) -> ObjectLookup {
        // If the watch cannot start, it delays only the events of its first second.
        let _ = timeout_at(
            self.started + SYNC_TIMEOUT,
            self.synced.clone().wait_for(|is_synced| *is_synced),
        )
        .await;
        if let Some(metadata) = self.shared.cache.lock().get(namespace, name) {
            return ObjectLookup::Found(metadata);
        }
        self.shared.read(namespace, name).await
    }
}

impl Shared {
    async fn watch(&self, synced: &watch::Sender<bool>) {
        let resource = loop {
            match self.resource().await {
                Ok((resource, _)) => break resource,
                Err(error) => {
                    tracing::warn!(
                        code = codes::LABELS_UNREADABLE,
                        kind = %self.kind,
                        %error,
                        "cannot discover the kind to read labels, retrying"
                    );
                    sleep(DISCOVERY_PAUSE).await;
                }
            }
        };
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), resource);
        let mut changes =
            std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        let mut has_failed = false;
        while let Some(change) = changes.next().await {
            match change {
                Ok(change) => {
                    has_failed = false;
                    if self.cache.lock().apply(change) {
                        synced.send_replace(true);
                    }
                }
                Err(error) if has_failed => tracing::debug!(
                    code = codes::LABELS_UNREADABLE,
                    kind = %self.kind,
                    %error,
                    "cannot read labels, retrying"
                ),
                Err(error) => {
                    has_failed = true;
                    tracing::warn!(
                        code = codes::LABELS_UNREADABLE,
                        kind = %self.kind,
                        %error,
                        "cannot read labels, retrying"
                    );
                }
            }
        }
    }

    async fn read(&self, namespace: &str, name: &str) -> ObjectLookup {
        if self
            .reads_paused_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
        {
            return ObjectLookup::Unknown;
        }
        let error = match timeout(READ_TIMEOUT, self.get(namespace, name)).await {
            Ok(Ok(Some(metadata))) => return ObjectLookup::Found(Arc::new(metadata)),
            Ok(Ok(None)) => return ObjectLookup::NotFound,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no response from the API server".to_owned(),
        };
        tracing::debug!(
            code = codes::OBJECT_UNREADABLE,
            kind = %self.kind,
            namespace,
            name,
            error,
            "cannot read object"
        );
        *self.reads_paused_until.lock() = Some(Instant::now() + READ_PAUSE);
        ObjectLookup::Unknown
    }

    async fn get(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMetadata>, kube::Error> {
        let (resource, scope) = self.resource().await?;
        let api: Api<DynamicObject> = match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
        };
        Ok(api
            .get_metadata_opt(&utf8_percent_encode(name, SEGMENT).to_string())
            .await?
            .map(|object| ObjectMetadata::new(object.metadata)))
    }

    /// The API resource of the kind, in the configured version or else the preferred one.
    async fn resource(&self) -> Result<&(ApiResource, Scope), kube::Error> {
        self.resource
            .get_or_try_init(|| async {
                let ObjectKind {
                    group,
                    version,
                    kind,
                } = &self.kind;
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
                        self.kind.to_string(),
                    ))
                })?;
                Ok((resource, capabilities.scope))
            })
            .await
    }
}
