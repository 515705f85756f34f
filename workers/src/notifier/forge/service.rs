//! A forge for tests on a loopback port. It answers by a script and records the calls.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, serve};
use parking_lot::Mutex;
use tidings_rules::ResolvedProvider;
use tokio::net::TcpListener;

use crate::http::Http;
use crate::notifier::contract::{KeepState, Notifier, ProviderType};
use crate::notifier::sample;

/// `METHOD /path?query` and the response to it: status, `Link` and body.
pub type Script = &'static [(&'static str, u16, &'static str, &'static str)];

/// A notifier for the repository `acme/deploy` of a scripted forge, and the calls that it makes.
pub async fn scripted(
    kind: &ProviderType,
    script: Script,
) -> (Box<dyn KeepState>, Arc<Mutex<Vec<String>>>) {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&calls);
    let app = Router::new().fallback(move |request: Request| {
        let call = format!("{} {}", request.method(), request.uri());
        let response = answer_to(&call, script);
        noted.lock().push(call);
        async move { response }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { serve(listener, app).await });
    let provider: ResolvedProvider = sample::provider(kind.kind, |provider| {
        provider.address = format!("http://{address}/acme/deploy");
        provider.secret = sample::secret(&[("token", "t")]);
    });
    let http = Http::new(&provider, &sample::http_clients())
        .unwrap()
        .confirmed_by(kind.confirmation);
    match (kind.build)(&provider, http).unwrap() {
        Notifier::State(notifier) => (notifier, calls),
        Notifier::Message(_) => panic!("{} keeps no state", kind.kind),
    }
}

fn answer_to(call: &str, script: Script) -> Response {
    let Some((_, status, link, body)) = script.iter().find(|(expected, ..)| *expected == call)
    else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = (StatusCode::from_u16(*status).unwrap(), *body).into_response();
    if !link.is_empty() {
        response
            .headers_mut()
            .insert("link", HeaderValue::from_static(link));
    }
    response
}
