//! The event endpoint: a drop-in for notification-controller's, on `POST /`.
//!
//! Producers post inside their reconcile loop with 5 s a try. They come again after 5xx (and honour
//! `Retry-After` on 503), never after 429, 400 or 413: so 429 is for what is stored already, and
//! 503 for what is not stored, or of which nobody knows.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tidings_core::runtime::codes::log as codes;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, Uri};
use axum::routing::any;

use crate::body;
use crate::kubernetes::Objects;
use crate::normalise;
use crate::response::Answer;
use crate::store::{EventStore, NotStored, NotStoredReason};
use tidings_core::runtime::metrics::labels::RequestOutcome;

/// How long taking an event may take: less than the 5 s after which senders give up.
const TAKEN_WITHIN: Duration = Duration::from_secs(4);

/// What the endpoint needs.
pub struct Ingest<S> {
    /// Where events go.
    pub store: S,
    /// The cluster that every event is stamped with.
    pub cluster: String,
    /// The objects whose labels are read, where they are.
    pub objects: Option<Arc<Objects>>,
    /// How long the store takes the same report for a duplicate.
    pub dedupe_interval: Duration,
    /// Told the end of each request, once; counts it.
    pub observe: Box<dyn Fn(&RequestOutcome) + Send + Sync>,
}

/// The endpoint.
///
/// # Guarantees
/// Every request is observed once, also one whose sender goes away. 202 only after the store has
/// confirmed.
pub fn router<S: EventStore>(ingest: Ingest<S>) -> Router {
    let ingest = Arc::new(ingest);
    Router::new()
        .route("/", any(receive::<S>))
        .fallback(nowhere::<S>)
        .with_state(ingest)
}

async fn nowhere<S: EventStore>(State(ingest): State<Arc<Ingest<S>>>, uri: Uri) -> Response<Body> {
    let answer = Answer::wrong_path(uri.path());
    (ingest.observe)(&answer.taken);
    answer.into_response()
}

async fn receive<S: EventStore>(
    State(ingest): State<Arc<Ingest<S>>>,
    request: Request,
) -> Response<Body> {
    let mut end = End {
        taken: RequestOutcome::Abandoned,
        observe: &ingest.observe,
    };
    let answer = ingest.answer(request).await.unwrap_or_else(|answer| answer);
    end.taken = answer.taken;
    answer.into_response()
}

impl<S: EventStore> Ingest<S> {
    /// Both sides are answers; the wrong one is that of a request which ends early.
    async fn answer(&self, request: Request) -> Result<Answer, Answer> {
        if request.method() != Method::POST {
            return Err(Answer::wrong_method());
        }
        let bytes = body::read(request.into_body()).await?;
        let began = Instant::now();
        let mut event = normalise::take(&bytes, &self.cluster, jiff::Timestamp::now(), None)
            .inspect_err(|refused| {
                tracing::debug!(code = codes::EVENT_INVALID, error = %refused, "event rejected");
            })?;
        drop(bytes);
        if let (Some(objects), Some(object)) = (&self.objects, &event.involved_object) {
            event.labels = objects.find(object).await.map(|found| found.labels());
        }
        let id = event.id.clone();
        let stored = tokio::time::timeout(
            TAKEN_WITHIN.saturating_sub(began.elapsed()),
            self.store.store(event),
        )
        .await
        .unwrap_or_else(|_| Err(unconfirmed()));
        match stored {
            Ok(stored) => {
                tracing::debug!(
                    code = codes::EVENT_STORED,
                    event.id = id,
                    ?stored,
                    "event stored"
                );
                Ok(Answer::stored(stored, self.dedupe_interval))
            }
            Err(not_stored) => {
                tracing::debug!(code = codes::EVENT_NOT_STORED, event.id = id, reason = %not_stored.reason, detail = not_stored.detail, "event not stored");
                Err(not_stored.into())
            }
        }
    }
}

fn unconfirmed() -> NotStored {
    let detail = format!(
        "the bus has not confirmed it within {} s",
        TAKEN_WITHIN.as_secs()
    );
    NotStored {
        reason: NotStoredReason::Unavailable,
        retry_after: Duration::from_secs(1),
        detail,
    }
}

/// Observes the end of a request when it goes out of scope, which is also what happens to a request
/// whose sender goes away.
struct End<'a> {
    taken: RequestOutcome,
    observe: &'a (dyn Fn(&RequestOutcome) + Send + Sync),
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        (self.observe)(&self.taken);
    }
}
