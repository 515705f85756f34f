//! Checks to which addresses requests are sent.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap fails the test; clippy.toml allows it only in test modules"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Received;
use axum::http::HeaderMap;
use axum::response::{AppendHeaders, IntoResponse};
use parking_lot::Mutex;
use reqwest::Method;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderName};
use serde_json::{Value, json};
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{Failure, FailureKind, Reason};
use tidings_rules::{Options, ResolvedProvider, Rules, testing};
use tidings_workers::http::{Http, HttpClients, Request, Response};
use tidings_workers::notifier::kinds;
use tokio::net::TcpListener;

/// The received requests: method, target and headers.
type Requests = Arc<Mutex<Vec<(Method, String, HeaderMap)>>>;

/// A service on its own port that answers with a redirect to `Location`, or with 200.
async fn service(
    location: impl Fn(&str) -> Option<String> + Clone + Send + Sync + 'static,
) -> (u16, Requests) {
    let seen = Requests::default();
    let noted = seen.clone();
    let app = Router::new().fallback(move |request: Received| {
        let target = request.uri().to_string();
        noted.lock().push((
            request.method().clone(),
            target.clone(),
            request.headers().clone(),
        ));
        let location = location(&target);
        async move {
            match location {
                Some(location) => (
                    StatusCode::TEMPORARY_REDIRECT,
                    AppendHeaders([("location", location)]),
                )
                    .into_response(),
                None => StatusCode::OK.into_response(),
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (port, seen)
}

fn addresses(allow: &[&str], loopback: bool) -> AddressSettings {
    let network = |address: &&str| address.parse::<std::net::IpAddr>().unwrap().into();
    AddressSettings {
        allow: allow.iter().map(network).collect(),
        deny: Vec::new(),
        loopback,
    }
}

/// The client of a generic Provider.
fn http(addresses: AddressSettings, spec: Value) -> Http {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Http::new(&provider(spec), &HttpClients::new(addresses).unwrap()).unwrap()
}

fn provider(more: Value) -> ResolvedProvider {
    let object = testing::provider("p", "generic")
        .with("address", "http://service.example")
        .with("timeout", "10s")
        .with_fields(more)
        .object();
    let rules = Rules::compile(&[object], kinds(), &Options::default());
    ResolvedProvider::clone(&rules.resolve("apps", "p").unwrap())
}

async fn get(http: &Http, url: String) -> Result<Response, Failure> {
    http.send(Request::new(Method::GET, url.parse().unwrap()))
        .await
}

/// Asserts that an address was refused, with an error that contains these words.
fn assert_refused(response: Result<Response, Failure>, words: &[&str]) {
    let failure = response.unwrap_err();
    assert_eq!(
        (failure.reason, failure.kind),
        (Reason::Misconfigured, FailureKind::Permanent),
        "{failure:?}"
    );
    assert!(
        words.iter().all(|word| failure.detail.contains(word)),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_name_is_refused_if_its_address_is_refused() {
    let (port, seen) = service(|_| None).await;
    let in_cluster = http(addresses(&[], false), json!({}));
    assert_refused(
        get(&in_cluster, format!("http://localhost:{port}/")).await,
        &["localhost", "on the worker's own machine"],
    );
    assert_refused(
        get(&in_cluster, format!("http://127.0.0.1:{port}/")).await,
        &["127.0.0.1", "worker.addresses.allow"],
    );
    assert!(seen.lock().is_empty());

    let http_clients = http(addresses(&[], true), json!({}));
    assert_eq!(
        get(&http_clients, format!("http://localhost:{port}/"))
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn metadata_services_are_refused_everywhere() {
    let anywhere = http(addresses(&[], true), json!({}));
    for (host, named) in [
        ("169.254.169.254", "169.254.169.254"),
        ("[fd00:ec2::254]", "fd00:ec2::254"),
        ("[::ffff:169.254.169.254]", "::ffff:"),
        ("metadata.google.internal", "metadata.google.internal"),
        ("0.0.0.0", "0.0.0.0"),
    ] {
        assert_refused(
            get(&anywhere, format!("http://{host}/latest/meta-data/")).await,
            &[named],
        );
    }
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_checked() {
    let (port, seen) = service(|_| None).await;
    for target in [
        format!("http://127.0.0.2:{port}/there"),
        "http://169.254.169.254/latest".to_owned(),
    ] {
        let (first, _) = service(move |_| Some(target.clone())).await;
        let only_one = http(addresses(&["127.0.0.1"], false), json!({}));
        assert_refused(
            get(&only_one, format!("http://127.0.0.1:{first}/")).await,
            &["was not called"],
        );
    }
    assert!(seen.lock().is_empty());
}

/// What a generic Provider with a proxy in its Secret gets from a target.
async fn get_through(proxy: String, target: &str) -> Result<Response, Failure> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http_clients = HttpClients::new(addresses(&[], false)).unwrap();
    let provider = testing::provider("p", "generic")
        .with("address", "http://service.example")
        .with("proxySecretRef", json!({"name": "proxy"}));
    let secret = testing::secret("proxy", json!({"address": proxy}));
    let objects = [provider, secret].map(testing::Manifest::object);
    let rules = Rules::compile(&objects, kinds(), &Options::default());
    let http = Http::new(&rules.resolve("apps", "p").unwrap(), &http_clients);
    let http = http.map_err(|error| Failure::permanent(Reason::Misconfigured, error.0))?;
    get(&http, target.to_owned()).await
}

#[tokio::test]
async fn the_proxy_of_a_provider_is_checked_like_a_service() {
    let (port, seen) = service(|_| None).await;
    let hosts = [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "LOCALHOST",
    ];
    for scheme in ["http", "https", "socks5"] {
        for host in hosts {
            for target in ["http://192.0.2.1/hook", "https://192.0.2.1/hook"] {
                let response = get_through(format!("{scheme}://{host}:{port}"), target).await;
                let field = "spec.proxySecretRef, the key address: the proxy";
                assert_refused(response, &[field, "own machine", "worker.addresses.allow"]);
            }
        }
    }
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn an_allowed_proxy_of_a_provider_reaches_no_refused_service() {
    let (port, seen) = service(|target| {
        target
            .ends_with("/away")
            .then(|| "http://169.254.169.254/latest".to_owned())
    })
    .await;
    let through = http(
        addresses(&["127.0.0.1"], false),
        json!({"proxy": format!("http://127.0.0.1:{port}")}),
    );
    // Only the proxy knows this name.
    let response = get(&through, "http://service.invalid/hook".to_owned()).await;
    assert_eq!(response.unwrap().status, 200);
    assert_eq!(seen.lock().pop().unwrap().1, "http://service.invalid/hook");
    for (target, words) in [
        ("http://169.254.169.254/", ["169.254.169.254", "metadata"]),
        ("http://127.0.0.2:9/", ["127.0.0.2", "own machine"]),
        (
            "http://metadata.google.internal/",
            ["metadata.google.internal", "metadata"],
        ),
    ] {
        assert_refused(get(&through, target.to_owned()).await, &words);
    }
    assert!(seen.lock().is_empty());
    // A redirect is checked, too.
    assert_refused(
        get(&through, "http://service.invalid/away".to_owned()).await,
        &["169.254.169.254", "metadata"],
    );
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test]
async fn a_name_behind_a_proxy_is_refused_if_all_its_addresses_here_are_refused() {
    let (port, seen) = service(|_| None).await;
    let through = http(
        addresses(&["127.0.0.2"], false),
        json!({"proxy": format!("http://127.0.0.2:{port}")}),
    );
    assert_refused(
        get(&through, "http://localhost/".to_owned()).await,
        &["localhost was not called", "own machine"],
    );
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn secrets_are_not_sent_to_another_host() {
    let (other, seen_there) = service(|_| None).await;
    let (port, seen) = service(move |target| match target {
        "/away" => Some(format!("http://localhost:{other}/there")),
        "/here" => Some("/on".to_owned()),
        _ => None,
    })
    .await;
    let http = http(addresses(&[], true), json!({}));
    let request = |path: &str| {
        let request = Request::new(
            Method::POST,
            format!("http://127.0.0.1:{port}{path}").parse().unwrap(),
        );
        let secret = request
            .bearer("t0ken")
            .secret_header(HeaderName::from_static("x-api-key"), "k3y");
        secret
            .header("x-plain", "plain")
            .body("text/plain", b"body".to_vec())
    };

    http.send(request("/away")).await.unwrap();
    let (method, target, headers) = seen_there.lock().pop().unwrap();
    assert_eq!((method, target.as_str()), (Method::POST, "/there"));
    assert_eq!(headers["x-plain"], "plain");
    assert!(
        !headers.contains_key(AUTHORIZATION) && !headers.contains_key("x-api-key"),
        "{headers:?}"
    );

    http.send(request("/here")).await.unwrap();
    let (_, target, headers) = seen.lock().pop().unwrap();
    assert_eq!(target, "/on");
    assert_eq!(
        (&headers[AUTHORIZATION], &headers["x-api-key"]),
        (&"Bearer t0ken".parse().unwrap(), &"k3y".parse().unwrap())
    );
}

#[tokio::test]
async fn the_sixth_redirect_is_not_followed() {
    let (port, seen) = service(|target| {
        let left: u8 = target[1..].parse().ok()?;
        Some(format!("/{}", left.checked_sub(1)?))
    })
    .await;
    let http = http(addresses(&[], true), json!({"timeout": "30s"}));
    assert_eq!(
        get(&http, format!("http://127.0.0.1:{port}/5"))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(seen.lock().drain(..).count(), 6);
    let failure = get(&http, format!("http://127.0.0.1:{port}/6"))
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, failure.kind),
        (Reason::Rejected, FailureKind::Permanent)
    );
    assert_eq!(seen.lock().len(), 6);
}

#[tokio::test]
async fn a_response_is_read_up_to_a_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(|| async { vec![b'x'; 20 << 20] });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let http = http(addresses(&[], true), json!({"timeout": "60s"}));
    let response = tokio::time::timeout(
        Duration::from_secs(60),
        get(&http, format!("http://{address}/")),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(response.body.len(), 8 << 20);
}
