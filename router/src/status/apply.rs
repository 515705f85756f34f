//! Writes to the API server: one request each, with a deadline.

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tidings_core::runtime::failpoint;
use tidings_rules::Identity;
use tidings_rules::cluster::ServedKind;
use tokio::time::timeout;

use crate::status::event_series::Write;

/// Who writes, in `managedFields`.
const FIELD_MANAGER: &str = "tidings";
/// How long one request may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWritten {
    /// The object is no more, or another one has its name.
    #[error("it is gone")]
    Gone,
    /// The API server did not answer in time.
    #[error("the API server does not answer")]
    Silent,
    /// The API server refused, or can't be reached.
    #[error(transparent)]
    Refused(Error),
}

/// Applies our part of a status; what others have written there stays.
///
/// # Guarantees
/// An object that was made anew under the same name, with another uid, is left alone. Safe to
/// repeat.
///
/// # Errors
/// It is not known to be written.
pub(super) async fn status(
    client: &Client,
    served: &ServedKind,
    identity: &Identity,
    uid: &str,
    status: &Value,
) -> Result<(), NotWritten> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &identity.namespace, &served.resource);
    let body = json!({
        "apiVersion": served.resource.api_version,
        "kind": served.resource.kind,
        "metadata": {"name": identity.name, "namespace": identity.namespace, "uid": uid},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    failpoint::reach("router:writing");
    answered(api.patch_status(&identity.name, &parameters, &Patch::Apply(body))).await?;
    failpoint::reach("router:written");
    Ok(())
}

/// Writes an Event, or what it counts.
///
/// # Guarantees
/// Safe to repeat: an Event that is there already counts as written.
///
/// # Errors
/// It is not known to be written; `Gone` where the Event to count in, or its namespace, is no more.
pub(super) async fn event(client: &Client, write: &Write) -> Result<(), NotWritten> {
    match write {
        Write::Create(event) => {
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            let parameters = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            failpoint::reach("router:telling");
            match answered(api.create(&parameters, event)).await {
                Err(NotWritten::Refused(Error::Api(status))) if status.is_already_exists() => {
                    return Ok(());
                }
                created => created?,
            };
            failpoint::reach("router:told");
        }
        Write::Count(namespace, name, series) => {
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            let parameters = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            failpoint::reach("router:counting");
            answered(api.patch(name, &parameters, &Patch::Merge(json!({"series": series}))))
                .await?;
            failpoint::reach("router:counted");
        }
    }
    Ok(())
}

async fn answered<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, NotWritten> {
    match timeout(ANSWERED_WITHIN, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) if is_gone(&status) => Err(NotWritten::Gone),
        Ok(Err(error)) => Err(NotWritten::Refused(error)),
        Err(_) => Err(NotWritten::Silent),
    }
}

/// It is not there, the uid is another object's by now, or its namespace is on its way out.
fn is_gone(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_not_found()
        || status.is_conflict()
        || causes.any(|cause| cause.reason == "NamespaceTerminating")
}
