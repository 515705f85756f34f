//! Stands in for all services of a guide at once: it notes what it is asked, and is content.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use tidings_rig::eventually;

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

/// The services.
pub struct Services {
    /// Where they are: `http://127.0.0.1:PORT`.
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Services {
    pub async fn start() -> Self {
        let asked = Arc::default();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&asked));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback interface has free ports");
        let address = format!(
            "http://{}",
            listener.local_addr().expect("a listener has an address")
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// Waits for a request to a path, and gives the first one.
    pub async fn is_asked(&self, path: &str) -> Asked {
        eventually(&format!("{path} is asked"), async || {
            self.asked().into_iter().find(|asked| asked.path == path)
        })
        .await
    }

    /// All that write something, so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

/// A read finds an empty list, as GitHub says it where a commit has no status yet.
async fn answer(State(asked): State<Arc<Mutex<Vec<Asked>>>>, request: Request) -> Response {
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
    asked.lock().push(Asked {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
    });
    (StatusCode::OK, "ok").into_response()
}
