//! Stores the cluster's Events on the bus, while this replica is the leader.

mod handle;
mod state;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::Severity;
use tidings_core::runtime::kubernetes::lease::{Election, Leadership, LeaseError};
use tidings_core::runtime::metrics::Metrics;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bus_store::BusStore;
use crate::kubernetes::cursor::Cursor;
use crate::kubernetes::filter::Filter;
use crate::kubernetes::objects::Objects;
use crate::kubernetes::reader::{EventChange, EventReader};
use crate::kubernetes::recovery::RecoveredKeys;

pub use state::WatchState;

/// How many Events are stored concurrently.
const MAX_IN_FLIGHT: usize = 256;
/// The shortest time between two writes of the cursor.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);

/// Stores the cluster's Events. One replica at a time does this.
pub struct EventWatch {
    /// Elects the replica that watches. Its Lease holds the cursor.
    pub election: Election,
    /// Reads Events.
    pub reader: EventReader,
    /// Selects Events.
    pub filter: Filter,
    /// Maps reasons and types to severities.
    pub severities: Vec<Severity>,
    /// Stores events.
    pub store: BusStore,
    /// The cluster name that every event gets.
    pub cluster: String,
    /// Looks up labels and annotations of involved objects, if enabled.
    pub objects: Option<Arc<Objects>>,
    /// How long the bus detects duplicates.
    pub dedupe_interval: Duration,
    /// Counts Events by outcome.
    pub metrics: Metrics,
    /// The state that this process keeps between its terms as the leader.
    pub state: WatchState,
}

impl EventWatch {
    /// Watches whenever this replica is the leader, until `stop`.
    ///
    /// # Guarantees
    /// The cursor moves past a selected Event only after the Event is stored. If the leader dies,
    /// the next leader therefore reads again the Events that were in flight. While the bus cannot
    /// store events, the cursor does not move.
    pub async fn run(&self, stop: &CancellationToken) {
        self.election
            .lead(stop, |leadership| self.watch(leadership))
            .await;
    }

    async fn watch(&self, leadership: Leadership) {
        self.state.start_term();
        let saved = Cursor::read(&leadership.annotations().await);
        let cursor = saved.or_else(|| *self.state.reached.lock());
        tracing::info!(
            code = codes::EVENT_WATCH_STARTED,
            ?cursor,
            "watching Kubernetes Events"
        );
        let stop = leadership.over();
        if let Some(last_seen) = leadership.former_holder_seen() {
            let (bus, dedupe_interval) = (self.store.bus(), self.dedupe_interval);
            let recovered =
                RecoveredKeys::read(bus, &self.cluster, last_seen, dedupe_interval, stop).await;
            *self.state.recovered.lock() = recovered;
        }
        let (out, changes) = mpsc::channel(MAX_IN_FLIGHT);
        let (reached, cursors) = watch::channel(cursor);
        let reading = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.reader.read(cursor, &out) => {}
            }
        };
        tokio::join!(
            reading,
            self.store_all(changes, reached, stop),
            save_cursor(cursors, &leadership)
        );
        self.reader.stop();
    }

    /// Stores changes concurrently. Advances the cursor in the order of the changes.
    async fn store_all(
        &self,
        mut changes: mpsc::Receiver<EventChange>,
        reached: watch::Sender<Option<Cursor>>,
        stop: &CancellationToken,
    ) {
        let changes = stream::poll_fn(|context| changes.poll_recv(context));
        let mut results = pin!(
            changes
                .map(|change| self.handle(change, stop))
                .buffered(MAX_IN_FLIGHT)
        );
        while let Some((version, stored_at, is_done)) = results.next().await {
            if !is_done {
                return;
            }
            let before = reached.borrow().unwrap_or_default();
            let cursor = Some(before.advance(version, stored_at));
            *self.state.reached.lock() = cursor;
            reached.send_replace(cursor);
        }
        self.state.complete_term();
    }
}

/// Saves the cursor in the Lease, at most once per interval and at the end.
async fn save_cursor(mut cursors: watch::Receiver<Option<Cursor>>, leadership: &Leadership) {
    while cursors.changed().await.is_ok() {
        let annotations = cursors
            .borrow_and_update()
            .map(|cursor| cursor.annotations())
            .unwrap_or_default();
        match leadership.annotate(annotations).await {
            Ok(()) => {}
            Err(LeaseError::Lost) => return,
            Err(error) if leadership.over().is_cancelled() => {
                tracing::warn!(
                    code = codes::EVENT_CURSOR_NOT_SAVED,
                    %error,
                    "last Event cursor not saved; the next leader reads some Events again"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(
                    code = codes::EVENT_CURSOR_NOT_SAVED,
                    %error,
                    "Event cursor not saved, retrying"
                );
                cursors.mark_changed();
            }
        }
        tokio::select! {
            () = leadership.over().cancelled() => {}
            () = tokio::time::sleep(CURSOR_INTERVAL) => {}
        }
    }
}
