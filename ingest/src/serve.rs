//! Serves the endpoint over HTTP/1.1, with limits per connection.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidings_core::runtime::codes::log as codes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The time limit for request headers, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// About a hundred times the senders of a large cluster. Further connections wait in the kernel.
const MAX_CONNECTIONS: usize = 4096;
/// The pause after a failed accept, for example because too many files are open.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Serves until `shutdown`, then completes open requests and returns.
///
/// # Guarantees
/// No request is open when it returns. A failed accept is retried. Dropping the future aborts open
/// requests.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(
                        code = codes::ACCEPT_FAILED,
                        %error,
                        "cannot accept a connection, retrying"
                    );
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_one(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    // Responses are small and urgent. If this fails, the socket is broken and serving it fails too.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(code = codes::CONNECTION_FAILED, %error, "connection closed with an error");
    }
}
