//! Why a request to the API has no answer, as JSON with a stable code.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidings_core::model::text::visible;
use tidings_core::runtime::codes::http as codes;
use tidings_core::runtime::metrics::labels::ConsoleOutcome;

use super::access::Refusal;
use super::permissions::NoAnswer;

/// Why a request has no answer.
#[derive(Debug)]
pub enum Problem {
    /// Host, site or token are wrong.
    Refused(Refusal),
    /// There is no such path or object.
    NotFound,
    /// The path takes another method.
    Method,
    /// A parameter is invalid.
    Invalid(String),
    /// Too many requests or streams are open, or there were too many actions.
    Busy,
    /// The answer took too long.
    NotInTime,
    /// The bus cannot be read.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<NoAnswer> for Problem {
    fn from(problem: NoAnswer) -> Self {
        Self::Refused(problem.into())
    }
}

impl Problem {
    fn status(&self) -> (StatusCode, &'static str, ConsoleOutcome) {
        use ConsoleOutcome as Outcome;
        match self {
            Self::Refused(Refusal::WrongHost) => {
                (StatusCode::FORBIDDEN, codes::WRONG_HOST, Outcome::WrongHost)
            }
            Self::Refused(Refusal::CrossSite) => {
                (StatusCode::FORBIDDEN, codes::CROSS_SITE, Outcome::WrongHost)
            }
            Self::Refused(Refusal::Unauthenticated) => (
                StatusCode::UNAUTHORIZED,
                codes::UNAUTHENTICATED,
                Outcome::Unauthenticated,
            ),
            Self::Refused(Refusal::NotAllowed) => (
                StatusCode::FORBIDDEN,
                codes::ROLE_NOT_ALLOWED,
                Outcome::NotAllowed,
            ),
            Self::Refused(Refusal::NotInNamespace) => (
                StatusCode::FORBIDDEN,
                codes::NAMESPACE_NOT_ALLOWED,
                Outcome::NotAllowed,
            ),
            Self::Refused(Refusal::Unavailable) => (
                StatusCode::SERVICE_UNAVAILABLE,
                codes::AUTHENTICATION_UNAVAILABLE,
                Outcome::Failed,
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, codes::NOT_FOUND, Outcome::Invalid),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                codes::METHOD_NOT_ALLOWED,
                Outcome::Invalid,
            ),
            Self::Invalid(_) => (
                StatusCode::BAD_REQUEST,
                codes::INVALID_PARAMETER,
                Outcome::Invalid,
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                codes::CONSOLE_BUSY,
                Outcome::Busy,
            ),
            Self::NotInTime => (
                StatusCode::SERVICE_UNAVAILABLE,
                codes::NOT_IN_TIME,
                Outcome::Failed,
            ),
            Self::Failed(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                codes::BUS_UNAVAILABLE,
                Outcome::Failed,
            ),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::NotFound => "not found".to_owned(),
            Self::Method => "the path takes another method".to_owned(),
            Self::Invalid(problem) => problem.clone(),
            Self::Busy => "too many requests, streams or actions at a time; try again".to_owned(),
            Self::NotInTime => "no answer in time; try again, or ask for less".to_owned(),
            Self::Failed(error) => visible(&format!("{error:#}")).into_owned(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        use tidings_core::runtime::codes::log as codes;

        let (status, code, outcome) = self.status();
        let message = self.message();
        if matches!(self, Self::Failed(_)) {
            tracing::debug!(
                code = codes::CONSOLE_READ_FAILED,
                error = message,
                "console cannot read from the bus"
            );
        }
        let body = json!({ "code": code, "error": message }).to_string();
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(outcome);
        if let Self::Refused(refusal) = self {
            response.extensions_mut().insert(refusal);
        }
        response
    }
}
