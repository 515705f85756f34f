//! A fake internet: a proxy that responds for every host, and records all requests.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tidings_rig::Authority;
use tokio::net::TcpListener;

use crate::case::Rule;
use crate::script::Script;

/// One authority for all tests, since generating keys takes time.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// A received request.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub scheme: &'static str,
    pub host: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Whether it came through the Provider's proxy instead of that of the environment.
    pub via_proxy: bool,
    pub client_cert_cn: Option<String>,
}

impl Received {
    /// The values of a header, as text.
    pub fn header(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
            .collect()
    }
}

/// Two proxies that share one record: one for the environment, one for Providers with a proxy.
pub struct Sink {
    state: Arc<Mutex<State>>,
    /// The address for HTTP_PROXY and HTTPS_PROXY.
    pub environment: String,
    /// The address for manifests, without scheme.
    pub named: String,
}

#[derive(Default)]
struct State {
    script: Script,
    requests: Vec<Received>,
    errors: Vec<String>,
}

/// How a connection reached the sink, and its intended host.
#[derive(Clone)]
struct Route {
    state: Arc<Mutex<State>>,
    via_proxy: bool,
    /// Within a tunnel: the requested authority.
    tunnel: Option<String>,
    client_cert_cn: Option<String>,
}

impl Sink {
    pub async fn start() -> Self {
        let state = Arc::default();
        let environment = format!("http://{}", listen(&state, false).await);
        let named = listen(&state, true).await;
        Self {
            state,
            environment,
            named,
        }
    }

    /// Discards all requests, and responds by these rules.
    pub fn reset(&self, rules: &[Rule]) {
        *lock(&self.state) = State {
            script: Script::new(rules),
            ..State::default()
        };
    }

    /// All requests since the reset, including CONNECT.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.state).requests.clone()
    }

    /// Errors of the sink itself.
    pub fn errors(&self) -> Vec<String> {
        lock(&self.state).errors.clone()
    }
}

async fn listen(state: &Arc<Mutex<State>>, via_proxy: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the loopback interface has free ports");
    let address = listener
        .local_addr()
        .expect("a listener has an address")
        .to_string();
    let route = Route {
        state: state.clone(),
        via_proxy,
        tunnel: None,
        client_cert_cn: None,
    };
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let route = route.clone();
            let service = service_fn(move |request| handle(route.clone(), request));
            tokio::spawn(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service)
                    .with_upgrades(),
            );
        }
    });
    address
}

async fn handle(
    route: Route,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(if request.method() == Method::CONNECT {
        connect(route, request)
    } else {
        relay(route, request).await
    })
}

fn connect(route: Route, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let target = request.uri().to_string();
    if is_unresolvable(&target) {
        return answer(502, "the host name does not resolve");
    }
    if route.via_proxy {
        let headers = request.headers().clone();
        let method = "CONNECT".to_owned();
        let [path, query] = [String::new(), String::new()];
        let (body, host) = (Bytes::new(), target.clone());
        let received = Received {
            method,
            scheme: "http",
            host,
            path,
            query,
            headers,
            body,
            via_proxy: true,
            client_cert_cn: None,
        };
        lock(&route.state).requests.push(received);
    }
    tokio::spawn(async move {
        let state = route.state.clone();
        if let Err(error) = serve_tunnel(route, request, &target).await {
            lock(&state)
                .errors
                .push(format!("TLS with the client for {target} failed: {error}"));
        }
    });
    answer(200, "")
}

async fn serve_tunnel(
    route: Route,
    request: Request<Incoming>,
    target: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (host, port) = target.rsplit_once(':').unwrap_or((target, "443"));
    let connection = TokioIo::new(hyper::upgrade::on(request).await?);
    let connection = AUTHORITY
        .acceptor_for(host.trim_matches(['[', ']']))
        .accept(connection)
        .await?;
    let client = connection
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let client_cert_cn = client.map(|certificate| AUTHORITY.name_of(certificate));
    let tunnel = Some(if port == "443" {
        host.to_owned()
    } else {
        target.to_owned()
    });
    let route = Route {
        tunnel,
        client_cert_cn,
        ..route
    };
    let service = service_fn(move |request| handle(route.clone(), request));
    // An error is a connection that the client closed.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
    Ok(())
}

async fn relay(route: Route, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let named = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned);
    let host = named
        .or(route.tunnel.clone())
        .or(head.uri.authority().map(ToString::to_string))
        .unwrap_or_default();
    if is_unresolvable(&host) {
        return answer(502, "the host name does not resolve");
    }
    let Ok(body) = body.collect().await else {
        return answer(400, "the body ended early");
    };
    let received = Received {
        method: head.method.to_string(),
        scheme: if route.tunnel.is_some() {
            "https"
        } else {
            "http"
        },
        host,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
        via_proxy: route.via_proxy,
        client_cert_cn: route.client_cert_cn,
    };
    let mut state = lock(&route.state);
    let rule = state
        .script
        .pick(&received.method, &received.host, &received.path);
    state.requests.push(received);
    drop(state);
    let Some(rule) = rule else {
        return answer(404, "");
    };
    let mut response = Response::builder().status(rule.status);
    for (name, value) in &rule.headers {
        response = response.header(name, value);
    }
    response
        .body(Full::from(rule.body))
        .expect("the recorded response is valid")
}

fn answer(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from(body))
        .expect("the status is valid")
}

fn is_unresolvable(host: &str) -> bool {
    host.contains("nxdomain")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock()
}
