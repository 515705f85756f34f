//! Lets go of Alerts and Providers whose deletion waits for notification-controller, which may be gone for good.

use kube::api::{Api, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Client, Error};
use serde_json::json;
use tidings_core::failpoint;

use super::served::Served;
use crate::object::Identity;

/// What notification-controller puts on Providers, and once put on Alerts. It guards nothing but a cache of its own.
const FINALIZER: &str = "finalizers.fluxcd.io";

/// An object whose deletion waits for that controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    identity: Identity,
    uid: String,
    /// Where its finalizer is among the object's.
    place: usize,
}

impl Waiting {
    /// Of an object that is being deleted, and waits for these.
    pub(super) fn new(identity: Identity, uid: String, finalizers: &[String]) -> Option<Self> {
        let place = finalizers.iter().position(|finalizer| finalizer == FINALIZER)?;
        Some(Self { identity, uid, place })
    }

    /// Which object it is.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes this one finalizer away, if the object and the finalizer are still the ones that were seen. Somebody else
    /// may have been first: then there is nothing to do.
    ///
    /// # Errors
    /// The API server does not answer, or does not allow it.
    pub(super) async fn release(&self, client: &Client, served: &Served) -> Result<(), Error> {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &self.identity.namespace, &served.resource);
        let operations = serde_json::from_value(self.operations()).map_err(Error::SerdeError)?;
        failpoint::reach("router:releasing");
        match api.patch(&self.identity.name, &PatchParams::default(), &Patch::Json::<()>(operations)).await {
            Ok(_) => {
                failpoint::reach("router:released");
                tracing::info!(object = %self.identity, "removed the finalizer {FINALIZER}, for which its deletion waited");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_finalizer_of_notification_controller_is_taken_away() {
        let identity = Identity { kind: "Alert".into(), namespace: "apps".into(), name: "a".into() };
        let waiting = |finalizers: [&str; 2]| Waiting::new(identity.clone(), "u".into(), &finalizers.map(str::to_owned));
        assert_eq!(waiting(["example.org/a", "example.org/b"]), None);
        let operations = waiting(["example.org/a", FINALIZER]).unwrap().operations();
        assert_eq!(operations[1], json!({"op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER}));
        assert_eq!(operations[2], json!({"op": "remove", "path": "/metadata/finalizers/1"}));
    }
}
