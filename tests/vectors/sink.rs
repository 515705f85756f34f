//! Stands for the whole http_clients: a proxy that answers for every host, and records what it was
//! asked.

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

/// One authority for all tests: making keys takes time.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub scheme: &'static str,
    pub host: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Through the proxy that the Provider names, not that of the environment.
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

/// Two proxies that share one record: one for the environment, one for Providers that name a proxy.
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
    troubles: Vec<String>,
}

/// How a connection came to us, and whom it thinks it speaks to.
#[derive(Clone)]
struct Leg {
    state: Arc<Mutex<State>>,
    via_proxy: bool,
    /// Within a tunnel: the authority that was asked for.
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

    /// Forgets everything, and answers by other rules.
    pub fn reset(&self, rules: &[Rule]) {
        *lock(&self.state) = State {
            script: Script::new(rules),
            ..State::default()
        };
    }

    /// All requests since, CONNECT among them.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.state).requests.clone()
    }

    /// What went wrong on our side.
    pub fn troubles(&self) -> Vec<String> {
        lock(&self.state).troubles.clone()
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
    let leg = Leg {
        state: state.clone(),
        via_proxy,
        tunnel: None,
        client_cert_cn: None,
    };
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let leg = leg.clone();
            let service = service_fn(move |request| handle(leg.clone(), request));
            tokio::spawn(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service)
                    .with_upgrades(),
            );
        }
    });
    address
}

async fn handle(leg: Leg, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(if request.method() == Method::CONNECT {
        connect(leg, request)
    } else {
        relay(leg, request).await
    })
}

fn connect(leg: Leg, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let target = request.uri().to_string();
    if is_unresolvable(&target) {
        return answer(502, "the host name does not resolve");
    }
    if leg.via_proxy {
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
        lock(&leg.state).requests.push(received);
    }
    tokio::spawn(async move {
        let state = leg.state.clone();
        if let Err(error) = serve_tunnel(leg, request, &target).await {
            lock(&state)
                .troubles
                .push(format!("TLS with the client for {target} failed: {error}"));
        }
    });
    answer(200, "")
}

async fn serve_tunnel(
    leg: Leg,
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
    let leg = Leg {
        tunnel,
        client_cert_cn,
        ..leg
    };
    let service = service_fn(move |request| handle(leg.clone(), request));
    // An error here is a connection that the client closed.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
    Ok(())
}

async fn relay(leg: Leg, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let named = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned);
    let host = named
        .or(leg.tunnel.clone())
        .or(head.uri.authority().map(ToString::to_string))
        .unwrap_or_default();
    if is_unresolvable(&host) {
        return answer(502, "the host name does not resolve");
    }
    let Ok(body) = body.collect().await else {
        return answer(400, "the body broke off");
    };
    let received = Received {
        method: head.method.to_string(),
        scheme: if leg.tunnel.is_some() {
            "https"
        } else {
            "http"
        },
        host,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
        via_proxy: leg.via_proxy,
        client_cert_cn: leg.client_cert_cn,
    };
    let mut state = lock(&leg.state);
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
        .expect("the recorded answer is valid")
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
