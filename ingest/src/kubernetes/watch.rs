//! The replica that leads takes the cluster's Events onto the bus.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;

use futures::{StreamExt, stream};
use k8s_openapi::api::events::v1::Event as KubernetesEvent;
use parking_lot::Mutex;
use tidings_core::Event;
use tidings_core::runtime::config::Severity;
use tidings_core::runtime::kubernetes::lease::{Election, Leadership, LeaseError};
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::metrics::labels::KubernetesEventOutcome;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bus_store::BusStore;
use crate::kubernetes::cursor::Cursor;
use crate::kubernetes::filter::Filter;
use crate::kubernetes::objects::Objects;
use crate::kubernetes::recovery::Left;
use crate::kubernetes::repeats::{Came, Repeats};
use crate::kubernetes::report::{report, times};
use crate::kubernetes::source::{Seen, Source};
use crate::normalise::normalise;
use crate::store::{EventStore, NotStoredReason, Stored};

/// So many Events are on their way to the bus at a time.
const MOST_IN_FLIGHT: usize = 256;
/// The cursor is written this often at most.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Takes the cluster's Events, in one of several replicas.
pub struct EventWatch {
    /// Decides which replica watches; its Lease carries the cursor.
    pub election: Election,
    /// Where Events come from.
    pub source: Source,
    /// Which are taken.
    pub filter: Filter,
    /// The severities of reasons and types.
    pub severities: Vec<Severity>,
    /// Where they go.
    pub store: BusStore,
    /// The cluster that every event is stamped with.
    pub cluster: String,
    /// The objects that events are about, where they are to be read.
    pub objects: Option<Arc<Objects>>,
    /// For so long the bus itself knows a repetition.
    pub dedupe_interval: Duration,
    /// Counts what comes of each Event.
    pub metrics: Metrics,
    /// What was told.
    pub told: Told,
}

/// What this process has told, over all the times it was the one to watch.
pub struct Told {
    repeats: Mutex<Repeats>,
    /// Everything that counts as told is stored.
    is_complete: AtomicBool,
    /// How far this process has come; it stands in for a Lease that was deleted, or forgotten by
    /// its storage.
    reached: Mutex<Option<Cursor>>,
    /// What a former holder has stored behind the cursor that it left.
    left: Mutex<Left>,
}

impl Told {
    /// Nothing yet; `interval` is how often an Event that goes on is news.
    pub fn new(interval: Duration) -> Self {
        Self {
            repeats: Mutex::new(Repeats::new(interval)),
            is_complete: AtomicBool::new(true),
            reached: Mutex::default(),
            left: Mutex::default(),
        }
    }
}

impl EventWatch {
    /// Waits for its turn, watches, and so on until `stop`.
    ///
    /// # Guarantees
    /// Every Event that is taken is stored, before the cursor passes it: what is under way when a
    /// process dies is read again by the next one. While the bus can't store, the cursor stays
    /// where it is.
    pub async fn run(&self, stop: &CancellationToken) {
        self.election
            .lead(stop, |leadership| self.watch(leadership))
            .await;
    }

    async fn watch(&self, leadership: Leadership) {
        if !self.told.is_complete.swap(false, Ordering::Relaxed) {
            self.told.repeats.lock().forget();
        }
        let kept = Cursor::read(&leadership.annotations().await);
        let cursor = kept.or_else(|| *self.told.reached.lock());
        tracing::info!(
            code = codes::EVENT_WATCH_STARTED,
            ?cursor,
            "watching Kubernetes Events"
        );
        if let Some(seen) = leadership.former_holder_seen() {
            let left = Left::read(
                &self.store.0,
                &self.cluster,
                seen,
                self.dedupe_interval,
                leadership.over(),
            )
            .await;
            *self.told.left.lock() = left;
        }
        let (out, seen) = mpsc::channel(MOST_IN_FLIGHT);
        let (reached, reaching) = watch::channel(cursor);
        let over = leadership.over();
        let reading = async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = self.source.read(cursor, &out) => {}
            }
        };
        tokio::join!(
            reading,
            self.store_all(seen, reached, over),
            write_cursor(reaching, &leadership)
        );
        self.source.rest();
    }

    /// Stores what is seen, many at a time; what is reached moves in order.
    async fn store_all(
        &self,
        mut seen: mpsc::Receiver<Seen>,
        reached: watch::Sender<Option<Cursor>>,
        over: &CancellationToken,
    ) {
        let seen = stream::poll_fn(|context| seen.poll_recv(context));
        let mut settled = pin!(
            seen.map(|seen| self.settle(seen, over))
                .buffered(MOST_IN_FLIGHT)
        );
        while let Some((version, stored_at, is_settled)) = settled.next().await {
            if !is_settled {
                return;
            }
            let before = reached.borrow().unwrap_or(Cursor {
                resource_version: 0,
                time: None,
            });
            let cursor = Some(before.moved(version, stored_at));
            *self.told.reached.lock() = cursor;
            reached.send_replace(cursor);
        }
        self.told.is_complete.store(true, Ordering::Relaxed);
    }

    /// Decides now, in the order of what is seen, and stores in the future.
    fn settle<'a>(
        &'a self,
        seen: Seen,
        over: &'a CancellationToken,
    ) -> impl Future<Output = (u64, Option<jiff::Timestamp>, bool)> + 'a {
        let Seen {
            version,
            stored_at,
            event,
        } = seen;
        let news = event.and_then(|(event, came)| self.news(&event, came, stored_at));
        async move {
            let is_settled = match news {
                Some(event) => self.store(event, over).await,
                None => true,
            };
            (version, stored_at, is_settled)
        }
    }

    /// What is to be stored; everything else is counted here.
    fn news(
        &self,
        event: &KubernetesEvent,
        came: Came,
        stored_at: Option<jiff::Timestamp>,
    ) -> Option<Event> {
        if !self.filter.takes(event) {
            self.count(KubernetesEventOutcome::Filtered);
            return None;
        }
        let uid = event.metadata.uid.as_deref().unwrap_or_default();
        let Some(repeat) = self
            .told
            .repeats
            .lock()
            .news(uid, times(event), came, Instant::now())
        else {
            self.count(KubernetesEventOutcome::Repeated);
            return None;
        };
        let report = report(event, &self.severities, repeat);
        match normalise(report, &self.cluster, jiff::Timestamp::now(), None) {
            Ok(event) if self.told.left.lock().has(&event, stored_at) => {
                self.count(KubernetesEventOutcome::Duplicate);
                None
            }
            Ok(event) => Some(event),
            Err(refused) => {
                tracing::debug!(code = codes::KUBERNETES_EVENT_INVALID, error = %refused, "Kubernetes Event rejected");
                self.count(KubernetesEventOutcome::Invalid);
                None
            }
        }
    }

    /// Stores an event, however long that takes; says no when the leadership is over before.
    async fn store(&self, mut event: Event, over: &CancellationToken) -> bool {
        self.read_object(&mut event).await;
        loop {
            let not_stored = match self.store.store(event.clone()).await {
                Ok(Stored::New) => return self.count(KubernetesEventOutcome::Accepted),
                Ok(Stored::Duplicate) => return self.count(KubernetesEventOutcome::Duplicate),
                Err(not_stored) => not_stored,
            };
            if matches!(not_stored.reason, NotStoredReason::TooLarge { .. }) {
                tracing::error!(
                    code = codes::KUBERNETES_EVENT_LOST,
                    event.id = event.id,
                    detail = not_stored.detail,
                    "Kubernetes Event lost"
                );
                return self.count(KubernetesEventOutcome::TooLarge);
            }
            tracing::debug!(code = codes::EVENT_NOT_STORED, event.id = event.id, reason = %not_stored.reason, detail = not_stored.detail, "event not stored, retrying");
            tokio::select! {
                () = over.cancelled() => return false,
                () = tokio::time::sleep(jitter(not_stored.retry_after)) => {}
            }
        }
    }

    /// Adds what only the object says: its labels, and the user's annotations, so that an event
    /// about Flux's objects is as rich as the one that Flux posts.
    async fn read_object(&self, event: &mut Event) {
        let (Some(objects), Some(object)) = (&self.objects, &event.involved_object) else {
            return;
        };
        let Some(found) = objects.find(object).await else {
            return;
        };
        event.metadata.extend(found.annotations());
        event.labels = Some(found.labels());
    }

    fn count(&self, outcome: KubernetesEventOutcome) -> bool {
        self.metrics
            .ingest_kubernetes_events_total
            .get_or_create(&outcome)
            .inc();
        true
    }
}

/// Writes the cursor into the Lease, now and then, and at the end.
async fn write_cursor(mut reaching: watch::Receiver<Option<Cursor>>, leadership: &Leadership) {
    while reaching.changed().await.is_ok() {
        let annotations = reaching
            .borrow_and_update()
            .map(|cursor| cursor.annotations())
            .unwrap_or_default();
        match leadership.annotate(annotations).await {
            Ok(()) => {}
            Err(LeaseError::Lost) => return,
            Err(error) if leadership.over().is_cancelled() => {
                tracing::warn!(code = codes::EVENT_CURSOR_NOT_SAVED, %error, "last Event cursor not saved; the next leader reads some Events again");
                return;
            }
            Err(error) => {
                tracing::warn!(code = codes::EVENT_CURSOR_NOT_SAVED, %error, "Event cursor not saved, retrying");
                reaching.mark_changed();
            }
        }
        tokio::select! {
            () = leadership.over().cancelled() => {}
            () = tokio::time::sleep(WRITE_EVERY) => {}
        }
    }
}
