//! Redirects: whether one is followed, and the request to send to its target.

use reqwest::header::{self, HeaderMap, HeaderName};
use tidings_core::{Failure, Reason};
use url::Url;

use crate::http::exchange::Request;

/// Whether a client that follows this status sends a GET without the body.
pub fn loses_body(request: &Request, status: u16) -> bool {
    matches!(status, 301..=303) && (!request.is_read || !request.body.is_empty())
}

/// The URL to send the request to next; `None` if the response is final.
///
/// # Errors
/// Permanent: the redirect can't be followed, or following it would lose the body.
pub fn target(request: &Request, status: u16, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    // Servers send characters beyond ASCII, too.
    let Some(location) = headers.get(header::LOCATION) else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    let host = request.url.host_str().unwrap_or("the service");
    let refused = |why: String| {
        let detail = format!("{host} answered {status} and redirects {why}");
        Failure::permanent(Reason::Rejected, detail).with_status(status)
    };
    let target = request
        .url
        .join(&location)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| refused("to a URL that is not http or https".to_owned()))?;
    if loses_body(request, status) {
        return Err(refused(format!(
            "the {} to {}; that was not followed, because a GET would lose the message: correct \
             the address, or set acceptRedirects: true in the Provider if this is how the service \
             answers an accepted request",
            request.method,
            shown(&target)
        )));
    }
    Ok(Some(target))
}

/// A target for errors. User info, query and fragment may hold secrets. The caller redacts secret
/// segments of the path.
fn shown(target: &Url) -> String {
    let origin = target.origin().ascii_serialization();
    let query = target.query().map_or("", |_| "?…");
    format!("{origin}{}{query}", target.path())
}

/// The request to send to the target. Another host gets no sensitive headers.
pub fn redirected(mut request: Request, target: Url) -> Request {
    if target.origin() != request.url.origin() {
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

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use reqwest::header::HeaderValue;

    use super::*;

    fn target_of(method: Method, status: u16, location: &'static str) -> Result<String, String> {
        let url = "https://hooks.example.com/in/1".parse().unwrap();
        let headers = HeaderMap::from_iter([(
            header::LOCATION,
            HeaderValue::from_bytes(location.as_bytes()).unwrap(),
        )]);
        target(&Request::new(method, url), status, &headers)
            .map(|target| target.map_or_else(String::new, String::from))
            .map_err(|failure| failure.detail)
    }

    #[test]
    fn only_redirects_that_keep_the_request_are_followed() {
        let moved = || Ok("https://hooks.example.com/login".to_owned());
        for status in [301, 302, 303, 307, 308] {
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert_eq!(target_of(method, status, "/login"), moved());
            }
        }
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        for method in writes {
            for status in [307, 308] {
                assert_eq!(target_of(method.clone(), status, "/login"), moved());
            }
            for status in [301, 302, 303] {
                let error = target_of(method.clone(), status, "/login").unwrap_err();
                assert!(error.contains("https://hooks.example.com/login"), "{error}");
                assert!(error.contains("acceptRedirects"), "{error}");
            }
            assert_eq!(target_of(method.clone(), 304, "/login"), Ok(String::new()));
        }
    }

    #[test]
    fn a_target_with_characters_beyond_ascii_is_named() {
        let error = target_of(Method::POST, 302, "/l\u{f6}gin").unwrap_err();
        assert!(
            error.contains("https://hooks.example.com/l%C3%B6gin"),
            "{error}"
        );
    }

    #[test]
    fn an_error_names_the_target_without_its_secret_parts() {
        let location = "http://user:pass@sso.example.org:8080/login?return=/in/1&t=k3y#s3cret";
        let error = target_of(Method::POST, 302, location).unwrap_err();
        assert!(
            error.contains("http://sso.example.org:8080/login?…"),
            "{error}"
        );
        for secret in ["user", "pass", "k3y", "s3cret"] {
            assert!(!error.contains(secret), "{secret}: {error}");
        }
    }
}
