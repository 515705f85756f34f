//! The storage that ingest needs.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tidings_core::Event;

/// Stores events.
pub trait EventStore: Send + Sync + 'static {
    /// Stores an event.
    ///
    /// # Guarantees required
    /// Returns a [`StoreAck`] only once the event, or its earlier copy, cannot be lost. Safe to
    /// cancel: the event may then be stored or not, and storing it again is safe.
    fn store(&self, event: Event) -> impl Future<Output = Result<StoreAck, StoreError>> + Send;
}

/// The confirmation that an event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreAck {
    /// Stored by this call.
    New,
    /// Stored before, according to its dedupe key.
    Duplicate,
}

/// An event is not stored, or the confirmation is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The reason for logs, metrics and the response code.
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
    /// The router is far behind, and events would be evicted unread.
    Retention,
    /// The event exceeds the server's message size, so a retry does not help.
    TooLarge {
        /// The server's `max_payload` in bytes.
        limit: usize,
    },
}

impl StoreErrorReason {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::StorageFull => "storage-full",
            Self::Retention => "retention",
            Self::TooLarge { .. } => "too-large",
        }
    }
}

impl fmt::Display for StoreErrorReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
