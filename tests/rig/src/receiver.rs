//! An HTTP endpoint of a Provider that follows a script.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::authority::acceptor;
use crate::wait::eventually;

/// How the endpoint handles one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Responds with this status. The body of a success confirms the request for every type.
    Status(u16),
    /// Responds with this status and body.
    Text(u16, &'static str),
    /// Responds with this status and a `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Reads the request and closes the connection without a response.
    Close,
    /// Redirects to this target with this status.
    Redirect(u16, &'static str),
    /// Sends the headers of a 200 response and closes the connection within the body.
    CloseHalfWay,
    /// Sends the headers of a 200 response and half of the body, and never the rest.
    StallHalfWay,
    /// Reads the request and never responds.
    Stall,
    /// Responds with 200 after this time.
    Slow(Duration),
}

/// The body of a success: the answer of PagerDuty and of incident.io. Others do not read it.
const CONFIRMED: &str = r#"{"status":"success"}"#;

/// A received request.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was read.
    pub at: Instant,
    /// How it was handled.
    pub reply: Reply,
    /// Its method and path.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a provider of type generic receives JSON")
    }

    /// The message of the event in the body.
    pub fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .expect("an event has a message")
            .to_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The endpoint. It follows its script, and then handles all requests in the same way.
pub struct Receiver {
    url: String,
    state: Arc<Mutex<State>>,
    server: AbortHandle,
}

struct State {
    script: VecDeque<Reply>,
    /// Used in turn after the script.
    afterwards: VecDeque<Reply>,
    received: Vec<Received>,
}

impl Receiver {
    /// Responds to every request with 200.
    pub async fn start() -> Self {
        Self::script([]).await
    }

    /// Follows a script, request by request, and then responds with 200.
    pub async fn script<const N: usize>(replies: [Reply; N]) -> Self {
        Self::listen("127.0.0.1", replies.into(), None).await
    }

    /// Responds to every request with 200, at this address of the machine.
    pub async fn start_at(host: &str) -> Self {
        Self::listen(host, VecDeque::new(), None).await
    }

    /// Responds to every request with 200, over TLS with this certificate for `localhost` and its
    /// key, as PEM.
    pub async fn with_certificate(certificate: &str, key: &str) -> Self {
        let tls = Some(acceptor(certificate, key));
        Self::listen("127.0.0.1", VecDeque::new(), tls).await
    }

    async fn listen(host: &str, script: VecDeque<Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((host, 0))
            .await
            .expect("the machine has this address, with free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let url = match tls {
            Some(_) => format!("https://localhost:{}/hook", address.port()),
            None => format!("http://{address}/hook"),
        };
        let received = Vec::new();
        let state = Arc::new(Mutex::new(State {
            script,
            afterwards: [Reply::Status(200)].into(),
            received,
        }));
        let server = tokio::spawn(serve(listener, state.clone(), tls)).abort_handle();
        Self { url, state, server }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Handles all requests after the script like this.
    pub fn answer_with(&self, reply: Reply) {
        self.answer_in_turn([reply]);
    }

    /// Handles all requests after the script like these, in turn.
    pub fn answer_in_turn<const N: usize>(&self, replies: [Reply; N]) {
        self.state.lock().afterwards = replies.into();
    }

    /// The number of requests so far.
    pub fn count(&self) -> usize {
        self.state.lock().received.len()
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().received.clone()
    }

    /// The requests that got a success status.
    pub fn accepted(&self) -> Vec<Received> {
        let succeeded = |received: &Received| {
            matches!(received.reply, Reply::Status(200..300) | Reply::Slow(_))
        };
        self.received().into_iter().filter(succeeded).collect()
    }

    /// For each accepted event: how often it was received, and the time of the first request.
    pub fn tally(&self) -> BTreeMap<String, (usize, Instant)> {
        let mut tally = BTreeMap::new();
        for received in self.accepted() {
            tally
                .entry(received.message())
                .or_insert((0, received.at))
                .0 += 1;
        }
        tally
    }

    /// Waits for at least `count` requests, and returns all of them.
    pub async fn receives(&self, count: usize) -> Vec<Received> {
        let what = format!("{} receives {count} requests", self.url);
        eventually(&what, async || {
            Some(self.received()).filter(|received| received.len() >= count)
        })
        .await
    }

    /// Waits until it accepted an event with this message.
    pub async fn accepts(&self, message: &str) -> Received {
        let what = format!("{} accepts the event {message:?}", self.url);
        eventually(&what, async || {
            self.accepted()
                .into_iter()
                .find(|received| received.message() == message)
        })
        .await
    }
}

impl State {
    fn next(&mut self) -> Reply {
        self.script.pop_front().unwrap_or_else(|| {
            self.afterwards.rotate_left(1);
            *self.afterwards.back().expect("there is at least one reply")
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            continue;
        };
        let state = state.clone();
        let service = service_fn(move |request| answer(request, state.clone()));
        let builder = hyper::server::conn::http1::Builder::new();
        // An error means that the script or the client closed the connection.
        match tls.clone() {
            None => {
                tokio::spawn(builder.serve_connection(TokioIo::new(connection), service));
            }
            Some(tls) => {
                tokio::spawn(async move {
                    if let Ok(connection) = tls.accept(connection).await {
                        let connection = TokioIo::new(connection);
                        let _ = builder.serve_connection(connection, service).await;
                    }
                });
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = {
        let mut state = state.lock();
        let reply = state.next();
        state.received.push(Received {
            at: Instant::now(),
            reply,
            target: format!("{} {}", head.method, head.uri.path()),
            headers: head.headers,
            body,
        });
        reply
    };
    let (status, retry_after) = match reply {
        Reply::Status(status) | Reply::Text(status, _) | Reply::Redirect(status, _) => {
            (status, None)
        }
        Reply::RetryAfter(status, seconds) => (status, Some(seconds)),
        Reply::Close => return Err(io::Error::other("the script closes the connection")),
        Reply::CloseHalfWay => {
            return Ok(half_a_response(stream::once(async {
                // The server sends the head and the first half when it must wait.
                tokio::task::yield_now().await;
                Err(io::Error::other("the script closes the connection"))
            })));
        }
        Reply::StallHalfWay => return Ok(half_a_response(stream::pending())),
        Reply::Stall => pending().await,
        Reply::Slow(time) => {
            tokio::time::sleep(time).await;
            (200, None)
        }
    };
    let mut response = Response::builder().status(status);
    if let Some(seconds) = retry_after {
        response = response.header("Retry-After", seconds);
    }
    if let Reply::Redirect(_, target) = reply {
        response = response.header("Location", target);
    }
    let text = match reply {
        Reply::Text(_, text) => text,
        _ if (200..300).contains(&status) && status != 204 => CONFIRMED,
        _ => "",
    };
    let body =
        Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {});
    Ok(response
        .body(body.boxed())
        .expect("the script's statuses are valid"))
}

/// A response that begins with a body of 1000 bytes and goes on with `rest`.
fn half_a_response(
    rest: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> Response<BoxBody<Bytes, io::Error>> {
    let half = Ok(Frame::data(Bytes::from_static(b"half")));
    let body = BodyExt::boxed(StreamBody::new(stream::iter([half]).chain(rest)));
    Response::builder()
        .header("Content-Length", 1000)
        .body(body)
        .expect("the response is valid")
}
