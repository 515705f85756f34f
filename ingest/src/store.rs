//! The storage that ingest needs.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tidings_core::Event;
use tidings_core::runtime::codes::http as codes;

/// Stores events.
pub trait EventStore: Send + Sync + 'static {
    /// Stores an event.
    ///
    /// # Requirements for implementations
    /// Return a [`StoreAck`] only after the event, or its earlier copy, is stored durably. The call
    /// can be canceled: the event is then stored or not, and storing it again is safe.
    fn store(&self, event: Event) -> impl Future<Output = Result<StoreAck, StoreError>> + Send;

    /// Why no event can be stored now, if that is known without trying.
    fn problem(&self) -> Option<StoreError> {
        None
    }
}

/// The confirmation that an event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAck {
    /// Stored by this call.
    New,
    /// Stored before, according to its dedupe key.
    Duplicate,
}

/// An event is not stored, or its storage is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The reason, for the response and logs.
    pub reason: StoreErrorReason,
    /// When the sender may retry.
    pub retry_after: Duration,
    /// The explanation that the sender gets. Contains no secrets.
    pub detail: String,
}

/// Why an event is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorReason {
    /// The bus is unreachable or does not confirm in time.
    Unavailable,
    /// The rest of the storage is reserved for deliveries.
    StorageFull,
    /// The server cannot write to its disk.
    StorageFailed,
    /// The router is far behind, and EVENTS would evict events that it has not read.
    Retention,
    /// The cluster sent more than its quota.
    Quota,
    /// The event is larger than the largest message of the server, so a retry does not help.
    TooLarge {
        /// The server's `max_payload` in bytes.
        limit: usize,
    },
}

impl StoreErrorReason {
    /// The code in HTTP answers and logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unavailable => codes::BUS_UNAVAILABLE,
            Self::StorageFull => codes::STORAGE_FULL,
            Self::StorageFailed => codes::STORAGE_FAILED,
            Self::Retention => codes::ROUTER_BEHIND,
            Self::Quota => codes::QUOTA_EXCEEDED,
            Self::TooLarge { .. } => codes::EVENT_TOO_LARGE,
        }
    }
}

impl fmt::Display for StoreErrorReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}
