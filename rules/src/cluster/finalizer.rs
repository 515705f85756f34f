//! Lets go of Alerts and Providers whose deletion waits for notification-controller, which may be
//! gone for good.

use std::collections::HashSet;
use tidings_core::runtime::codes::log as codes;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Client, Error};
use serde_json::json;
use tidings_core::runtime::failpoint;
use tokio::time::timeout;

use super::watch::{self, ANSWER_WITHIN};
use crate::cluster::discovery::{Capabilities, Served};
use crate::object::Identity;

/// What notification-controller puts on Providers, and once put on Alerts. It guards nothing but a
/// cache of its own.
const FINALIZER: &str = "finalizers.fluxcd.io";

/// An object whose deletion waits for that controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    identity: Identity,
    uid: String,
    /// Where its finalizer is among the object's.
    place: usize,
}

/// What is being released, one request at a time.
pub(super) struct Releases {
    /// Whether anything is released at all.
    are_wanted: bool,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Those that could not be released, and of which that has been said.
    failed: HashSet<Waiting>,
}

/// What came of a request.
pub(super) type Ended = (Waiting, Result<(), Error>);

// === impl Waiting ===

impl Waiting {
    /// Of an object that is being deleted, and waits for these.
    pub(super) fn new(identity: Identity, uid: String, finalizers: &[String]) -> Option<Self> {
        let place = finalizers
            .iter()
            .position(|finalizer| finalizer == FINALIZER)?;
        Some(Self {
            identity,
            uid,
            place,
        })
    }

    /// Takes this one finalizer away, if the object and the finalizer are still the ones that were
    /// seen. Somebody else may have been first: then there is nothing to do.
    ///
    /// # Errors
    /// The API server does not answer, or does not allow it.
    async fn release(&self, client: &Client, served: &Served) -> Result<(), Error> {
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
                tracing::info!(code = codes::FINALIZER_REMOVED, object = %self.identity, finalizer = FINALIZER, "finalizer removed");
                Ok(())
            }
            // Gone, changed meanwhile, or no longer the object with this finalizer in this place.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn operations(&self) -> serde_json::Value {
        let place = format!("/metadata/finalizers/{}", self.place);
        json!([
            {"op": "test", "path": "/metadata/uid", "value": self.uid},
            {"op": "test", "path": place, "value": FINALIZER},
            {"op": "remove", "path": place},
        ])
    }
}

// === impl Releases ===

impl Releases {
    /// None yet.
    pub(super) fn new(are_wanted: bool) -> Self {
        Self {
            are_wanted,
            running: FuturesUnordered::new(),
            failed: HashSet::new(),
        }
    }

    /// Whether the next one may begin.
    pub(super) fn is_free(&self) -> bool {
        self.are_wanted && self.running.is_empty()
    }

    /// Begins to release an object.
    pub(super) fn begin(&mut self, waiting: Waiting, client: &Client, capabilities: &Capabilities) {
        let (client, served) = (
            client.clone(),
            capabilities.of(&waiting.identity.kind).clone(),
        );
        let release = async move {
            let late = |_| Err(Error::Service("it has not been answered in time".into()));
            let released = timeout(ANSWER_WITHIN, waiting.release(&client, &served))
                .await
                .unwrap_or_else(late);
            (waiting, released)
        };
        self.running.push(release.boxed());
    }

    /// The next one that has ended; nothing where none has begun. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Ended> {
        self.running.next().await
    }

    /// Takes note of how one has ended, and says once of each that it failed.
    pub(super) fn take(&mut self, (waiting, released): Ended) {
        let Err(error) = released else {
            self.failed.remove(&waiting);
            return;
        };
        let (object, error) = (waiting.identity.to_string(), watch::sentence(&error));
        if self.failed.insert(waiting) {
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

    fn waiting(finalizers: [&str; 2]) -> Option<Waiting> {
        let identity = Identity {
            kind: "Alert".into(),
            namespace: "apps".into(),
            name: "a".into(),
        };
        Waiting::new(identity, "u".into(), &finalizers.map(str::to_owned))
    }

    #[test]
    fn only_the_finalizer_of_notification_controller_is_taken_away() {
        assert_eq!(waiting(["example.org/a", "example.org/b"]), None);
        let operations = waiting(["example.org/a", FINALIZER]).unwrap().operations();
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
    async fn a_release_that_nobody_answers_makes_room_for_the_next_one() {
        // Connections are taken by the kernel, and nobody reads from them.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::try_from(Config::new(
            format!("http://{}", silent.local_addr().unwrap())
                .parse()
                .unwrap(),
        ))
        .unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", "Alert"));
        let served = Served {
            resource,
            has_status: true,
        };
        let capabilities = Capabilities {
            alerts: served.clone(),
            providers: served,
        };
        let mut releases = Releases::new(true);
        releases.begin(
            waiting([FINALIZER, "example.org/b"]).unwrap(),
            &client,
            &capabilities,
        );
        assert!(!releases.is_free());
        let ended = timeout(ANSWER_WITHIN * 2, releases.next())
            .await
            .expect("it ends")
            .expect("it had begun");
        assert!(ended.1.is_err());
        releases.take(ended);
        assert!(releases.is_free());
        assert!(
            !Releases::new(false).is_free(),
            "where none are wanted none begin"
        );
    }
}
