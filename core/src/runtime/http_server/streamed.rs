//! An answer that is made while it is sent, such as a live stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

use super::connections::Progress;

/// Its connection is in use until the answer is complete or dropped, so it is not closed for a new
/// one as if it were idle.
pub(super) struct Streamed {
    body: Body,
    progress: Progress,
}

impl Streamed {
    pub(super) fn new(body: Body, progress: Progress) -> Self {
        Self { body, progress }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.progress.answered();
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::super::connections::{Connections, Phase};
    use super::*;

    #[tokio::test]
    async fn a_connection_is_in_use_until_its_stream_ends() {
        let connections = Connections::new(1, Gauge::default());
        let connection = connections.open();
        connection.enter(Phase::Handling);
        let streamed = Streamed::new(Body::empty(), connection.progress());
        assert!(!connections.close_longest_silent());
        drop(streamed);
        assert!(connections.close_longest_silent());
    }
}
