//! A request to a service, and its response.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidings_core::{Failure, Reason};
use tokio::time::Instant;
use url::Url;

use crate::http::body::{self, Body};
use crate::http::confirmation::{self, Confirmation, Doubt};
use crate::http::redact::{Redactor, one_line};
use crate::text::cut_chars;

/// The most bytes of a body that are read for an excerpt.
const MOST_OF_AN_EXCERPT: usize = 64 << 10;

/// A request to a service.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// The headers. Secret values are marked sensitive.
    pub headers: HeaderMap,
    /// The body; empty for none. Its copies share it.
    pub body: Bytes,
    /// Secrets in the body, besides those of the Provider.
    pub secrets: Vec<String>,
    /// Whether it changes nothing that users see, so that it can be repeated.
    pub is_read: bool,
    /// A secret header whose value no header can hold. Such a request is never sent.
    pub unsendable: Option<HeaderName>,
}

/// The response of a service.
#[derive(Clone, Debug)]
pub struct Response {
    /// The host that answered, for errors.
    pub host: String,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: up to 8 MiB of a read, 1 MiB of a confirmation, and 64 KiB of an error. Empty if
    /// it was not read.
    pub body: Vec<u8>,
    /// Whether the request can be repeated.
    pub is_read: bool,
    /// The form of a 2xx with which the service accepts the request.
    pub confirmation: Confirmation,
    /// Whether this is a redirect, with which the service accepts the request.
    pub accepted_redirect: bool,
    /// Whether no request was sent, so that the response says nothing about the service.
    pub dry_run: bool,
    /// Redacts the secrets, which services may repeat in a body.
    pub redactor: Redactor,
}

// === impl Request ===

impl Request {
    /// A request without headers and without a body.
    pub fn new(method: Method, url: Url) -> Self {
        Self {
            is_read: matches!(method, Method::GET | Method::HEAD | Method::OPTIONS),
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            secrets: Vec::new(),
            unsendable: None,
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

    /// Sets the body and its content type.
    pub fn body(mut self, content_type: &'static str, body: Vec<u8>) -> Self {
        self.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body.into();
        self
    }

    /// Sets a header that is not secret. A value that is invalid in HTTP is ignored.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// Sets a secret header. It is redacted in dry runs and not sent to another host on a redirect.
    /// A value that is invalid in HTTP makes the request unsendable.
    pub fn secret_header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_bytes(value.as_bytes()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(name, value);
            }
            Err(_) => self.unsendable = Some(name),
        }
        self
    }

    /// Whether every secret header can be sent. Without one of them, a service would reject the
    /// request and hide the cause.
    ///
    /// # Errors
    /// Permanent: names the header.
    pub(super) fn check_headers(&self) -> Result<(), Failure> {
        let Some(name) = &self.unsendable else {
            return Ok(());
        };
        let detail = format!(
            "the value of the header {name} contains a line break or another control character, \
             which no header can hold; correct the credentials in the address or in the Secret of \
             spec.secretRef"
        );
        Err(Failure::permanent(Reason::Misconfigured, detail))
    }

    /// Marks a request as one that can be repeated, although its method is not that of a read.
    pub fn reading(self) -> Self {
        Self {
            is_read: true,
            ..self
        }
    }

    /// Marks a text in the body as secret, for redaction.
    pub fn holding(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
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

    /// Sets the headers of the Provider's Secret. They replace headers set earlier.
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
    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; `None` if it is not what `T` needs.
    pub fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body of an accepted response as JSON; the default in a dry run and for an accepted
    /// redirect.
    ///
    /// # Errors
    /// The body is not what `T` needs, so it does not come from the service.
    pub fn parsed<T: DeserializeOwned + Default>(&self) -> Result<T, Failure> {
        match self.dry_run || self.accepted_redirect {
            true => Ok(T::default()),
            false => self.parse(),
        }
    }

    /// The body of an accepted response as JSON.
    ///
    /// # Errors
    /// As [`Response::parsed`].
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        confirmation::parse(&self.body).map_err(|doubt| self.unconfirmed(doubt))
    }

    /// Whether the service accepted the request, by the status and the form of the body.
    ///
    /// # Errors
    /// The status says so, but the body does not come from the service.
    pub fn is_accepted(&self) -> Result<bool, Failure> {
        if self.dry_run || self.accepted_redirect {
            return Ok(true);
        }
        if !(200..300).contains(&self.status) {
            return Ok(false);
        }
        let checked = self.confirmation.check(self.status, &self.body);
        checked.map_err(|doubt| self.unconfirmed(doubt))?;
        Ok(true)
    }

    /// The failure of a 2xx whose body is not the service's answer.
    pub fn unconfirmed(&self, doubt: Doubt) -> Failure {
        match doubt {
            Doubt::Cut => self.unknown("ends within JSON"),
            Doubt::Foreign => Failure::permanent(
                Reason::Rejected,
                format!(
                    "{} answered {} in another form than the service does; check that the address \
                     does not lead to a login page or an expired webhook: {}",
                    self.host,
                    self.status,
                    self.excerpt()
                ),
            )
            .with_status(self.status),
        }
    }

    /// Reads the body if it matters.
    ///
    /// # Errors
    /// Transient: the body of a 2xx broke off. Then nobody knows whether the service accepted a
    /// write.
    pub(super) async fn with_body(
        self,
        unread: reqwest::Response,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let is_success = (200..300).contains(&self.status);
        if self.accepted_redirect || (is_success && !self.confirmation.reads_body()) {
            body::discard(unread);
            return Ok(self);
        }
        let most = match (is_success, self.is_read) {
            (true, true) => body::MOST_OF_A_READ,
            (true, false) => body::MOST_OF_A_CONFIRMATION,
            (false, _) => body::MOST_OF_AN_ERROR,
        };
        let Body { bytes, broken } = body::read(unread, most, deadline).await;
        match broken {
            Some(why) if is_success => Err(self.unknown(&why)),
            _ => Ok(Self {
                body: bytes,
                ..self
            }),
        }
    }

    /// The failure of a 2xx whose body is lost. A read is simply repeated.
    fn unknown(&self, why: &str) -> Failure {
        if self.is_read {
            let detail = format!("{} answered {}, but the body {why}", self.host, self.status);
            return Failure::transient(Reason::Unreachable, detail).with_status(self.status);
        }
        let detail = format!(
            "{} answered {}, but the body {why}; it may have accepted the request",
            self.host, self.status
        );
        Failure::transient(Reason::AnswerUnknown, detail).with_status(self.status)
    }

    /// The start of the body as text, for errors. Secrets are redacted before the text is cut,
    /// because a part of a secret would not be recognized.
    pub fn excerpt(&self) -> String {
        let beginning = &self.body[..self.body.len().min(MOST_OF_AN_EXCERPT)];
        let line = one_line(&String::from_utf8_lossy(beginning));
        cut_chars(&self.redactor.redact(&line), 300)
    }
}
