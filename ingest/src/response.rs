//! How each end of a request is told to its sender.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;
use tidings_core::runtime::codes::http as codes;

use crate::body::{self, Unread};
use crate::normalise::Refused;
use crate::store::{NotStored, NotStoredReason, Stored};
use tidings_core::runtime::metrics::labels::RequestOutcome;

/// An end of a request: what is counted, and what the sender gets.
pub(crate) struct Answer {
    pub(crate) taken: RequestOutcome,
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    error: Option<(&'static str, String)>,
}

impl Answer {
    fn new(taken: RequestOutcome, status: StatusCode) -> Self {
        Self {
            taken,
            status,
            header: None,
            error: None,
        }
    }

    fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }

    fn with_error(self, code: &'static str, error: impl ToString) -> Self {
        Self {
            error: Some((code, error.to_string())),
            ..self
        }
    }

    pub(crate) fn wrong_path(path: &str) -> Self {
        let shown: String = path.chars().take(100).collect();
        Self::new(RequestOutcome::Invalid, StatusCode::NOT_FOUND).with_error(
            codes::NOT_FOUND,
            format!("send events to /, not to {shown}"),
        )
    }

    pub(crate) fn wrong_method() -> Self {
        Self::new(RequestOutcome::Invalid, StatusCode::METHOD_NOT_ALLOWED)
            .with_header(ALLOW, HeaderValue::from_static("POST"))
            .with_error(codes::METHOD_NOT_ALLOWED, "send events by POST")
    }

    /// `dedupe_interval` is the longest that the same report can count as a duplicate.
    pub(crate) fn stored(stored: Stored, dedupe_interval: Duration) -> Self {
        match stored {
            Stored::New => Self::new(RequestOutcome::Accepted, StatusCode::ACCEPTED),
            Stored::Duplicate => {
                Self::new(RequestOutcome::Duplicate, StatusCode::TOO_MANY_REQUESTS)
                    .with_header(RETRY_AFTER, whole_seconds(dedupe_interval))
                    .with_error(codes::DUPLICATE_EVENT, "the same event is stored already")
            }
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if let Some((code, error)) = self.error {
            let body = json!({ "code": code, "error": error });
            *response.body_mut() = Body::from(body.to_string());
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::new(RequestOutcome::Invalid, StatusCode::BAD_REQUEST)
            .with_error(codes::INVALID_EVENT, refused)
    }
}

impl From<Unread> for Answer {
    fn from(unread: Unread) -> Self {
        let close = HeaderValue::from_static("close");
        match unread {
            Unread::TooLarge => Self::new(RequestOutcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE)
                .with_error(
                    codes::BODY_TOO_LARGE,
                    format!("the body is larger than {} bytes", body::LARGEST),
                ),
            Unread::TooSlow => Self::new(RequestOutcome::Invalid, StatusCode::REQUEST_TIMEOUT)
                .with_error(codes::BODY_TIMEOUT, "the body did not arrive in time"),
            Unread::Broken => Self::new(RequestOutcome::Invalid, StatusCode::BAD_REQUEST)
                .with_error(
                    codes::INCOMPLETE_BODY,
                    "the body ended early or does not match its headers",
                ),
        }
        .with_header(CONNECTION, close)
    }
}

impl From<NotStored> for Answer {
    fn from(not_stored: NotStored) -> Self {
        if let NotStoredReason::TooLarge { limit } = not_stored.reason {
            return Self::new(RequestOutcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE).with_error(
                codes::EVENT_TOO_LARGE,
                format!("the event is larger than the NATS server's max_payload of {limit} bytes"),
            );
        }
        let code = match not_stored.reason {
            NotStoredReason::StorageFull => codes::STORAGE_FULL,
            NotStoredReason::Retention => codes::ROUTER_BEHIND,
            NotStoredReason::Unavailable | NotStoredReason::TooLarge { .. } => {
                codes::BUS_UNAVAILABLE
            }
        };
        Self::new(RequestOutcome::NotStored, StatusCode::SERVICE_UNAVAILABLE)
            .with_header(RETRY_AFTER, whole_seconds(not_stored.retry_after))
            .with_error(
                code,
                format!("the event is not stored: {}", not_stored.detail),
            )
    }
}

/// Rounded up, and at least 1: 0 would ask for a busy loop.
fn whole_seconds(duration: Duration) -> HeaderValue {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_in_whole_seconds_rounded_up() {
        for (milliseconds, told) in [
            (0, "1"),
            (1, "1"),
            (1000, "1"),
            (1001, "2"),
            (300_000, "300"),
        ] {
            assert_eq!(
                whole_seconds(Duration::from_millis(milliseconds)),
                told,
                "{milliseconds}"
            );
        }
    }
}
