//! Serves a router over HTTP/1.1, with bounds on what a client may hold.

use std::time::Duration;
use tidings_core::runtime::codes::log as codes;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a request's head may take, and how long a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A hundred times the emitters of a large cluster; further ones wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 4096;
/// Before the next try when the system gives no connection (too many open files, for instance).
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(200);

/// Serves until `shutdown`, then finishes the requests under way and closes.
///
/// # Guarantees
/// When it returns, no request is under way. Safe to drop: that breaks off what is under way. A
/// failed accept is tried again.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(code = codes::ACCEPT_FAILED, %error, "cannot accept a connection, retrying");
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn converse(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    // Answers are small and wanted at once. A socket that refuses this is broken, which the next
    // line finds out.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
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
