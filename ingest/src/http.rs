//! The event endpoint `POST /`, compatible with notification-controller's.
//!
//! Flux controllers post inside their reconcile loop with a timeout of 5 s. They retry after 5xx,
//! honoring `Retry-After` on 503, and never after 400, 413 or 429. So 429 must mean that the event
//! is stored already. 503 means that it is not stored, or that the bus did not confirm it. A sender
//! without a valid token, where one is required, is refused before its body is read.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Response, Uri};
use axum::routing::any;
use tidings_core::Event;
use tidings_core::bus::streams;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::http_server::Peer;
use tidings_core::runtime::metrics::labels::RequestOutcome;
use tidings_core::runtime::traces::{self, Kind, Span, TraceContext, carrying};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::authentication::{Authentication, KubernetesReviewer};
use crate::body;
use crate::body_budget::BodyBudget;
use crate::kubernetes::Objects;
use crate::normalize;
use crate::response::EventResponse;
use crate::store::{EventStore, StoreAck, StoreError, StoreErrorReason};
use crate::tee::Tee;

/// The time limit for handling an event. Senders give up after 5 s.
const HANDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a complete body waits for memory. Other events are stored meanwhile.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of its body's size an event needs until it is stored: its texts, the message for the
/// bus, and what decoding needs for many small fields.
const COPIES: usize = 3;

/// The smallest [`Ingest::events`]: enough for the largest event.
pub const SMALLEST_MEMORY_FOR_EVENTS: usize = (COPIES + 1) * body::MAX_BODY_BYTES;

/// The state of the endpoint.
pub struct Ingest<S> {
    /// Stores events.
    pub store: S,
    /// Checks the tokens of senders, if the settings require them.
    pub authentication: Option<Authentication<KubernetesReviewer>>,
    /// The cluster name that every event gets.
    pub cluster: String,
    /// Looks up labels of involved objects, if enabled.
    pub objects: Option<Arc<Objects>>,
    /// Gets a copy of each body whose event was stored, if one is set.
    pub tee: Option<Tee>,
    /// How long the store detects duplicates.
    pub dedupe_interval: Duration,
    /// The memory for bodies that arrive.
    pub bodies: Arc<BodyBudget>,
    /// The memory for events that are decoded and stored, in KiB.
    pub events: Arc<Semaphore>,
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
        let started = Instant::now();
        if let Some(authentication) = &self.authentication {
            let peer = request.extensions().get::<Peer>().copied();
            let checked = authentication.check(request.headers(), peer).await;
            if let Err(refusal) = checked {
                body::discard_unread(request).await;
                return Err(refusal.into());
            }
        }
        let authenticating = started.elapsed();
        if request.method() != Method::POST {
            return Err(EventResponse::wrong_method());
        }
        let parent = traces::parent(|| TraceContext::of_request(request.headers()));
        let mut span = Span::start("ingest", Kind::Server, parent.as_ref());
        let response = self.receive(request, authenticating, &mut span).await;
        describe(&mut span, &response);
        response
    }

    /// Reads an event of a sender that may send, and stores it.
    async fn receive(
        &self,
        request: Request,
        authenticating: Duration,
        span: &mut Span,
    ) -> Result<EventResponse, EventResponse> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let body = body::read(request, &self.bodies)
            .await
            .inspect_err(|error| {
                tracing::debug!(code = codes::BODY_REFUSED, ?error, "body refused");
            })?;
        let started = Instant::now();
        let _memory = self.memory_for(body.bytes.len()).await?;
        let now = jiff::Timestamp::now();
        let mut event = normalize::parse_event(&body.bytes, &self.cluster, now, None).inspect_err(
            |error| tracing::debug!(code = codes::EVENT_INVALID, %error, "event rejected"),
        )?;
        span.set_text("tidings.event.id", &event.id);
        let copy = self.tee.as_ref();
        let copy = copy.map(|tee| tee.hold(body.into_bytes(), content_type));
        // Before labels are looked up, which can take seconds.
        if let Some(problem) = self.store.problem() {
            return Err(problem.into());
        }
        if let (Some(objects), Some(object)) = (&self.objects, &event.involved_object) {
            event.labels = objects.find(object).await.map(|lookup| lookup.labels());
        }
        let spent = authenticating + started.elapsed();
        let time_left = HANDLE_TIMEOUT.saturating_sub(spent);
        let storing = self.store_within(event, time_left);
        let stored = carrying(span.context(), storing).await?;
        if let (StoreAck::New, Some(copy)) = (stored, copy) {
            copy.send();
        }
        Ok(EventResponse::stored(stored, self.dedupe_interval))
    }

    /// Waits for the memory that an event of this size needs until it is stored.
    async fn memory_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, EventResponse> {
        let needed = u32::try_from(bytes * COPIES / 1024 + 1).unwrap_or(u32::MAX);
        let permits = self.events.clone().acquire_many_owned(needed);
        match tokio::time::timeout(MEMORY_TIMEOUT, permits).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(EventResponse::memory_full()),
        }
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

/// Describes a request and its response in its span.
fn describe(span: &mut Span, response: &Result<EventResponse, EventResponse>) {
    if !span.is_recorded() {
        return;
    }
    let (Ok(response) | Err(response)) = response;
    span.set("http.request.method", "POST");
    span.set("http.route", "/");
    span.set("messaging.system", "nats");
    span.set("messaging.destination.name", streams::EVENTS);
    let status = response.status().as_u16();
    span.set("http.response.status_code", i64::from(status));
    span.set("tidings.outcome", response.outcome.as_str());
    if status >= 500 {
        span.fail(response.outcome.as_str());
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
