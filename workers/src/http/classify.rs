//! Classifies responses: the table that all provider types share, and each type's exceptions.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::{Failure, Reason};

use crate::http::Response;

/// Statuses for which a provider type differs from the shared table.
#[derive(Clone, Debug)]
pub struct StatusRule {
    /// The statuses.
    pub statuses: RangeInclusive<u16>,
    /// Why the call failed.
    pub reason: Reason,
    /// Whether a retry can help.
    pub may_retry: bool,
}

impl StatusRule {
    /// A retry can help.
    pub const fn retry(statuses: RangeInclusive<u16>, reason: Reason) -> Self {
        Self {
            statuses,
            reason,
            may_retry: true,
        }
    }

    /// A retry can't help.
    pub const fn permanent(statuses: RangeInclusive<u16>, reason: Reason) -> Self {
        Self {
            statuses,
            reason,
            may_retry: false,
        }
    }
}

/// The shared table. 2xx is accepted if its body has the form of the service. 408, 425, 429 and
/// 5xx, except 501 and 505, are retried. 401 and 403 are retried within an hour. All others are
/// permanent. Returns the status of an accepted response.
///
/// # Errors
/// The failure of the status, with the wait that the service asks for in `Retry-After`; or the
/// body does not come from the service.
pub fn classify(response: &Response) -> Result<u16, Failure> {
    classify_with(response, &[])
}

/// The shared table with the exceptions of a provider type.
///
/// # Errors
/// As [`classify`].
pub fn classify_with(response: &Response, rules: &[StatusRule]) -> Result<u16, Failure> {
    if response.is_accepted()? {
        return Ok(response.status);
    }
    let is_hit = |rule: &&StatusRule| rule.statuses.contains(&response.status);
    Err(match rules.iter().find(is_hit) {
        Some(rule) => failure_of(response, rule.reason, rule.may_retry),
        None => failure(response),
    })
}

/// The shared table for services that state the seconds to wait in the body of a 429, more exactly
/// than in `Retry-After`.
///
/// # Errors
/// As [`classify`].
pub fn classify_with_wait(
    response: &Response,
    seconds: fn(&serde_json::Value) -> Option<f64>,
) -> Result<u16, Failure> {
    classify(response).map_err(|failure| {
        let body = response.json().filter(|_| response.status == 429);
        let seconds = body.and_then(|body| seconds(&body));
        failure.after(seconds.and_then(wait_of))
    })
}

/// The failure of a status in the shared table.
pub fn failure(response: &Response) -> Failure {
    let (reason, may_retry) = match response.status {
        429 => (Reason::RateLimited, true),
        408 => (Reason::Timeout, true),
        425 => (Reason::ServerError, true),
        501 | 505 => (Reason::Rejected, false),
        500..=599 => (Reason::ServerError, true),
        401 | 403 => (Reason::Unauthorized, true),
        404 | 410 => (Reason::NotFound, false),
        _ => (Reason::Rejected, false),
    };
    failure_of(response, reason, may_retry)
}

fn failure_of(response: &Response, reason: Reason, may_retry: bool) -> Failure {
    let detail = describe(response);
    let failure = if may_retry {
        Failure::transient(reason, detail).after(retry_after(response, Timestamp::now()))
    } else {
        Failure::permanent(reason, detail)
    };
    failure.with_status(response.status)
}

/// The host and its answer, for people.
pub fn describe(response: &Response) -> String {
    let excerpt = response.excerpt();
    let colon = if excerpt.is_empty() { "" } else { ": " };
    format!(
        "{} answered {}{colon}{excerpt}",
        response.host, response.status
    )
}

/// A wait of this many seconds, at most 31 years. `None` if it is negative or no number.
fn wait_of(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(1e9)))
}

/// `Retry-After` in either of its forms: seconds, or a date (RFC 9110, section 10.2.3).
pub fn retry_after(response: &Response, now: Timestamp) -> Option<Duration> {
    wait_until(response.header("retry-after")?, now)
}

/// The wait that a value of `Retry-After` states.
pub fn wait_until(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return wait_of(seconds);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
    use tidings_core::FailureKind;

    use super::*;
    use crate::http::confirmation::Confirmation;

    fn response(status: u16, retry_after: Option<&'static str>) -> Response {
        let headers = retry_after.map(|text| (RETRY_AFTER, HeaderValue::from_static(text)));
        Response {
            host: "h".into(),
            status,
            headers: HeaderMap::from_iter(headers),
            body: b"no".to_vec(),
            is_read: false,
            confirmation: Confirmation::Status,
            accepted_redirect: false,
            dry_run: false,
            redactor: Default::default(),
        }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for (status, meaning) in [
            (200, None),
            (204, None),
            (302, Some((Reason::Rejected, false))),
            (400, Some((Reason::Rejected, false))),
            (401, Some((Reason::Unauthorized, true))),
            (403, Some((Reason::Unauthorized, true))),
            (404, Some((Reason::NotFound, false))),
            (408, Some((Reason::Timeout, true))),
            (410, Some((Reason::NotFound, false))),
            (425, Some((Reason::ServerError, true))),
            (429, Some((Reason::RateLimited, true))),
            (500, Some((Reason::ServerError, true))),
            (501, Some((Reason::Rejected, false))),
            (503, Some((Reason::ServerError, true))),
            (505, Some((Reason::Rejected, false))),
        ] {
            let is_transient =
                |failure: &Failure| matches!(failure.kind, FailureKind::Transient { .. });
            let got = classify(&response(status, None))
                .err()
                .map(|failure| (failure.reason, is_transient(&failure)));
            assert_eq!(got, meaning, "{status}");
        }
    }

    #[test]
    fn the_wait_in_a_body_takes_precedence_over_the_header() {
        for (status, body, wait) in [
            (429, r#"{"wait":0.75}"#, Some(Duration::from_millis(750))),
            (429, r#"{"wait":-1}"#, Some(Duration::from_secs(9))),
            (429, "slow down", Some(Duration::from_secs(9))),
            (400, r#"{"wait":1}"#, None),
        ] {
            let response = Response {
                body: body.into(),
                ..response(status, Some("9"))
            };
            let failure = classify_with_wait(&response, |body| body["wait"].as_f64()).unwrap_err();
            let kind = wait.map_or(FailureKind::Permanent, |wait| FailureKind::Transient {
                retry_after: Some(wait),
            });
            assert_eq!(failure.kind, kind, "{status} {body}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, wait) in [
            ("20", Some(20)),
            ("Fri, 02 Jan 2026 03:05:05 GMT", Some(60)),
            ("Fri, 02 Jan 2026 03:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                retry_after(&response(429, Some(text)), now),
                wait.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
