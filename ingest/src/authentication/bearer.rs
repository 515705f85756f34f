//! The bearer token of a request.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::Refusal;

/// The longest token. Headers are limited to 16 KiB in all.
pub(super) const MAX_TOKEN_BYTES: usize = 8 << 10;

/// The token in `Authorization: Bearer TOKEN`. It is not empty and has only the characters of
/// RFC 6750.
///
/// # Errors
/// There is no such header, or the token cannot be one.
pub fn token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    // A proxy and this process could read different ones.
    if values.next().is_some() {
        return Err(Refusal::Unknown);
    }
    let value = value.to_str().map_err(|_| Refusal::Unknown)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Missing);
    }
    let token = token.trim_matches(' ');
    if is_token(token) {
        Ok(token)
    } else {
        Err(Refusal::Unknown)
    }
}

/// Whether a text can be sent as a bearer token.
pub(super) fn is_token(text: &str) -> bool {
    let characters = text.trim_end_matches('=');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !characters.is_empty() && text.len() <= MAX_TOKEN_BYTES && characters.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_has_the_scheme_bearer_and_the_characters_of_the_standard() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            token(&headers).map(str::to_owned)
        };
        let valid = Ok("a-B.9_~+/==".to_owned());
        for value in ["Bearer a-B.9_~+/==", "bearer  a-B.9_~+/== "] {
            assert_eq!(read(value), valid, "{value}");
        }
        for missing in ["", "Bearer", "Basic dXNlcjpwYXNz", "a-B.9_~+/=="] {
            assert_eq!(read(missing), Err(Refusal::Missing), "{missing}");
        }
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN_BYTES + 1));
        for unknown in ["Bearer ", "Bearer ==", "Bearer a b", "Bearer a\"b", &long] {
            assert_eq!(read(unknown), Err(Refusal::Unknown), "{unknown}");
        }
    }

    #[test]
    fn two_headers_are_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), Err(Refusal::Missing));
        for value in ["Bearer first", "Bearer second"] {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        assert_eq!(token(&headers), Err(Refusal::Unknown));
    }
}
