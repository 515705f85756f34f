//! Reads a request's body within bounds of size and time.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures::StreamExt;

/// The largest body that is taken: notification-controller's limit.
pub(crate) const LARGEST: usize = 3 * 1024 * 1024;
/// How much of a body is read in all. A sender that is refused while it still sends may see a
/// broken connection instead of its answer, so what is moderately too large is read to its end.
const READ_AT_MOST: usize = 8 * 1024 * 1024;
/// What is reserved at most on a sender's word alone.
const USUAL: usize = 64 * 1024;
/// How long a body may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is larger than [`LARGEST`].
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// It ended early, or is not what its headers announce.
    Broken,
}

pub(crate) async fn read(body: Body) -> Result<Vec<u8>, Unread> {
    tokio::time::timeout(WITHIN, read_all(body))
        .await
        .unwrap_or(Err(Unread::TooSlow))
}

async fn read_all(body: Body) -> Result<Vec<u8>, Unread> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut collected = Vec::with_capacity(announced.min(USUAL));
    let mut read = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Unread::Broken)?;
        read += chunk.len();
        if read > READ_AT_MOST {
            break;
        }
        if read > LARGEST {
            collected = Vec::new();
        } else {
            collected.extend_from_slice(&chunk);
        }
    }
    if read > LARGEST {
        Err(Unread::TooLarge)
    } else {
        Ok(collected)
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
    async fn the_limit_holds_for_every_way_to_send_a_body() {
        assert_eq!(read(Body::empty()).await, Ok(Vec::new()));
        assert_eq!(
            read(Body::from(vec![b'x'; LARGEST]))
                .await
                .map(|body| body.len()),
            Ok(LARGEST)
        );
        assert_eq!(
            read(Body::from(vec![b'x'; LARGEST + 1])).await,
            Err(Unread::TooLarge)
        );
        assert_eq!(
            read(chunked(LARGEST)).await.map(|body| body.len()),
            Ok(LARGEST)
        );
        assert_eq!(read(chunked(LARGEST + 4)).await, Err(Unread::TooLarge));
        assert_eq!(read(chunked(2 * READ_AT_MOST)).await, Err(Unread::TooLarge));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_from_one_that_ends() {
        let chunks = [Ok("{"), Err(std::io::Error::other("reset"))];
        assert_eq!(
            read(Body::from_stream(stream::iter(chunks))).await,
            Err(Unread::Broken)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let body = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(read(body).await, Err(Unread::TooSlow));
    }
}
