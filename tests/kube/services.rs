//! A fake server for all services of a guide. It accepts and records every request.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use tidings_rig::eventually;

/// A received request.
#[derive(Clone, Debug)]
pub struct ServiceRequest {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

/// The fake services.
pub struct Services {
    /// Their URL: `http://127.0.0.1:PORT`.
    pub address: String,
    requests: Arc<Mutex<Vec<ServiceRequest>>>,
}

impl Services {
    pub async fn start() -> Self {
        let requests = Arc::default();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&requests));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback interface has free ports");
        let address = format!(
            "http://{}",
            listener.local_addr().expect("a listener has an address")
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    /// Waits for a request to a path, and returns the first one.
    pub async fn receives(&self, path: &str) -> ServiceRequest {
        eventually(&format!("a request to {path}"), async || {
            self.requests()
                .into_iter()
                .find(|request| request.path == path)
        })
        .await
    }

    /// All requests so far, without reads.
    pub fn requests(&self) -> Vec<ServiceRequest> {
        self.requests.lock().clone()
    }
}

/// A read returns an empty list, as GitHub does for a commit without statuses.
async fn answer(
    State(requests): State<Arc<Mutex<Vec<ServiceRequest>>>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    if head.method == Method::GET {
        return "[]".into_response();
    }
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    requests.lock().push(ServiceRequest {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
    });
    (StatusCode::OK, "ok").into_response()
}
