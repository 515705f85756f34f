//! The event endpoint `POST /`, compatible with notification-controller's.
//!
//! Flux controllers post inside their reconcile loop with a timeout of 5 s. They retry after 5xx,
//! honoring `Retry-After` on 503, and never after 400, 413 or 429. So 429 must mean that the event
//! is stored already. 503 means that it is not stored, or that the bus did not confirm it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, Uri};
use axum::routing::any;
use tidings_core::Event;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::RequestOutcome;

use crate::body;
use crate::kubernetes::Objects;
use crate::normalize;
use crate::response::EventResponse;
use crate::store::{EventStore, StoreAck, StoreError, StoreErrorReason};

/// The time limit for handling an event. Senders give up after 5 s.
const HANDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The state of the endpoint.
pub struct Ingest<S> {
    /// Stores events.
    pub store: S,
    /// The cluster name that every event gets.
    pub cluster: String,
    /// Looks up labels of involved objects, if enabled.
    pub objects: Option<Arc<Objects>>,
    /// How long the store detects duplicates.
    pub dedupe_interval: Duration,
    /// Called once per request, to count it.
    pub observe: Box<dyn Fn(&RequestOutcome) + Send + Sync>,
}

/// The endpoint.
///
/// # Guarantees
/// Every request is observed once, even if its sender disconnects. The response is 202 only after
/// the store confirmed the event.
pub fn router<S: EventStore>(ingest: Ingest<S>) -> Router {
    let ingest = Arc::new(ingest);
    Router::new()
        .route("/", any(receive::<S>))
        .fallback(not_found::<S>)
        .with_state(ingest)
}

async fn not_found<S: EventStore>(
    State(ingest): State<Arc<Ingest<S>>>,
    uri: Uri,
) -> Response<Body> {
    let response = EventResponse::wrong_path(uri.path());
    (ingest.observe)(&response.outcome);
    response.into_response()
}

async fn receive<S: EventStore>(
    State(ingest): State<Arc<Ingest<S>>>,
    request: Request,
) -> Response<Body> {
    let mut observed = ObserveOnDrop {
        outcome: RequestOutcome::Abandoned,
        observe: &ingest.observe,
    };
    let response = ingest
        .handle(request)
        .await
        .unwrap_or_else(|response| response);
    observed.outcome = response.outcome;
    response.into_response()
}

impl<S: EventStore> Ingest<S> {
    /// Both variants are responses; `Err` ends the handling early.
    async fn handle(&self, request: Request) -> Result<EventResponse, EventResponse> {
        if request.method() != Method::POST {
            return Err(EventResponse::wrong_method());
        }
        let bytes = body::read(request.into_body()).await?;
        let started = Instant::now();
        let now = jiff::Timestamp::now();
        let mut event = normalize::parse_event(&bytes, &self.cluster, now, None).inspect_err(
            |error| tracing::debug!(code = codes::EVENT_INVALID, %error, "event rejected"),
        )?;
        drop(bytes);
        // Before labels are looked up, which can take seconds.
        if let Some(problem) = self.store.problem() {
            return Err(problem.into());
        }
        if let (Some(objects), Some(object)) = (&self.objects, &event.involved_object) {
            event.labels = objects.find(object).await.map(|lookup| lookup.labels());
        }
        let time_left = HANDLE_TIMEOUT.saturating_sub(started.elapsed());
        let stored = self.store_within(event, time_left).await?;
        Ok(EventResponse::stored(stored, self.dedupe_interval))
    }

    async fn store_within(&self, event: Event, timeout: Duration) -> Result<StoreAck, StoreError> {
        let id = event.id.clone();
        let stored = tokio::time::timeout(timeout, self.store.store(event))
            .await
            .unwrap_or_else(|_| Err(not_confirmed()));
        match &stored {
            Ok(stored) => tracing::debug!(
                code = codes::EVENT_STORED,
                event.id = id,
                ?stored,
                "event stored"
            ),
            Err(error) => tracing::debug!(
                code = codes::EVENT_NOT_STORED,
                event.id = id,
                reason = %error.reason,
                detail = error.detail,
                "event not stored"
            ),
        }
        stored
    }
}

fn not_confirmed() -> StoreError {
    StoreError {
        reason: StoreErrorReason::Unavailable,
        retry_after: Duration::from_secs(1),
        detail: format!(
            "the bus did not confirm it within {} s",
            HANDLE_TIMEOUT.as_secs()
        ),
    }
}

/// Observes the outcome when dropped, because axum drops the handler if the sender disconnects.
struct ObserveOnDrop<'a> {
    outcome: RequestOutcome,
    observe: &'a (dyn Fn(&RequestOutcome) + Send + Sync),
}

impl Drop for ObserveOnDrop<'_> {
    fn drop(&mut self) {
        (self.observe)(&self.outcome);
    }
}
