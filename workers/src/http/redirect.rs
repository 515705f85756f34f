//! Redirects: the next URL, and the request to send to it.

use reqwest::Method;
use reqwest::header::{self, HeaderName};
use tidings_core::{Failure, Reason};
use url::Url;

use crate::http::exchange::{Request, Response};

/// The URL that a response redirects to; `None` if it does not redirect.
pub fn target(base: &Url, response: &Response) -> Option<Result<Url, Failure>> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers.get(header::LOCATION)?.to_str().ok()?;
    let target = base
        .join(location)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    Some(target.ok_or_else(|| {
        Failure::permanent(
            Reason::Rejected,
            format!(
                "{} redirects to a URL that is not http or https",
                response.host
            ),
        )
    }))
}

/// The request to send to the target. Another host gets no sensitive headers.
pub fn redirected(mut request: Request, target: Url, status: u16) -> Request {
    if matches!(status, 301..=303) && request.method != Method::HEAD {
        request.method = Method::GET;
        request.body.clear();
        request.headers.remove(header::CONTENT_TYPE);
    }
    if (
        target.scheme(),
        target.host(),
        target.port_or_known_default(),
    ) != (
        request.url.scheme(),
        request.url.host(),
        request.url.port_or_known_default(),
    ) {
        let secret: Vec<HeaderName> = request
            .headers
            .iter()
            .filter(|(_, value)| value.is_sensitive())
            .map(|(name, _)| name.clone())
            .collect();
        for name in secret {
            request.headers.remove(name);
        }
    }
    request.url = target;
    request
}
