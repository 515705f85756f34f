//! The changes that the reader passes on, and the errors that end a read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::core::Status;
use tokio::time::timeout;

use crate::kubernetes::convert;
use crate::kubernetes::repeat_filter::ChangeType;

/// The time limit for the first response to a watch, or for a page of a list.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A change of an Event, or only of the resource version.
#[derive(Clone, Debug)]
pub struct EventChange {
    /// The resource version that is reached.
    pub version: u64,
    /// When the API server stored the Event.
    pub stored_at: Option<Timestamp>,
    /// The Event, unless it was deleted or only the resource version changed.
    pub event: Option<(Box<Event>, ChangeType)>,
}

/// Why a read ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot read Events: {0}")]
    Api(kube::Error),
    #[error(
        "cannot read Events: no response from the API server within {} s",
        REQUEST_TIMEOUT.as_secs()
    )]
    Timeout,
    #[error("cannot read Events: the resource version {0:?} is not a number")]
    InvalidVersion(Option<String>),
    /// The API server no longer has the changes after our version.
    #[error("the watch of Events expired")]
    Expired,
    #[error("the receiver was dropped")]
    ReceiverDropped,
}

/// The error of a watch. Only there does 410 mean that the watch expired.
pub(super) fn watch_error(error: kube::Error) -> ReadError {
    match error {
        kube::Error::Api(status) => status_error(status),
        error => ReadError::Api(error),
    }
}

pub(super) fn status_error(status: Box<Status>) -> ReadError {
    if status.code == 410 {
        ReadError::Expired
    } else {
        ReadError::Api(kube::Error::Api(status))
    }
}

impl EventChange {
    pub(super) fn event(mut event: Event, change: ChangeType) -> Result<Self, ReadError> {
        let version = parse_version(event.metadata.resource_version.as_ref())?;
        let stored_at = convert::stored_at(&event);
        event.metadata.managed_fields = None;
        Ok(Self {
            version,
            stored_at,
            event: Some((Box::new(event), change)),
        })
    }

    pub(super) fn version_only(version: u64) -> Self {
        Self {
            version,
            stored_at: None,
            event: None,
        }
    }
}

pub(super) async fn with_timeout<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, ReadError> {
    timeout(REQUEST_TIMEOUT, request)
        .await
        .map_err(|_| ReadError::Timeout)
}

pub(super) fn parse_version(version: Option<&String>) -> Result<u64, ReadError> {
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| ReadError::InvalidVersion(version.cloned()))
}
