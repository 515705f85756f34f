//! Tests the event endpoint over real HTTP, with a scripted store.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tidings_core::Event;
use tidings_core::runtime::codes::http as codes;
use tidings_core::runtime::health::Health;
use tidings_core::runtime::http_server::connections::Connections;
use tidings_core::runtime::http_server::serve;
use tidings_core::runtime::metrics::{Gauge, Metrics};
use tidings_ingest::authentication::{Authentication, KubernetesReviewer, Reviews, Users};
use tidings_ingest::{
    BodyBudget, EventStore, Ingest, RequestOutcome, StoreAck, StoreError, StoreErrorReason, router,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const EVENT: &str = r#"{"involvedObject":{"kind":"Kustomization","name":"apps"},"message":"done"}"#;
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
const MEMORY_FOR_BODIES: usize = 4 * MAX_BODY_BYTES;
const MAX_CONNECTIONS: usize = 64;

/// Returns scripted results, then [`StoreAck::New`]. Each call takes a permit of the gate.
#[derive(Clone)]
struct ScriptedStore {
    script: Arc<Mutex<VecDeque<Result<StoreAck, StoreError>>>>,
    gate: Arc<Semaphore>,
    called: mpsc::UnboundedSender<Event>,
}

impl EventStore for ScriptedStore {
    async fn store(&self, event: Event) -> Result<StoreAck, StoreError> {
        self.called.send(event).unwrap();
        self.gate.acquire().await.unwrap().forget();
        self.script
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Ok(StoreAck::New))
    }
}

struct Rig {
    address: SocketAddr,
    gate: Arc<Semaphore>,
    stored: mpsc::UnboundedReceiver<Event>,
    outcomes: mpsc::UnboundedReceiver<RequestOutcome>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    bodies: Gauge,
    connections: Gauge,
    metrics: Metrics,
}

/// Something of an endpoint, the gate of its store, what it stores, and how requests end.
type Endpoint<T> = (
    T,
    Arc<Semaphore>,
    mpsc::UnboundedReceiver<Event>,
    mpsc::UnboundedReceiver<RequestOutcome>,
);

fn endpoint(
    script: impl IntoIterator<Item = Result<StoreAck, StoreError>>,
    permits: usize,
    bodies: &Gauge,
) -> Endpoint<axum::Router> {
    let (ingest, gate, stored, outcomes) = ingest(script, permits, bodies);
    (router(ingest), gate, stored, outcomes)
}

fn ingest(
    script: impl IntoIterator<Item = Result<StoreAck, StoreError>>,
    permits: usize,
    bodies: &Gauge,
) -> Endpoint<Ingest<ScriptedStore>> {
    let (called, stored) = mpsc::unbounded_channel();
    let (observed, outcomes) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(permits));
    let store = ScriptedStore {
        script: Arc::new(Mutex::new(script.into_iter().collect())),
        gate: gate.clone(),
        called,
    };
    let ingest = Ingest {
        store,
        authentication: None,
        cluster: "eu-1".to_owned(),
        objects: None,
        tee: None,
        bodies: BodyBudget::new(MEMORY_FOR_BODIES, bodies.clone()),
        events: Arc::new(Semaphore::new(64 << 10)),
        dedupe_interval: Duration::from_secs(300),
        observe: Box::new(move |outcome| observed.send(*outcome).unwrap()),
    };
    (ingest, gate, stored, outcomes)
}

impl Rig {
    async fn start(
        script: impl IntoIterator<Item = Result<StoreAck, StoreError>>,
        permits: usize,
    ) -> Self {
        let bodies = Gauge::default();
        let (router, gate, stored, outcomes) = endpoint(script, permits, &bodies);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (connections, metrics) = (Gauge::default(), Metrics::default());
        let limited = Connections::new(MAX_CONNECTIONS, connections.clone());
        let serving = serve(listener, router, limited, metrics.clone(), shutdown.clone());
        let server = tokio::spawn(serving);
        Self {
            address,
            gate,
            stored,
            outcomes,
            shutdown,
            server,
            bodies,
            connections,
            metrics,
        }
    }

    async fn send(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head}\r\nHost: tidings\r\nConnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(body).await.unwrap();
        connection
    }

    async fn exchange(&self, head: &str, body: &[u8]) -> String {
        read_response(self.send(head, body).await).await
    }

    async fn post(&self, body: &str) -> String {
        self.exchange(
            &format!("POST / HTTP/1.1\r\nContent-Length: {}", body.len()),
            body.as_bytes(),
        )
        .await
    }
}

async fn read_response(mut connection: TcpStream) -> String {
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    response
}

fn error_code(response: &str) -> String {
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(!body["error"].as_str().unwrap().is_empty(), "{body}");
    body["code"].as_str().unwrap().to_owned()
}

fn store_error(reason: StoreErrorReason) -> Result<StoreAck, StoreError> {
    Err(StoreError {
        reason,
        retry_after: Duration::from_millis(1500),
        detail: "no answer".to_owned(),
    })
}

fn padded(size: usize) -> Vec<u8> {
    let mut body = EVENT.as_bytes().to_vec();
    body.resize(size, b' ');
    body
}

#[tokio::test]
async fn an_event_is_accepted_once_it_is_stored() {
    let mut rig = Rig::start([], 1).await;
    let response = rig.post(EVENT).await;
    assert!(
        response.starts_with("HTTP/1.1 202 Accepted\r\n") && response.ends_with("\r\n\r\n"),
        "{response}"
    );
    let event = rig.stored.recv().await.unwrap();
    assert_eq!(
        (&*event.cluster, &*event.message, event.id.len()),
        ("eu-1", "done", 32)
    );
    assert_eq!(rig.outcomes.recv().await, Some(RequestOutcome::Accepted));
}

#[tokio::test]
async fn each_store_result_has_its_status_and_code() {
    let too_large = StoreErrorReason::TooLarge { limit: 1_048_576 };
    for (stored, status, header, code, outcome) in [
        (
            Ok(StoreAck::Duplicate),
            "429",
            "\r\nretry-after: 300\r\n",
            codes::DUPLICATE_EVENT,
            RequestOutcome::Duplicate,
        ),
        (
            store_error(StoreErrorReason::Unavailable),
            "503",
            "\r\nretry-after: 2\r\n",
            codes::BUS_UNAVAILABLE,
            RequestOutcome::NotStored,
        ),
        (
            store_error(StoreErrorReason::StorageFull),
            "503",
            "\r\nretry-after: 2\r\n",
            codes::STORAGE_FULL,
            RequestOutcome::NotStored,
        ),
        (
            store_error(StoreErrorReason::Retention),
            "503",
            "\r\nretry-after: 2\r\n",
            codes::ROUTER_BEHIND,
            RequestOutcome::NotStored,
        ),
        (
            store_error(StoreErrorReason::Quota),
            "503",
            "\r\nretry-after: 2\r\n",
            codes::QUOTA_EXCEEDED,
            RequestOutcome::NotStored,
        ),
        (
            store_error(too_large),
            "413",
            "",
            codes::EVENT_TOO_LARGE,
            RequestOutcome::TooLarge,
        ),
    ] {
        let mut rig = Rig::start([stored], 1).await;
        let response = rig.post(EVENT).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")) && response.contains(header),
            "{status} {header}: {response}"
        );
        assert_eq!(error_code(&response), code);
        assert_eq!(rig.outcomes.recv().await, Some(outcome));
    }
}

#[tokio::test]
async fn an_invalid_request_is_rejected_with_a_code() {
    let mut rig = Rig::start([], 0).await;
    let length = EVENT.len();
    let with_length = |head: &str| format!("{head} HTTP/1.1\r\nContent-Length: {length}");
    for (head, body, status, code) in [
        (
            with_length("POST /"),
            EVENT.replace("kind", "king"),
            "400",
            codes::INVALID_EVENT,
        ),
        (
            "POST / HTTP/1.1".to_owned(),
            String::new(),
            "400",
            codes::INVALID_EVENT,
        ),
        (
            with_length("PUT /"),
            EVENT.to_owned(),
            "405",
            codes::METHOD_NOT_ALLOWED,
        ),
        (
            "REPORT / HTTP/1.1".to_owned(),
            String::new(),
            "405",
            codes::METHOD_NOT_ALLOWED,
        ),
        (
            with_length("POST /events/"),
            EVENT.to_owned(),
            "404",
            codes::NOT_FOUND,
        ),
        (
            "GET /healthz HTTP/1.1".to_owned(),
            String::new(),
            "404",
            codes::NOT_FOUND,
        ),
    ] {
        let response = rig.exchange(&head, body.as_bytes()).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}: {response}"
        );
        assert_eq!(
            response.contains("\r\nallow: POST\r\n"),
            status == "405",
            "{head}: {response}"
        );
        assert_eq!(error_code(&response), code, "{head}");
        assert_eq!(
            rig.outcomes.recv().await,
            Some(RequestOutcome::Invalid),
            "{head}"
        );
    }
    assert!(rig.stored.is_empty());
}

#[tokio::test]
async fn a_head_request_is_rejected_without_a_body() {
    let mut rig = Rig::start([], 0).await;
    let response = rig.exchange("HEAD / HTTP/1.1", b"").await;
    assert!(
        response.starts_with("HTTP/1.1 405 ") && response.ends_with("\r\n\r\n"),
        "{response}"
    );
    assert_eq!(rig.outcomes.recv().await, Some(RequestOutcome::Invalid));
}

#[tokio::test]
async fn a_body_is_limited_to_three_mebibytes() {
    let mut rig = Rig::start([], 2).await;
    for (size, status, outcome) in [
        (MAX_BODY_BYTES, "202", RequestOutcome::Accepted),
        (MAX_BODY_BYTES + 1, "413", RequestOutcome::TooLarge),
    ] {
        let body = padded(size);
        let plain = rig
            .exchange(
                &format!("POST /?x=1 HTTP/1.1\r\nContent-Length: {size}"),
                &body,
            )
            .await;
        assert!(
            plain.starts_with(&format!("HTTP/1.1 {status} ")),
            "{size}: {plain}"
        );
        assert_eq!(rig.outcomes.recv().await, Some(outcome));

        let chunks = [format!("{size:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        let chunked = rig
            .exchange("POST / HTTP/1.1\r\nTransfer-Encoding: chunked", &chunks)
            .await;
        assert!(
            chunked.starts_with(&format!("HTTP/1.1 {status} ")),
            "{size} chunked: {chunked}"
        );
        assert_eq!(rig.outcomes.recv().await, Some(outcome));
    }
}

#[tokio::test]
async fn a_sender_that_disconnects_is_counted() {
    let mut rig = Rig::start([], 0).await;
    let connection = rig
        .send(
            &format!("POST / HTTP/1.1\r\nContent-Length: {}", EVENT.len()),
            EVENT.as_bytes(),
        )
        .await;
    rig.stored.recv().await.unwrap();
    drop(connection);
    assert_eq!(rig.outcomes.recv().await, Some(RequestOutcome::Abandoned));
}

#[tokio::test]
async fn a_shutdown_completes_open_requests_and_accepts_no_more() {
    let mut rig = Rig::start([], 0).await;
    let connection = rig
        .send(
            &format!("POST / HTTP/1.1\r\nContent-Length: {}", EVENT.len()),
            EVENT.as_bytes(),
        )
        .await;
    rig.stored.recv().await.unwrap();
    let mut idle = TcpStream::connect(rig.address).await.unwrap();
    idle.write_all(b"GET /kept-alive HTTP/1.1\r\nHost: tidings\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(rig.outcomes.recv().await, Some(RequestOutcome::Invalid));
    rig.shutdown.cancel();
    assert!(read_response(idle).await.starts_with("HTTP/1.1 404 "));
    rig.gate.add_permits(1);
    assert!(read_response(connection).await.starts_with("HTTP/1.1 202 "));
    rig.server.await.unwrap();
    assert!(TcpStream::connect(rig.address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_confirm_in_time_is_reported_as_unavailable() {
    let (router, _gate, _stored, mut outcomes) = endpoint([], 0, &Gauge::default());
    let request = Request::post("/").body(Body::from(EVENT)).unwrap();
    let started = tokio::time::Instant::now();
    let response = TowerToHyperService::new(router)
        .call(request)
        .await
        .unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["retry-after"]
        ),
        (503, &"1".parse().unwrap())
    );
    assert_eq!(started.elapsed().as_secs(), 4);
    assert_eq!(outcomes.recv().await, Some(RequestOutcome::NotStored));
}

/// A Kubernetes API that accepts every token of the audience `tidings`, after a pause.
fn slow_reviews(pause: Duration) -> Authentication<KubernetesReviewer> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {
            "authenticated": true, "audiences": ["tidings"], "user": {"username": "flux"},
        },
    });
    let api = axum::Router::new().fallback(async move || {
        tokio::time::sleep(pause).await;
        review.to_string()
    });
    let client = kube::Client::new(api, "default");
    let reviewer = KubernetesReviewer::new(client, vec!["tidings".to_owned()]);
    let check = Health::default().check("reviews", None);
    let reviews = Reviews::new(reviewer, Users::new(&[]), check);
    Authentication::new(None, Some(Arc::new(reviews)), Default::default())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_authentication_counts_toward_the_time_of_the_answer() {
    let (ingest, _gate, _stored, mut outcomes) = ingest([], 0, &Gauge::default());
    let router = router(Ingest {
        authentication: Some(slow_reviews(Duration::from_millis(1_500))),
        ..ingest
    });
    let claims = URL_SAFE_NO_PAD.encode(r#"{"aud":"tidings"}"#);
    let request = Request::post("/").header("authorization", format!("Bearer e30.{claims}.c2ln"));
    let request = request.body(Body::from(EVENT)).unwrap();
    let started = tokio::time::Instant::now();
    let response = TowerToHyperService::new(router)
        .call(request)
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(started.elapsed().as_secs(), 4);
    assert_eq!(outcomes.recv().await, Some(RequestOutcome::NotStored));
}

/// Sends a part of a large body, and no more.
async fn stall(rig: &Rig) -> TcpStream {
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES}");
    rig.send(&head, &padded(MAX_BODY_BYTES - 100_000)).await
}

/// The response if there is one now or soon; `None` if the server still waits.
async fn response_soon(connection: &mut TcpStream) -> Option<String> {
    let mut response = [0; 1024];
    let read = tokio::time::timeout(Duration::from_millis(10), connection.read(&mut response));
    let bytes = read.await.ok()?.unwrap_or_default();
    Some(String::from_utf8_lossy(&response[..bytes]).into_owned())
}

#[tokio::test]
async fn stalled_senders_are_refused_beyond_the_memory_and_small_events_are_accepted() {
    let rig = Rig::start([], 1000).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(stall(&rig).await);
    }
    assert!(rig.bodies.get() <= i64::try_from(MEMORY_FOR_BODIES).unwrap());
    let response = rig.post(EVENT).await;
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");

    let mut refused = Vec::new();
    while refused.len() < 16 {
        for connection in &mut stalled {
            refused.extend(
                response_soon(connection)
                    .await
                    .filter(|text| !text.is_empty()),
            );
        }
    }
    for response in &refused {
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        assert!(response.contains("\r\nretry-after: 2\r\n"), "{response}");
        assert_eq!(error_code(response), codes::MEMORY_FULL);
    }
    // A sender that stalls for a second gives way to one that sends.
    let body = padded(MAX_BODY_BYTES);
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES}");
    while !rig
        .exchange(&head, &body)
        .await
        .starts_with("HTTP/1.1 202 ")
    {}
    drop(stalled);
    while rig.bodies.get() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_event_is_accepted_while_slow_connections_take_all_places() {
    let rig = Rig::start([], 1000).await;
    let mut slow = Vec::new();
    for number in 0..4 * MAX_CONNECTIONS {
        let mut connection = TcpStream::connect(rig.address).await.unwrap();
        let part = [
            "",
            "POST / HT",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        ];
        connection
            .write_all(part[number % 3].as_bytes())
            .await
            .unwrap();
        slow.push(connection);
        if number % MAX_CONNECTIONS == 0 {
            let response = rig.post(EVENT).await;
            assert!(
                response.starts_with("HTTP/1.1 202 "),
                "{number}: {response}"
            );
        }
    }
    assert!(rig.connections.get() <= i64::try_from(MAX_CONNECTIONS).unwrap());
    let response = rig.post(EVENT).await;
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    let closed = rig.metrics.http_connections_closed_total.get();
    assert!(
        closed >= u64::try_from(2 * MAX_CONNECTIONS).unwrap(),
        "{closed}"
    );
}

#[tokio::test]
async fn requests_that_are_handled_are_not_closed_for_new_connections() {
    let mut rig = Rig::start([], 0).await;
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {}", EVENT.len());
    let mut handled = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        handled.push(rig.send(&head, EVENT.as_bytes()).await);
        rig.stored.recv().await.unwrap();
    }
    let mut refused = TcpStream::connect(rig.address).await.unwrap();
    let mut response = String::new();
    refused.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.contains("retry-after: 1"), "{response}");
    rig.gate.add_permits(MAX_CONNECTIONS);
    for connection in handled {
        assert!(read_response(connection).await.starts_with("HTTP/1.1 202 "));
    }
}

#[tokio::test]
async fn headers_are_limited_in_bytes_and_number() {
    let rig = Rig::start([], 1000).await;
    let length = format!("POST / HTTP/1.1\r\nContent-Length: {}", EVENT.len());
    for (headers, status) in [
        (format!("\r\nX: {}", "x".repeat(15_000)), "202"),
        (format!("\r\nX: {}", "x".repeat(17_000)), "431"),
        ("\r\nX: x".repeat(90), "202"),
        ("\r\nX: x".repeat(101), "431"),
    ] {
        let response = rig
            .exchange(&format!("{length}{headers}"), EVENT.as_bytes())
            .await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {response}"
        );
    }
}
