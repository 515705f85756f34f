//! Requests that write to the API server, each with a time limit.

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

use crate::status::event_series::EventWrite;

/// The field manager in `managedFields`.
const FIELD_MANAGER: &str = "tidings";
/// The time limit for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The object was deleted, or recreated under the same name.
    #[error("the object no longer exists")]
    NotFound,
    /// The API server did not answer in time.
    #[error(
        "no response from the API server within {} s",
        REQUEST_TIMEOUT.as_secs()
    )]
    Timeout,
    /// The API server rejected the write or is unreachable.
    #[error(transparent)]
    Api(Error),
}

/// Applies the fields of a status that Tidings owns. Fields of other writers stay as they are.
///
/// # Guarantees
/// An object that was recreated under the same name, with another uid, is not changed. Safe to
/// repeat.
///
/// # Errors
/// The write failed or is not confirmed.
pub(super) async fn status(
    client: &Client,
    served: &ServedKind,
    identity: &Identity,
    uid: &str,
    status: &Value,
) -> Result<(), WriteError> {
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
    with_timeout(api.patch_status(&identity.name, &parameters, &Patch::Apply(body))).await?;
    failpoint::reach("router:written");
    Ok(())
}

/// Creates an Event or updates its count.
///
/// # Guarantees
/// Safe to repeat: an Event that exists already counts as written.
///
/// # Errors
/// The write failed or is not confirmed; `NotFound` if the Event to update, or its namespace, is
/// deleted.
pub(super) async fn event(client: &Client, write: &EventWrite) -> Result<(), WriteError> {
    match write {
        EventWrite::Create(event) => {
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            let parameters = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            failpoint::reach("router:reporting");
            match with_timeout(api.create(&parameters, event)).await {
                Err(WriteError::Api(Error::Api(status))) if status.is_already_exists() => {
                    return Ok(());
                }
                created => created?,
            };
            failpoint::reach("router:reported");
        }
        EventWrite::Count(namespace, name, series) => {
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            let parameters = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            failpoint::reach("router:counting");
            with_timeout(api.patch(name, &parameters, &Patch::Merge(json!({"series": series}))))
                .await?;
            failpoint::reach("router:counted");
        }
    }
    Ok(())
}

async fn with_timeout<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, WriteError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(Error::Api(status))) if no_longer_exists(&status) => Err(WriteError::NotFound),
        Ok(Err(error)) => Err(WriteError::Api(error)),
        Err(_) => Err(WriteError::Timeout),
    }
}

/// Whether the object is missing, has another uid, or is in a namespace that is being deleted.
fn no_longer_exists(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_not_found()
        || status.is_conflict()
        || causes.any(|cause| cause.reason == "NamespaceTerminating")
}
