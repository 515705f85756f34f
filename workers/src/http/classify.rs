//! What an answer means where a provider type has no judgement of its own.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::{Failure, Reason};

use crate::http::Answer;

/// The shared table: 2xx is accepted; 408, 425, 429 and 5xx but 501 and 505 may pass; 401 and 403
/// may pass within an hour; everything else is final. Returns the status of an accepted answer.
///
/// # Errors
/// The failure that the status stands for, with what the service asks to wait (`Retry-After`).
pub fn classify(answer: &Answer) -> Result<u16, Failure> {
    if answer.dry_run || (200..300).contains(&answer.status) {
        return Ok(answer.status);
    }
    Err(failure(answer))
}

/// The shared table for services that tell in the body of a 429, more exactly than in
/// `Retry-After`, how many seconds to wait.
///
/// # Errors
/// As [`classify`].
pub fn classify_with_wait(
    answer: &Answer,
    seconds: fn(&serde_json::Value) -> Option<f64>,
) -> Result<u16, Failure> {
    classify(answer).map_err(|failure| {
        let body = answer.json().filter(|_| answer.status == 429);
        let seconds = body.and_then(|body| seconds(&body));
        failure.after(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    })
}

/// The failure that the status stands for in the shared table.
pub fn failure(answer: &Answer) -> Failure {
    let detail = describe(answer);
    let failure = match answer.status {
        429 => Failure::transient(Reason::RateLimited, detail),
        408 => Failure::transient(Reason::Timeout, detail),
        425 => Failure::transient(Reason::ServerError, detail),
        501 | 505 => Failure::permanent(Reason::Rejected, detail),
        500..=599 => Failure::transient(Reason::ServerError, detail),
        401 | 403 => Failure::transient(Reason::Unauthorized, detail),
        404 | 410 => Failure::permanent(Reason::NotFound, detail),
        _ => Failure::permanent(Reason::Rejected, detail),
    };
    match failure.kind {
        tidings_core::FailureKind::Transient { .. } => {
            failure.after(retry_after(answer, Timestamp::now()))
        }
        tidings_core::FailureKind::Permanent => failure,
    }
    .with_status(answer.status)
}

/// A sentence: who answered what.
pub fn describe(answer: &Answer) -> String {
    let excerpt = answer.excerpt();
    let colon = if excerpt.is_empty() { "" } else { ": " };
    format!("{} answered {}{colon}{excerpt}", answer.host, answer.status)
}

/// `Retry-After` in either of its forms: seconds, or a date (RFC 9110, section 10.2.3).
pub fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.is_finite() && seconds >= 0.0)
            .then(|| Duration::from_secs_f64(seconds.min(1e9)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
    use tidings_core::FailureKind;

    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Answer {
        let headers = retry_after.map(|text| (RETRY_AFTER, HeaderValue::from_static(text)));
        Answer {
            host: "h".into(),
            status,
            headers: HeaderMap::from_iter(headers),
            body: b"no".to_vec(),
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
            let got = classify(&answer(status, None))
                .err()
                .map(|failure| (failure.reason, is_transient(&failure)));
            assert_eq!(got, meaning, "{status}");
        }
    }

    #[test]
    fn the_wait_in_a_body_counts_before_that_in_the_header() {
        for (status, body, wait) in [
            (429, r#"{"wait":0.75}"#, Some(Duration::from_millis(750))),
            (429, r#"{"wait":-1}"#, Some(Duration::from_secs(9))),
            (429, "slow down", Some(Duration::from_secs(9))),
            (400, r#"{"wait":1}"#, None),
        ] {
            let answer = Answer {
                body: body.into(),
                ..answer(status, Some("9"))
            };
            let failure = classify_with_wait(&answer, |body| body["wait"].as_f64()).unwrap_err();
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
                retry_after(&answer(429, Some(text)), now),
                wait.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
