//! The body of a request: a JSON object.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use tidings_core::model::text::{cut_bytes, visible};
use tidings_core::runtime::http_server::connections::Progress;

use crate::console::problem::Problem;

/// The longest problem of a body that is repeated.
const MAX_PROBLEM_BYTES: usize = 300;
/// How much of a body that is too long is read. A caller that gets an answer while it still sends
/// may see a connection that ended instead.
const MAX_READ_BYTES: usize = 1 << 20;

/// Reads the body. A page of another site cannot send this content type without being asked first.
///
/// # Errors
/// It has another type, is longer than `most`, or has other fields.
pub async fn read<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Problem> {
    let invalid = |problem: String| Problem::Invalid(problem);
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_none_or(|kind| kind != "application/json") {
        let problem = "Content-Type: expected application/json";
        return Err(invalid(problem.to_owned()));
    }
    let progress = request.extensions().get::<Progress>().cloned();
    let body = bytes(request.into_body(), most).await;
    let body =
        body.ok_or_else(|| invalid(format!("body: incomplete, or longer than {most} bytes")))?;
    if let Some(progress) = progress {
        progress.complete();
    }
    serde_json::from_slice(&body).map_err(|error| {
        let problem = error.to_string();
        let problem = cut_bytes(&visible(&problem), MAX_PROBLEM_BYTES);
        invalid(format!("body: {problem}"))
    })
}

/// The bytes of a body; `None` if it is incomplete or longer than `most`.
async fn bytes(body: Body, most: usize) -> Option<Vec<u8>> {
    let (mut parts, mut bytes, mut read) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(part) = parts.next().await {
        let part = part.ok()?;
        read += part.len();
        if read <= most {
            bytes.extend_from_slice(&part);
        } else if read > MAX_READ_BYTES.max(most) {
            return None;
        }
    }
    (read <= most).then_some(bytes)
}
