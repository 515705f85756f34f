//! What ingest needs of the bus, and how each request ends.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tidings_core::Event;

/// Where events are stored.
pub trait EventStore: Send + Sync + 'static {
    /// Stores an event.
    ///
    /// # Guarantees asked for
    /// [`Stored::New`] and [`Stored::Duplicate`] are answered only once the event (or its earlier
    /// copy) can't be lost. Safe to cancel: the event is then stored or not, and sending it
    /// again settles that.
    fn store(&self, event: Event) -> impl Future<Output = Result<Stored, NotStored>> + Send;
}

/// An event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// By this call.
    New,
    /// It was already, by its dedupe key.
    Duplicate,
}

/// An event is not stored, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStored {
    /// Why, as a word.
    pub reason: NotStoredReason,
    /// When the sender may come again.
    pub retry_after: Duration,
    /// Why, as a sentence without secrets; the sender gets it.
    pub detail: String,
}

/// Why an event is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStoredReason {
    /// The bus can't be reached, or does not confirm in time.
    Unavailable,
    /// The bus has too little storage left for more than what is under way.
    StorageFull,
    /// The router is so far behind that events would be evicted unread.
    Retention,
    /// The event does not fit into a message of the bus: only a larger limit helps.
    TooLarge {
        /// The server's `max_payload` in bytes.
        limit: usize,
    },
}

impl NotStoredReason {
    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::StorageFull => "storage-full",
            Self::Retention => "retention",
            Self::TooLarge { .. } => "too-large",
        }
    }
}

impl fmt::Display for NotStoredReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
