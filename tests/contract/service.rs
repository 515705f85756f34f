//! All services in one: a proxy that responds for every host with a scripted behavior.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::json;
use tidings_rig::Authority;
use tokio::net::TcpListener;

/// One authority for all tests, since generating keys takes time.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);
/// The key of Google's service accounts.
pub static RSA_KEY: LazyLock<String> = LazyLock::new(|| {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        .expect("the machine has randomness")
        .serialize_pem()
});

/// The behavior of all services.
#[derive(Clone, Debug)]
pub enum Behavior {
    /// They respond like healthy services.
    Healthy,
    /// They respond to reads like healthy services, and to writes with this response.
    Writes(Reply),
    /// They respond to everything with this response.
    All(Reply),
    /// They respond to requests for this path, and redirect all others to it with this status.
    Redirect(u16, &'static str),
    /// They respond to reads like healthy services, and accept writes with this status.
    Accepts(u16),
    /// They respond with this status, and with a body that breaks in this way.
    Broken(u16, Break),
    /// They respond with this status, and with the request as the body.
    Echo(u16),
    /// They read the request and never respond.
    Stall,
    /// They respond with an endless body.
    Endless(Pace),
}

/// The speed of an endless body: a byte at a time, or as fast as possible.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    Trickle,
    Flood,
}

/// How a body breaks after its first bytes.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    /// The connection closes before the length of the header.
    CutOff,
    /// The rest never comes.
    Hangs,
    /// It is not compressed as the header says.
    NoGzip,
    /// The connection closes before the last chunk.
    CutChunks,
}

/// A scripted response.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// A response with this status and a short text.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: b"as the test says".to_vec(),
        }
    }
}

/// A request as the service received it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub struct Service {
    /// The address of the proxy.
    pub proxy: String,
    state: Arc<Mutex<State>>,
}

struct State {
    behavior: Behavior,
    received: Vec<Received>,
}

type Body = BoxBody<Bytes, io::Error>;

impl Service {
    /// Starts with this behavior.
    pub async fn start(behavior: Behavior) -> Self {
        let state = Arc::new(Mutex::new(State {
            behavior,
            received: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback interface has free ports");
        let proxy = format!(
            "http://{}",
            listener.local_addr().expect("a listener has an address")
        );
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| connect(request, state.clone()));
                tokio::spawn(
                    http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .with_upgrades(),
                );
            }
        });
        Self { proxy, state }
    }

    /// Changes the behavior.
    pub fn behave(&self, behavior: Behavior) {
        self.state.lock().behavior = behavior;
    }

    /// The requests since the last call.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.state.lock().received)
    }
}

/// Opens a tunnel to the service.
async fn connect(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, Infallible> {
    if request.method() != Method::CONNECT {
        return Ok(answer(
            405,
            &[],
            b"the services of the examples speak TLS".to_vec(),
        ));
    }
    let host = request.uri().host().unwrap_or_default().to_owned();
    tokio::spawn(async move {
        let connection = TokioIo::new(hyper::upgrade::on(request).await?);
        let connection = TokioIo::new(AUTHORITY.acceptor_for(&host).accept(connection).await?);
        let service = service_fn(move |request| serve(request, state.clone()));
        http1::Builder::new()
            .serve_connection(connection, service)
            .await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    Ok(answer(200, &[], Vec::new()))
}

async fn serve(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let host = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let url = format!("https://{host}{}", head.uri);
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let received = Received {
        method: head.method,
        url,
        headers: head.headers,
        body,
    };
    let behavior = {
        let mut state = state.lock();
        state.received.push(received.clone());
        state.behavior.clone()
    };
    let is_write = received.method != Method::GET && received.method != Method::OPTIONS;
    Ok(match behavior {
        Behavior::Writes(reply) if is_write => reply_with(&reply),
        Behavior::All(reply) => reply_with(&reply),
        Behavior::Redirect(status, target) if !received.url.contains(target) => answer(
            status,
            &[("location", &format!("https://elsewhere.example{target}"))],
            Vec::new(),
        ),
        Behavior::Accepts(status) if is_write => accepted(status, &received),
        Behavior::Broken(status, how) => broken(status, how),
        Behavior::Healthy | Behavior::Accepts(_) | Behavior::Writes(_) | Behavior::Redirect(..) => {
            healthy(&received)
        }
        Behavior::Echo(status) => answer(status, &[], format!("{received:?}").into_bytes()),
        Behavior::Stall => pending().await,
        Behavior::Endless(pace) => Response::new(endless(pace)),
    })
}

/// A response of a healthy service, which is valid for every type.
fn healthy(received: &Received) -> Response<Body> {
    let path = received.url.split(['?']).next().unwrap_or_default();
    let json = |status, document: serde_json::Value| {
        answer(status, &[], document.to_string().into_bytes())
    };
    let route = "{project}/_apis/{area}/repositories/{repositoryId}/commits/{commitId}/{resource}";
    match received.method.as_str() {
        "OPTIONS" => json(
            200,
            json!({"value": [
                {"id": "428dd4fb-fda5-4722-af02-9313b80305da", "routeTemplate": route},
            ]}),
        ),
        "GET" if path.ends_with("/version") => json(200, json!({"version": "1.22.0"})),
        "GET" if path.ends_with("/user") => {
            json(200, json!({"id": 1, "login": "bot", "username": "bot"}))
        }
        "GET" if path.contains("/statuses/build/") || path.ends_with("/builds") => {
            answer(404, &[], Vec::new())
        }
        "GET" if path.contains("/_apis/") => json(200, json!({"value": []})),
        "GET" => json(200, json!([])),
        _ if path.ends_with("/v1/traces") => answer(200, &[], Vec::new()),
        _ => accepted(202, received),
    }
}

/// The members with which the services of all types accept a write.
fn accepted(status: u16, received: &Received) -> Response<Body> {
    let has_no_body = ["/builds", "/dispatches"];
    if has_no_body.iter().any(|path| received.url.ends_with(path)) {
        return answer(status, &[], Vec::new());
    }
    let is_datadog = received.url.contains("/api/v1/events");
    let document = json!({
        "id": 1, "code": 0, "ok": true, "success": true, "result": "success", "requestId": "r",
        "status": if is_datadog { "ok" } else { "success" }, "name": "n", "message": "m",
        "event_id": "e", "messageIds": ["1"], "key": "k", "state": "SUCCESSFUL",
    });
    answer(status, &[], document.to_string().into_bytes())
}

fn broken(status: u16, how: Break) -> Response<Body> {
    let begin = Ok(Frame::data(Bytes::from_static(b"{\"")));
    let response = Response::builder().status(status);
    let response = match how {
        Break::CutOff | Break::Hangs => response.header("content-length", "100"),
        Break::NoGzip => response.header("content-encoding", "gzip"),
        Break::CutChunks => response,
    };
    let rest = stream::once(async move {
        // The server sends the head and the first bytes when it must wait.
        tokio::task::yield_now().await;
        match how {
            Break::Hangs => pending().await,
            Break::NoGzip => Ok(Frame::data(Bytes::new())),
            Break::CutOff | Break::CutChunks => {
                Err(io::Error::other("the test closes the connection"))
            }
        }
    });
    let body = StreamBody::new(stream::iter([begin]).chain(rest));
    response
        .body(BodyExt::boxed(body))
        .expect("the test's response is valid")
}

fn reply_with(reply: &Reply) -> Response<Body> {
    answer(reply.status, &reply.headers, reply.body.clone())
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: Vec<u8>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response
        .body(BodyExt::boxed(
            Full::from(body).map_err(|never| match never {}),
        ))
        .expect("the test's response is valid")
}

fn endless(pace: Pace) -> Body {
    let pieces = stream::unfold((), move |()| async move {
        let piece = match pace {
            Pace::Trickle => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Bytes::from_static(b" ")
            }
            Pace::Flood => Bytes::from_static(&[b'x'; 64 << 10]),
        };
        Some((Ok(Frame::data(piece)), ()))
    });
    BodyExt::boxed(StreamBody::new(pieces))
}
