//! Reads a request body within limits of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::header::EXPECT;
use futures::StreamExt;
pub(crate) use tidings_core::model::stored_event::MAX_BODY_BYTES;
use tidings_core::runtime::http_server::connections::Progress;
use tokio::time::{Instant, timeout_at};

use crate::body_budget::{BodyBudget, Full, HeldBody};

/// How much of a body that is refused is read. A sender that is rejected while it still sends may
/// see a reset connection instead of the response, so a slightly larger body is read to its end.
const MAX_READ_BYTES: usize = 8 * 1024 * 1024;
/// How long a body that is refused is read.
const MAX_READ_TIME: Duration = Duration::from_secs(1);
/// A buffer grows by at least this much, or by a quarter.
const SMALLEST_GROWTH: usize = 4 * 1024;
/// The time limit of the first part of a body, and of the whole body. In between, a body must
/// arrive at [`SLOWEST`].
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes per second.
const SLOWEST: usize = 64 * 1024;

/// Why a body is not usable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Larger than [`MAX_BODY_BYTES`].
    TooLarge,
    /// Not received in time.
    Timeout,
    /// Ended early, or does not match its headers.
    Incomplete,
    /// The memory for bodies is used up.
    MemoryFull,
}

/// A complete body, and the memory that it holds.
pub(crate) struct CompleteBody {
    pub(crate) bytes: Vec<u8>,
    _held: HeldBody,
}

impl CompleteBody {
    /// The bytes, whose memory the caller accounts for from now on.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads the body of a request.
pub(crate) async fn read(
    request: Request,
    budget: &Arc<BodyBudget>,
) -> Result<CompleteBody, BodyError> {
    let progress = request.extensions().get::<Progress>().cloned();
    let mut reading = Reading {
        progress,
        started: Instant::now(),
        held: budget.begin(),
        bytes: Vec::new(),
    };
    let mut chunks = request.into_body().into_data_stream();
    let read = reading.all(&mut chunks).await;
    let Reading {
        progress,
        held,
        bytes,
        ..
    } = reading;
    match read {
        Ok(()) => {
            if let Some(progress) = progress {
                progress.complete();
            }
            held.complete();
            Ok(CompleteBody { bytes, _held: held })
        }
        Err(error) => {
            let received = bytes.len();
            drop((bytes, held));
            if matches!(error, BodyError::TooLarge | BodyError::MemoryFull) {
                discard(chunks, received).await;
            }
            Err(error)
        }
    }
}

struct Reading {
    progress: Option<Progress>,
    started: Instant,
    held: HeldBody,
    bytes: Vec<u8>,
}

impl Reading {
    async fn all(&mut self, chunks: &mut axum::body::BodyDataStream) -> Result<(), BodyError> {
        loop {
            let deadline = self.started + time_limit(self.bytes.len());
            let next = tokio::select! {
                next = timeout_at(deadline, chunks.next()) => next,
                () = self.held.given_up() => return Err(BodyError::MemoryFull),
            };
            match next {
                Ok(Some(Ok(chunk))) => self.add(&chunk)?,
                Ok(Some(Err(_))) => return Err(BodyError::Incomplete),
                Ok(None) => return Ok(()),
                Err(_) => return Err(BodyError::Timeout),
            }
        }
    }

    fn add(&mut self, chunk: &Bytes) -> Result<(), BodyError> {
        let length = self.bytes.len() + chunk.len();
        if length > MAX_BODY_BYTES {
            return Err(BodyError::TooLarge);
        }
        if length > self.bytes.capacity() {
            let growth = SMALLEST_GROWTH.max(self.bytes.len() / 4).max(chunk.len());
            let capacity = (self.bytes.len() + growth).min(MAX_BODY_BYTES);
            self.held.grow(capacity)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        if let Some(progress) = &self.progress {
            progress.received();
        }
        Ok(())
    }
}

impl From<Full> for BodyError {
    fn from(_: Full) -> Self {
        Self::MemoryFull
    }
}

/// The time that a body of which this much arrived may take.
fn time_limit(received: usize) -> Duration {
    let seconds = u64::try_from(received / SLOWEST).unwrap_or(u64::MAX);
    BODY_TIMEOUT.min(FIRST_TIMEOUT + Duration::from_secs(seconds))
}

/// Reads the body of a refused request without keeping it, unless its sender waits for the answer
/// before it sends one.
pub(crate) async fn discard_unread(request: Request) {
    if !request.headers().contains_key(EXPECT) {
        discard(request.into_body().into_data_stream(), 0).await;
    }
}

/// Reads the rest of a refused body without keeping it.
async fn discard(mut chunks: axum::body::BodyDataStream, mut received: usize) {
    let end = Instant::now() + MAX_READ_TIME;
    while let Ok(Some(Ok(chunk))) = timeout_at(end, chunks.next()).await {
        received += chunk.len();
        if received > MAX_READ_BYTES {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::stream;
    use tidings_core::runtime::metrics::Gauge;

    use super::*;

    fn budget(most: usize) -> Arc<BodyBudget> {
        BodyBudget::new(most, Gauge::default())
    }

    async fn read(body: Body) -> Result<Vec<u8>, BodyError> {
        let read = super::read(Request::new(body), &budget(2 * MAX_BODY_BYTES)).await;
        read.map(|body| body.bytes)
    }

    fn chunked(size: usize) -> Body {
        let chunk = move |_| Ok::<_, std::io::Error>(vec![b'x'; size / 4]);
        Body::from_stream(stream::iter((0..4).map(chunk)))
    }

    #[tokio::test]
    async fn the_size_limit_applies_to_every_kind_of_body() {
        assert_eq!(read(Body::empty()).await, Ok(Vec::new()));
        assert_eq!(
            read(Body::from(vec![b'x'; MAX_BODY_BYTES]))
                .await
                .map(|body| body.len()),
            Ok(MAX_BODY_BYTES)
        );
        assert_eq!(
            read(Body::from(vec![b'x'; MAX_BODY_BYTES + 1])).await,
            Err(BodyError::TooLarge)
        );
        assert_eq!(
            read(chunked(MAX_BODY_BYTES)).await.map(|body| body.len()),
            Ok(MAX_BODY_BYTES)
        );
        assert_eq!(
            read(chunked(MAX_BODY_BYTES + 4)).await,
            Err(BodyError::TooLarge)
        );
        assert_eq!(
            read(chunked(2 * MAX_READ_BYTES)).await,
            Err(BodyError::TooLarge)
        );
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_incomplete() {
        let chunks = [Ok("{"), Err(std::io::Error::other("reset"))];
        assert_eq!(
            read(Body::from_stream(stream::iter(chunks))).await,
            Err(BodyError::Incomplete)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_times_out() {
        let body = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(read(body).await, Err(BodyError::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_arrive_at_a_smallest_rate() {
        assert_eq!(time_limit(0), Duration::from_secs(10));
        assert_eq!(time_limit(640 << 10), Duration::from_secs(20));
        assert_eq!(time_limit(MAX_BODY_BYTES), Duration::from_secs(30));
        let drip = |pause| {
            let chunk = move |_| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, std::io::Error>(vec![b' '; 32 << 10])
            };
            Body::from_stream(stream::iter(0..40).then(chunk))
        };
        let read_all = read(drip(Duration::from_millis(500))).await;
        assert_eq!(read_all.map(|body| body.len()), Ok(40 * (32 << 10)));
        assert_eq!(
            read(drip(Duration::from_secs(1))).await,
            Err(BodyError::Timeout)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_beyond_the_memory_is_refused_and_holds_none() {
        let budget = budget(MAX_BODY_BYTES / 2);
        let large = Request::new(chunked(MAX_BODY_BYTES));
        let refused = super::read(large, &budget).await;
        assert_eq!(refused.err(), Some(BodyError::MemoryFull));
        let small = Request::new(chunked(MAX_BODY_BYTES / 4));
        assert!(super::read(small, &budget).await.is_ok());
    }
}
