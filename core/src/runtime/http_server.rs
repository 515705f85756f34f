//! Serves HTTP/1.1 so that slow senders, and many of them, keep no others out.
//!
//! A connection has limits of bytes, headers and time. When as many connections are open as
//! allowed, a new one takes the place of the one that has been silent for the longest time. So a
//! sender that writes its request at once gets an answer, however many others hold connections
//! open.

pub mod connections;
mod streamed;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::runtime::codes::log as codes;
use crate::runtime::metrics::Metrics;
use connections::{Connection, Connections, Phase};
use streamed::Streamed;
use tls::Tls;

/// The time limit for request headers, and for an idle connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's line and headers. Also the size of the buffer of a connection.
pub const MAX_HEADER_BYTES: usize = 16 << 10;
/// The most headers of a request.
pub const MAX_HEADERS: usize = 100;
/// The pause after a failed accept, for example because too many files are open.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// The answer if every open connection has a request in progress.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    content-length: 0\r\nconnection: close\r\n\r\n";

/// The address of the sender. An extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves without TLS. See [`serve_with`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    serve_with(listener, router, connections, None, metrics, shutdown).await;
}

/// Serves until `shutdown`, then completes open requests and returns. With `tls`, every connection
/// begins with a handshake.
///
/// # Guarantees
/// No request is open when it returns. A failed accept is retried. Dropping the future aborts open
/// requests. A request that is being handled is never aborted for a new connection.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    tls: Option<Tls>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let most = connections.most() + tls.as_ref().map_or(0, Tls::most);
    let server = Arc::new(Server {
        router,
        connections,
        tls,
        metrics,
        shutdown: shutdown.clone(),
    });
    let mut tasks = JoinSet::new();
    loop {
        // A connection that is closed for a new one may need a moment to end.
        let may_accept = tasks.len() < most + most.div_ceil(4);
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept(), if may_accept => match accepted {
                Ok((stream, peer)) => server.clone().spawn(stream, Peer(peer), &mut tasks),
                Err(error) => {
                    tracing::warn!(
                        code = codes::ACCEPT_FAILED,
                        %error,
                        "cannot accept a connection, retrying"
                    );
                    // It may be that no file descriptor is free.
                    if server.connections.close_longest_silent() {
                        server.metrics.http_connections_closed_total.inc();
                    }
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// What all connections of a server share.
struct Server {
    router: Router,
    connections: Arc<Connections>,
    tls: Option<Tls>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Server {
    fn spawn(self: Arc<Self>, stream: TcpStream, peer: Peer, tasks: &mut JoinSet<()>) {
        // Responses are small and urgent. If this fails, the socket is broken and serving it fails
        // too.
        let _ = stream.set_nodelay(true);
        if let Some(tls) = self.tls.clone() {
            let place = tls.open();
            tasks.spawn(async move {
                let handshake = tls.handshake(stream, place);
                let stream = tokio::select! {
                    stream = handshake => stream,
                    () = self.shutdown.cancelled() => None,
                };
                if let Some(stream) = stream {
                    let opened = open(&self.connections, &self.metrics);
                    self.serve(stream, peer, opened).await;
                }
            });
        } else {
            let opened = open(&self.connections, &self.metrics);
            tasks.spawn(async move { self.serve(stream, peer, opened).await });
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: Peer,
        opened: Option<Connection>,
    ) {
        match opened {
            Some(connection) => self.serve_one(stream, peer, connection).await,
            None => refuse(stream).await,
        }
    }

    async fn serve_one(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: Peer,
        connection: Connection,
    ) {
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(|request| answer(&router, &connection, peer, request));
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = connection.closed() => return,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(
                code = codes::CONNECTION_FAILED,
                %error,
                "connection closed with an error"
            );
        }
    }
}

/// A place for a new connection; `None` if every connection has a request in progress.
fn open(connections: &Arc<Connections>, metrics: &Metrics) -> Option<Connection> {
    if connections.is_full() {
        metrics.http_connections_closed_total.inc();
        if !connections.close_longest_silent() {
            return None;
        }
    }
    Some(connections.open())
}

async fn refuse(mut stream: impl AsyncWrite + Unpin) {
    let refusing = async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(ACCEPT_RETRY_DELAY, refusing).await;
}

/// Answers a request. Its extensions hold the connection, so that a handler can report progress,
/// and the sender's address.
async fn answer(
    router: &TowerToHyperService<Router>,
    connection: &Connection,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<axum::http::Response<Body>, std::convert::Infallible> {
    let has_body = !request.body().is_end_stream();
    connection.enter(if has_body {
        Phase::Receiving
    } else {
        Phase::Handling
    });
    request.extensions_mut().insert(connection.progress());
    request.extensions_mut().insert(peer);
    let Ok(response) = router.call(request).await;
    if response.body().size_hint().exact().is_some() {
        connection.enter(Phase::Waiting);
        return Ok(response);
    }
    let progress = connection.progress();
    Ok(response.map(|body| Body::new(Streamed::new(body, progress))))
}
