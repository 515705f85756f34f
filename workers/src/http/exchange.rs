//! A request to a service, and its response.

use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use url::Url;

use crate::http::redact::{Redactor, one_line};
use crate::message::text::cut_chars;

/// More of a body is not looked at for sentences.
const MOST_OF_AN_EXCERPT: usize = 64 << 10;

/// A request to a service.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Values that are secret are marked sensitive.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The host that answered, for sentences.
    pub host: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, up to 8 MiB.
    pub body: Vec<u8>,
    /// No request was made: nothing is known of the service.
    pub dry_run: bool,
    /// What must not be shown of it: services repeat what they were sent.
    pub redactor: Redactor,
}

// === impl Request ===

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Vec::new(),
        }
    }

    /// A POST of a JSON document.
    pub fn post_json(url: Url, document: &impl Serialize) -> Self {
        Self::new(Method::POST, url).json(document)
    }

    /// Sets a JSON document as the body.
    pub fn json(self, document: &impl Serialize) -> Self {
        let body = serde_json::to_vec(document).unwrap_or_default();
        self.body("application/json", body)
    }

    /// Sets the body and its type.
    pub fn body(mut self, content_type: &'static str, body: Vec<u8>) -> Self {
        self.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body;
        self
    }

    /// Sets a header that anybody may see. A value that HTTP can't carry is left out.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// Sets a header that nobody else may see: it is redacted in dry runs and never follows a
    /// redirect to another host.
    pub fn secret_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(mut value) = HeaderValue::from_bytes(value.as_bytes()) {
            value.set_sensitive(true);
            self.headers.insert(name, value);
        }
        self
    }

    /// Sets `Authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.secret_header(header::AUTHORIZATION, &format!("Bearer {token}"))
    }

    /// Sets `Authorization: Basic …`.
    pub fn basic(self, username: &str, password: &str) -> Self {
        use base64::Engine;
        let pair =
            base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        self.secret_header(header::AUTHORIZATION, &format!("Basic {pair}"))
    }

    /// Sets the headers of the Provider's Secret; they go before those set earlier.
    pub fn secret_headers(
        mut self,
        provider_headers: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        for (name, value) in provider_headers {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                self = self.secret_header(name, value);
            }
        }
        self
    }
}

// === impl Response ===

impl Response {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The beginning of the body as text, for sentences. Secrets go before it is cut: of half a
    /// secret nobody knows that it is one.
    pub fn excerpt(&self) -> String {
        let beginning = &self.body[..self.body.len().min(MOST_OF_AN_EXCERPT)];
        let line = one_line(&String::from_utf8_lossy(beginning));
        cut_chars(&self.redactor.redact(&line), 300)
    }
}
