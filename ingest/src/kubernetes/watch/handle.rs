//! Handles one change: selects, converts and stores the Event.

use std::future::Future;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event as KubernetesEvent;
use tidings_core::Event;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::KubernetesEventOutcome;
use tidings_core::runtime::traces::{Kind, Span, carrying};
use tokio_util::sync::CancellationToken;

use super::EventWatch;
use crate::kubernetes::convert::{raw_event, times};
use crate::kubernetes::reader::EventChange;
use crate::kubernetes::repeat_filter::ChangeType;
use crate::normalize::normalize;
use crate::store::{EventStore, StoreAck, StoreErrorReason};

impl EventWatch {
    /// Selects the Event at once, so that Events are selected in the order of the changes. The
    /// returned future stores it, and returns the resource version, when the API server stored the
    /// Event, and whether the cursor may advance.
    pub(super) fn handle<'a>(
        &'a self,
        change: EventChange,
        stop: &'a CancellationToken,
    ) -> impl Future<Output = (u64, Option<Timestamp>, bool)> + 'a {
        let EventChange {
            version,
            stored_at,
            event,
        } = change;
        let selected = event.and_then(|(event, change)| self.select(&event, change, stored_at));
        async move {
            let is_done = match selected {
                Some(event) => self.store(event, stop).await,
                None => true,
            };
            (version, stored_at, is_done)
        }
    }

    /// Returns the event to store. If there is none, counts the reason.
    fn select(
        &self,
        event: &KubernetesEvent,
        change: ChangeType,
        stored_at: Option<Timestamp>,
    ) -> Option<Event> {
        if !self.filter.selects(event) {
            self.count(KubernetesEventOutcome::Filtered);
            return None;
        }
        let uid = event.metadata.uid.as_deref().unwrap_or_default();
        let passed =
            self.state
                .repeat_filter
                .lock()
                .pass(uid, times(event), change, Instant::now());
        let Some(repeat) = passed else {
            self.count(KubernetesEventOutcome::Repeated);
            return None;
        };
        let raw = raw_event(event, &self.severities, repeat);
        match normalize(raw, &self.cluster, Timestamp::now(), None) {
            Ok(event) if self.state.recovered.lock().take(&event, stored_at) => {
                self.count(KubernetesEventOutcome::Duplicate);
                None
            }
            Ok(event) => Some(event),
            Err(error) => {
                tracing::debug!(
                    code = codes::KUBERNETES_EVENT_INVALID,
                    %error,
                    "Kubernetes Event rejected"
                );
                self.count(KubernetesEventOutcome::Invalid);
                None
            }
        }
    }

    /// Stores an event, retrying until it succeeds. Returns false if the leadership ends first.
    async fn store(&self, mut event: Event, stop: &CancellationToken) -> bool {
        self.add_object_metadata(&mut event).await;
        let mut span = Span::start("ingest", Kind::Consumer, None);
        span.set_text("tidings.event.id", &event.id);
        loop {
            let storing = self.store.store(event.clone());
            let error = match carrying(span.context(), storing).await {
                Ok(StoreAck::New) => {
                    self.count(KubernetesEventOutcome::Accepted);
                    return true;
                }
                Ok(StoreAck::Duplicate) => {
                    self.count(KubernetesEventOutcome::Duplicate);
                    return true;
                }
                Err(error) => error,
            };
            if matches!(error.reason, StoreErrorReason::TooLarge { .. }) {
                tracing::error!(
                    code = codes::KUBERNETES_EVENT_LOST,
                    event.id = event.id,
                    detail = error.detail,
                    "Kubernetes Event lost"
                );
                self.count(KubernetesEventOutcome::TooLarge);
                return true;
            }
            tracing::debug!(
                code = codes::EVENT_NOT_STORED,
                event.id = event.id,
                reason = %error.reason,
                detail = error.detail,
                "event not stored, retrying"
            );
            let delay = jitter(error.retry_after);
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Adds labels and event annotations of the involved object, which are not in a Kubernetes
    /// Event.
    async fn add_object_metadata(&self, event: &mut Event) {
        let (Some(objects), Some(object)) = (&self.objects, &event.involved_object) else {
            return;
        };
        let Some(lookup) = objects.find(object).await else {
            return;
        };
        event.metadata.extend(lookup.annotations());
        event.labels = Some(lookup.labels());
    }

    fn count(&self, outcome: KubernetesEventOutcome) {
        self.metrics
            .ingest_kubernetes_events_total
            .get_or_create(&outcome)
            .inc();
    }
}
