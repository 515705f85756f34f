//! Removes the finalizer of notification-controller from deleted Alerts and Providers, because that
//! controller may no longer run.

use std::collections::HashSet;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Client, Error};
use serde_json::json;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::failpoint;
use tokio::time::timeout;

use super::watch::{self, REQUEST_TIMEOUT};
use crate::cluster::discovery::{ServedApi, ServedKind};
use crate::object::Identity;

/// The finalizer that notification-controller sets on Providers, and formerly on Alerts. It only
/// protects an internal cache.
const FINALIZER: &str = "finalizers.fluxcd.io";

/// A deleted object with the finalizer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockedDeletion {
    identity: Identity,
    uid: String,
    /// The index of the finalizer in `metadata.finalizers`.
    index: usize,
}

/// Removes finalizers with one request at a time.
pub(super) struct FinalizerRemovals {
    /// Whether finalizers are removed at all.
    is_enabled: bool,
    running: FuturesUnordered<BoxFuture<'static, RemovalResult>>,
    /// Objects whose failure was logged.
    failed: HashSet<BlockedDeletion>,
}

/// The result of a request.
pub(super) type RemovalResult = (BlockedDeletion, Result<(), Error>);

// === impl BlockedDeletion ===

impl BlockedDeletion {
    /// Creates a blocked deletion if one of the finalizers is that of notification-controller.
    pub(super) fn new(identity: Identity, uid: String, finalizers: &[String]) -> Option<Self> {
        let index = finalizers
            .iter()
            .position(|finalizer| finalizer == FINALIZER)?;
        Some(Self {
            identity,
            uid,
            index,
        })
    }

    /// Removes the finalizer, if object and finalizer are unchanged. If they changed, another
    /// client has handled the object.
    ///
    /// # Errors
    /// The API server did not respond, or denied the request.
    async fn remove_finalizer(&self, client: &Client, served: &ServedKind) -> Result<(), Error> {
        let api = Api::<DynamicObject>::namespaced_with(
            client.clone(),
            &self.identity.namespace,
            &served.resource,
        );
        let operations = serde_json::from_value(self.operations()).map_err(Error::SerdeError)?;
        failpoint::reach("router:releasing");
        match api
            .patch(
                &self.identity.name,
                &PatchParams::default(),
                &Patch::Json::<()>(operations),
            )
            .await
        {
            Ok(_) => {
                failpoint::reach("router:released");
                tracing::info!(
                    code = codes::FINALIZER_REMOVED,
                    object = %self.identity,
                    finalizer = FINALIZER,
                    "finalizer removed"
                );
                Ok(())
            }
            // The object or its finalizer is gone or has changed.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn operations(&self) -> serde_json::Value {
        let index = format!("/metadata/finalizers/{}", self.index);
        json!([
            {"op": "test", "path": "/metadata/uid", "value": self.uid},
            {"op": "test", "path": index, "value": FINALIZER},
            {"op": "remove", "path": index},
        ])
    }
}

// === impl FinalizerRemovals ===

impl FinalizerRemovals {
    /// Starts without requests.
    pub(super) fn new(is_enabled: bool) -> Self {
        Self {
            is_enabled,
            running: FuturesUnordered::new(),
            failed: HashSet::new(),
        }
    }

    /// Whether the next request may start.
    pub(super) fn is_idle(&self) -> bool {
        self.is_enabled && self.running.is_empty()
    }

    /// Starts to remove the finalizer of an object.
    pub(super) fn start(
        &mut self,
        blocked: BlockedDeletion,
        client: &Client,
        served_api: &ServedApi,
    ) {
        let (client, served) = (
            client.clone(),
            served_api.of(&blocked.identity.kind).clone(),
        );
        let removal = async move {
            let late = |_| Err(Error::Service("the request timed out".into()));
            let result = timeout(REQUEST_TIMEOUT, blocked.remove_finalizer(&client, &served))
                .await
                .unwrap_or_else(late);
            (blocked, result)
        };
        self.running.push(removal.boxed());
    }

    /// The next result; `None` if no request was started. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<RemovalResult> {
        self.running.next().await
    }

    /// Handles a result. Logs the first failure of each object.
    pub(super) fn finish(&mut self, (blocked, result): RemovalResult) {
        let Err(error) = result else {
            self.failed.remove(&blocked);
            return;
        };
        let (object, error) = (blocked.identity.to_string(), watch::with_causes(&error));
        if self.failed.insert(blocked) {
            tracing::warn!(
                code = codes::FINALIZER_NOT_REMOVED,
                object,
                error,
                "finalizer not removed, retrying"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use kube::Config;
    use kube::core::{ApiResource, GroupVersionKind};

    use super::*;
    use crate::object::GROUP;

    fn blocked(finalizers: [&str; 2]) -> Option<BlockedDeletion> {
        let identity = Identity {
            kind: "Alert".into(),
            namespace: "apps".into(),
            name: "a".into(),
        };
        BlockedDeletion::new(identity, "u".into(), &finalizers.map(str::to_owned))
    }

    #[test]
    fn only_the_finalizer_of_notification_controller_is_removed() {
        assert_eq!(blocked(["example.org/a", "example.org/b"]), None);
        let operations = blocked(["example.org/a", FINALIZER]).unwrap().operations();
        assert_eq!(
            operations[1],
            json!({"op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER})
        );
        assert_eq!(
            operations[2],
            json!({"op": "remove", "path": "/metadata/finalizers/1"})
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_times_out_lets_the_next_one_start() {
        // The kernel accepts connections, but nothing reads from them.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::try_from(Config::new(
            format!("http://{}", silent.local_addr().unwrap())
                .parse()
                .unwrap(),
        ))
        .unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", "Alert"));
        let served = ServedKind {
            resource,
            has_status: true,
            lacks: None,
        };
        let served_api = ServedApi {
            alerts: served.clone(),
            providers: served,
            grants: None,
        };
        let mut removals = FinalizerRemovals::new(true);
        removals.start(
            blocked([FINALIZER, "example.org/b"]).unwrap(),
            &client,
            &served_api,
        );
        assert!(!removals.is_idle());
        let ended = timeout(REQUEST_TIMEOUT * 2, removals.next())
            .await
            .expect("the request ends")
            .expect("a request was started");
        assert!(ended.1.is_err());
        removals.finish(ended);
        assert!(removals.is_idle());
        assert!(
            !FinalizerRemovals::new(false).is_idle(),
            "disabled removals never start"
        );
    }
}
