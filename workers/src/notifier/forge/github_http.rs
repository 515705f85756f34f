//! Requests to GitHub's REST API, and what its responses mean.
//!
//! API: <https://docs.github.com/en/rest>

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use tidings_core::{Failure, Reason};
use url::Url;

use super::api_url;
use crate::http::classify::{classify, describe, retry_after};
use crate::http::{Request, Response};

/// The media type of responses.
pub const ACCEPT: &str = "application/vnd.github.v3+json";
const VERSION: &str = "2022-11-28";
/// The wait that GitHub asks for after a secondary rate limit without one.
const SECONDARY_LIMIT: Duration = Duration::from_secs(60);

/// A request to the API, without credentials.
///
/// # Errors
/// The path does not give a valid URL.
pub fn request(
    base: &Url,
    method: Method,
    path: &str,
    accept: &'static str,
) -> Result<Request, Failure> {
    let address = format!("{}/{path}", base.as_str().trim_end_matches('/'));
    let url = api_url(&address)?;
    Ok(Request::new(method, url)
        .header("accept", accept)
        .header("x-github-api-version", VERSION))
}

/// The shared table with GitHub's exceptions. A rate limit is 403 or 429, and a commit with too
/// many statuses is 422.
///
/// # Errors
/// The failure of the response.
pub fn check(response: &Response) -> Result<u16, Failure> {
    if let Some(failure) = rate_limit(response, Timestamp::now()) {
        return Err(failure.with_status(response.status));
    }
    classify(response).map_err(|mut failure| {
        if response.status == 422 && response.excerpt().contains("maximum number of statuses") {
            failure
                .detail
                .push_str(": the commit has as many statuses of this context as GitHub allows");
        }
        failure
    })
}

fn rate_limit(response: &Response, now: Timestamp) -> Option<Failure> {
    if !matches!(response.status, 403 | 429) {
        return None;
    }
    let is_secondary = response
        .excerpt()
        .to_lowercase()
        .contains("secondary rate limit");
    let until_reset = || {
        let reset = response
            .header("x-ratelimit-reset")
            .filter(|_| response.header("x-ratelimit-remaining") == Some("0"))?;
        let seconds = reset
            .trim()
            .parse::<i64>()
            .ok()?
            .saturating_sub(now.as_second());
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    let wait = retry_after(response, now)
        .or_else(until_reset)
        .or(is_secondary.then_some(SECONDARY_LIMIT))?;
    Some(Failure::transient(Reason::RateLimited, describe(response)).after(Some(wait)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{meaning, response, wait, with_header};

    #[test]
    fn a_rate_limit_has_a_wait_and_other_403s_do_not() {
        let limited = with_header(
            response(403, "API rate limit exceeded"),
            "x-ratelimit-remaining",
            "0",
        );
        let limited = with_header(limited, "x-ratelimit-reset", "1");
        assert_eq!(meaning(check(&limited)), Some((Reason::RateLimited, true)));
        let asked = with_header(response(403, "slow down"), "retry-after", "7");
        assert_eq!(wait(check(&asked)), Some(7.0));
        assert_eq!(
            wait(check(&response(
                403,
                "You have exceeded a secondary rate limit."
            ))),
            Some(60.0)
        );
        assert_eq!(
            meaning(check(&response(403, "Resource not accessible"))),
            Some((Reason::Unauthorized, true))
        );
        let full = response(
            422,
            r#"{"message": "This SHA and context has reached the maximum number of statuses."}"#,
        );
        assert_eq!(meaning(check(&full)), Some((Reason::Rejected, false)));
        assert!(
            check(&full)
                .unwrap_err()
                .detail
                .contains("as many statuses")
        );
        assert_eq!(meaning(check(&response(201, "{}"))), None);
    }

    #[test]
    fn the_wait_until_the_reset_counts_from_now() {
        let now = Timestamp::from_second(1_000).unwrap();
        let limited = with_header(response(403, ""), "x-ratelimit-remaining", "0");
        let limited = with_header(limited, "x-ratelimit-reset", "1090");
        assert_eq!(
            wait(rate_limit(&limited, now).map_or(Ok(()), Err)),
            Some(90.0)
        );
    }
}
