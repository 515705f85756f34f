//! Maps each result of a request to its HTTP response.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;
use tidings_core::runtime::codes::http as codes;
use tidings_core::runtime::metrics::labels::RequestOutcome;

use crate::authentication::Refusal;
use crate::body::{self, BodyError};
use crate::normalize::InvalidEvent;
use crate::store::{StoreAck, StoreError, StoreErrorReason};

/// `Retry-After` while the memory for bodies is used up.
const RETRY_MEMORY_FULL: Duration = Duration::from_secs(2);
/// `Retry-After` while the Kubernetes API does not answer.
const RETRY_REVIEW: Duration = Duration::from_secs(2);

/// The response to the sender, and the outcome to count.
pub(crate) struct EventResponse {
    pub(crate) outcome: RequestOutcome,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    error: Option<(&'static str, String)>,
}

impl EventResponse {
    fn new(outcome: RequestOutcome, status: StatusCode) -> Self {
        Self {
            outcome,
            status,
            headers: Vec::new(),
            error: None,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn with_error(self, code: &'static str, message: impl ToString) -> Self {
        Self {
            error: Some((code, message.to_string())),
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
            .with_error(
                codes::METHOD_NOT_ALLOWED,
                "send events with the method POST",
            )
    }

    /// `dedupe_interval` is the longest time in which an equal event counts as a duplicate.
    pub(crate) fn stored(stored: StoreAck, dedupe_interval: Duration) -> Self {
        match stored {
            StoreAck::New => Self::new(RequestOutcome::Accepted, StatusCode::ACCEPTED),
            StoreAck::Duplicate => {
                Self::new(RequestOutcome::Duplicate, StatusCode::TOO_MANY_REQUESTS)
                    .with_header(RETRY_AFTER, whole_seconds(dedupe_interval))
                    .with_error(codes::DUPLICATE_EVENT, "the same event is stored already")
            }
        }
    }

    /// Without `Connection: close` the rest of a refused body would be read as a request.
    pub(crate) fn memory_full() -> Self {
        let close = HeaderValue::from_static("close");
        Self::new(RequestOutcome::NotStored, StatusCode::SERVICE_UNAVAILABLE)
            .with_header(RETRY_AFTER, whole_seconds(RETRY_MEMORY_FULL))
            .with_header(CONNECTION, close)
            .with_error(
                codes::MEMORY_FULL,
                "the event is not stored: too many large events arrive at the same time",
            )
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
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Refusal> for EventResponse {
    /// The rest of a body that was not read is not a request, so the connection ends.
    fn from(refusal: Refusal) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"tidings\"");
        let response = match &refusal {
            Refusal::Missing | Refusal::Unknown => {
                Self::new(RequestOutcome::Unauthorized, StatusCode::UNAUTHORIZED)
                    .with_header(WWW_AUTHENTICATE, challenge)
                    .with_error(
                        codes::UNAUTHENTICATED,
                        format!("{refusal}; send a valid token as `Authorization: Bearer TOKEN`"),
                    )
            }
            Refusal::NotAllowed(_) => {
                Self::new(RequestOutcome::Unauthorized, StatusCode::FORBIDDEN)
                    .with_error(codes::SENDER_NOT_ALLOWED, &refusal)
            }
            Refusal::Unavailable | Refusal::Busy => {
                Self::new(RequestOutcome::NotStored, StatusCode::SERVICE_UNAVAILABLE)
                    .with_header(RETRY_AFTER, whole_seconds(RETRY_REVIEW))
                    .with_error(
                        codes::AUTHENTICATION_UNAVAILABLE,
                        format!("the token is not checked and the event not stored: {refusal}"),
                    )
            }
        };
        response.with_header(CONNECTION, HeaderValue::from_static("close"))
    }
}

impl From<InvalidEvent> for EventResponse {
    fn from(error: InvalidEvent) -> Self {
        Self::new(RequestOutcome::Invalid, StatusCode::BAD_REQUEST)
            .with_error(codes::INVALID_EVENT, error)
    }
}

impl From<BodyError> for EventResponse {
    fn from(error: BodyError) -> Self {
        let close = HeaderValue::from_static("close");
        match error {
            BodyError::TooLarge => {
                Self::new(RequestOutcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE).with_error(
                    codes::BODY_TOO_LARGE,
                    format!("the body is larger than {} bytes", body::MAX_BODY_BYTES),
                )
            }
            BodyError::Timeout => Self::new(RequestOutcome::Invalid, StatusCode::REQUEST_TIMEOUT)
                .with_error(
                    codes::BODY_TIMEOUT,
                    "the body did not arrive in time; send 64 KiB per second or more",
                ),
            BodyError::MemoryFull => return Self::memory_full(),
            BodyError::Incomplete => Self::new(RequestOutcome::Invalid, StatusCode::BAD_REQUEST)
                .with_error(
                    codes::INCOMPLETE_BODY,
                    "the body ended early or does not match its headers",
                ),
        }
        .with_header(CONNECTION, close)
    }
}

impl From<StoreError> for EventResponse {
    fn from(error: StoreError) -> Self {
        if let StoreErrorReason::TooLarge { limit } = error.reason {
            return Self::new(RequestOutcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE).with_error(
                error.reason.code(),
                format!("the event is larger than the NATS server's max_payload of {limit} bytes"),
            );
        }
        let code = error.reason.code();
        Self::new(RequestOutcome::NotStored, StatusCode::SERVICE_UNAVAILABLE)
            .with_header(RETRY_AFTER, whole_seconds(error.retry_after))
            .with_error(code, format!("the event is not stored: {}", error.detail))
    }
}

/// Rounded up, and at least 1: with 0, senders would retry in a busy loop.
fn whole_seconds(duration: Duration) -> HeaderValue {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_in_whole_seconds_rounded_up() {
        for (milliseconds, seconds) in [
            (0, "1"),
            (1, "1"),
            (1000, "1"),
            (1001, "2"),
            (300_000, "300"),
        ] {
            assert_eq!(
                whole_seconds(Duration::from_millis(milliseconds)),
                seconds,
                "{milliseconds}"
            );
        }
    }
}
