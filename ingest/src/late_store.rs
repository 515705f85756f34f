//! The store of an endpoint that starts before the bus can be used.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tidings_core::Event;

use crate::bus_store::BusStore;
use crate::store::{EventStore, StoreAck, StoreError, StoreErrorReason};

/// `Retry-After` while events cannot be stored.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A store that may be unusable, and then refuses events at once. Clones share their state.
#[derive(Clone)]
pub struct LateStore(Arc<RwLock<State>>);

#[derive(Clone)]
struct State {
    store: Option<BusStore>,
    /// Why events cannot be stored.
    problem: Option<String>,
}

impl Default for LateStore {
    /// A store that refuses events until [`LateStore::connect`].
    fn default() -> Self {
        let problem = "NATS or the stream EVENTS is not available yet; /readyz says why";
        Self(Arc::new(RwLock::new(State {
            store: None,
            problem: Some(problem.to_owned()),
        })))
    }
}

impl LateStore {
    /// Stores events from now on.
    pub fn connect(&self, store: BusStore) {
        *self.0.write() = State {
            store: Some(store),
            problem: None,
        };
    }

    /// Refuses events with this problem, or no longer.
    pub fn set_problem(&self, problem: Option<String>) {
        self.0.write().problem = problem;
    }
}

fn unavailable(problem: Option<String>) -> StoreError {
    StoreError {
        reason: StoreErrorReason::Unavailable,
        retry_after: RETRY_AFTER,
        detail: problem.unwrap_or_default(),
    }
}

impl EventStore for LateStore {
    async fn store(&self, event: Event) -> Result<StoreAck, StoreError> {
        let state = self.0.read().clone();
        match (state.store, state.problem) {
            (Some(store), None) => store.store(event).await,
            (_, problem) => Err(unavailable(problem)),
        }
    }

    fn problem(&self) -> Option<StoreError> {
        let problem = self.0.read().problem.clone()?;
        Some(unavailable(Some(problem)))
    }
}
