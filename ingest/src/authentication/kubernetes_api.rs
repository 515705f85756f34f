//! Reviews that the Kubernetes API makes: a request is created, and its answer has the result.
//!
//! The request is sent and read here, because the client of `kube` logs answers that it cannot
//! decode, and the answer to a TokenReview repeats the token.

use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest answer. It lists the groups of the user.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// A kind of review.
pub struct ReviewKind {
    /// The path of the resource.
    pub path: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The resource with its group, as a role names it.
    pub resource: &'static str,
}

/// Asks for a review.
///
/// # Errors
/// There is no answer, or it is not a review. The text never quotes the request.
pub async fn ask<T: Serialize + DeserializeOwned>(
    client: &Client,
    kind: &ReviewKind,
    review: &T,
) -> Result<T, String> {
    let body = serde_json::to_vec(review).ok();
    let request = Request::post(kind.path).header(CONTENT_TYPE, "application/json");
    let request = body.and_then(|body| request.body(Body::from(body)).ok());
    let request = request.ok_or("the request cannot be written".to_owned())?;
    let sent = client.send(request).await;
    let answer = sent.map_err(|error| format!("the Kubernetes API cannot be asked: {error}"))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(rejected(status, kind));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await;
    let body = body.map_err(|_| "the answer of the Kubernetes API ended early".to_owned())?;
    let kind = kind.kind;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| format!("the answer of the Kubernetes API is not a {kind}"))
}

fn rejected(status: StatusCode, kind: &ReviewKind) -> String {
    let ReviewKind { kind, resource, .. } = kind;
    let hint = match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            format!("; permit the account of this process to create {resource}")
        }
        _ => String::new(),
    };
    format!("the Kubernetes API answered {status} to a {kind}{hint}")
}
