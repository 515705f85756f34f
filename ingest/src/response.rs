//! How each end of a request is told to its sender.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::body::{self, Unread};
use crate::normalise::Refused;
use crate::store::{NotStored, NotStoredReason, Stored, Taken};

/// An end of a request: what is counted, and what the sender gets.
pub(crate) struct Answer {
    pub(crate) taken: Taken,
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    error: Option<String>,
}

impl Answer {
    fn new(taken: Taken, status: StatusCode) -> Self {
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

    fn with_error(self, error: impl ToString) -> Self {
        Self {
            error: Some(error.to_string()),
            ..self
        }
    }

    pub(crate) fn wrong_path(path: &str) -> Self {
        let shown: String = path.chars().take(100).collect();
        Self::new(Taken::Invalid, StatusCode::NOT_FOUND)
            .with_error(format!("events are taken at /, not at {shown}"))
    }

    pub(crate) fn wrong_method() -> Self {
        Self::new(Taken::Invalid, StatusCode::METHOD_NOT_ALLOWED)
            .with_header(ALLOW, HeaderValue::from_static("POST"))
            .with_error("events are taken by POST only")
    }

    /// `dedupe_interval` is the longest that the same report can count as a duplicate.
    pub(crate) fn stored(stored: Stored, dedupe_interval: Duration) -> Self {
        match stored {
            Stored::New => Self::new(Taken::Accepted, StatusCode::ACCEPTED),
            Stored::Duplicate => Self::new(Taken::Duplicate, StatusCode::TOO_MANY_REQUESTS)
                .with_header(RETRY_AFTER, whole_seconds(dedupe_interval))
                .with_error("the same event is stored already"),
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if let Some(error) = self.error {
            *response.body_mut() = Body::from(json!({ "error": error }).to_string());
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
        Self::new(Taken::Invalid, StatusCode::BAD_REQUEST).with_error(refused)
    }
}

impl From<Unread> for Answer {
    fn from(unread: Unread) -> Self {
        let close = HeaderValue::from_static("close");
        match unread {
            Unread::TooLarge => Self::new(Taken::TooLarge, StatusCode::PAYLOAD_TOO_LARGE)
                .with_error(format!("the body has more than {} bytes", body::LARGEST)),
            Unread::TooSlow => Self::new(Taken::Invalid, StatusCode::REQUEST_TIMEOUT)
                .with_error("the body took too long"),
            Unread::Broken => Self::new(Taken::Invalid, StatusCode::BAD_REQUEST)
                .with_error("the body is not what its headers announce"),
        }
        .with_header(CONNECTION, close)
    }
}

impl From<NotStored> for Answer {
    fn from(not_stored: NotStored) -> Self {
        if let NotStoredReason::TooLarge { limit } = not_stored.reason {
            return Self::new(Taken::TooLarge, StatusCode::PAYLOAD_TOO_LARGE).with_error(format!(
                "the event does not fit into the bus's max_payload of {limit} bytes"
            ));
        }
        Self::new(
            Taken::NotStored(not_stored.reason),
            StatusCode::SERVICE_UNAVAILABLE,
        )
        .with_header(RETRY_AFTER, whole_seconds(not_stored.retry_after))
        .with_error(format!(
            "the event is not stored ({}): {}",
            not_stored.reason, not_stored.detail
        ))
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
