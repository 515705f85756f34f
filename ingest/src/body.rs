//! Reads a request body within limits of size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures::StreamExt;

/// The largest body that is accepted, as in notification-controller.
pub(crate) const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// How much of a body that is too large is read. A sender that is rejected while it still sends may
/// see a reset connection instead of the response, so a slightly larger body is read to its end.
const MAX_READ_BYTES: usize = 8 * 1024 * 1024;
/// The largest buffer that is allocated before the body arrives, from the length in its headers.
const MAX_PREALLOCATED_BYTES: usize = 64 * 1024;
/// The time limit for the whole body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a body is not usable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Larger than [`MAX_BODY_BYTES`].
    TooLarge,
    /// Not received in time.
    Timeout,
    /// Ended early, or does not match its headers.
    Incomplete,
}

pub(crate) async fn read(body: Body) -> Result<Vec<u8>, BodyError> {
    tokio::time::timeout(BODY_TIMEOUT, read_all(body))
        .await
        .unwrap_or(Err(BodyError::Timeout))
}

async fn read_all(body: Body) -> Result<Vec<u8>, BodyError> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut buffer = Vec::with_capacity(expected.min(MAX_PREALLOCATED_BYTES));
    let mut read = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
        read += chunk.len();
        if read > MAX_READ_BYTES {
            break;
        }
        if read > MAX_BODY_BYTES {
            buffer = Vec::new();
        } else {
            buffer.extend_from_slice(&chunk);
        }
    }
    if read > MAX_BODY_BYTES {
        Err(BodyError::TooLarge)
    } else {
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

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
}
