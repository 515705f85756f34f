//! The body of a request: a JSON object.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use tidings_core::model::text::{cut_bytes, visible};
use tidings_core::runtime::http_server::connections::Progress;

use crate::console::problem::Problem;

/// The longest problem of a body that is repeated.
const MAX_PROBLEM_BYTES: usize = 300;

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
    let body = to_bytes(request.into_body(), most).await;
    let body =
        body.map_err(|_| invalid(format!("body: incomplete, or longer than {most} bytes")))?;
    if let Some(progress) = progress {
        progress.complete();
    }
    serde_json::from_slice(&body).map_err(|error| {
        let problem = error.to_string();
        let problem = cut_bytes(&visible(&problem), MAX_PROBLEM_BYTES);
        invalid(format!("body: {problem}"))
    })
}
