//! The HTTP client of all provider types. Addresses, proxy, TLS, timeout, redirects and size limits
//! are the same for all of them.

pub mod address;
pub mod address_rules;
mod body;
pub mod classify;
mod client;
pub mod confirmation;
mod exchange;
pub mod invalid;
pub mod redact;
mod redirect;
mod resolver;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::http::confirmation::Confirmation;
use crate::http::redact::Redactor;
use crate::text::cut_chars;
use crate::tls::untrusted;
use address_rules::{AddressRules, Refused};
use client::ClientSet;
use invalid::Invalid;

pub use body::discard;
pub use exchange::{Request, Response};

/// The most redirects to follow.
const MOST_REDIRECTS: usize = 5;
/// The longest detail of a failure without a response, in characters.
pub(crate) const LONGEST_DETAIL: usize = 1_000;
/// No attempt takes longer.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The clients and address rules that all Providers share.
#[derive(Clone)]
pub struct HttpClients {
    rules: Arc<AddressRules>,
    clients: ClientSet,
}

/// Sends requests for one Provider, or only records them.
#[derive(Clone)]
pub struct Http {
    rules: Arc<AddressRules>,
    transport: Transport,
    timeout: Duration,
    redactor: Redactor,
    /// Headers of the Provider's Secret, for every request.
    headers: BTreeMap<String, String>,
    confirmation: Confirmation,
    accepts_redirects: bool,
}

#[derive(Clone)]
enum Transport {
    Wire(ClientSet),
    DryRun(Arc<Mutex<Vec<Request>>>),
}

impl HttpClients {
    /// Clients with these settings of the address rules, and with the proxy and certificates of the
    /// environment.
    ///
    /// # Errors
    /// The system's certificates can't be read.
    pub fn new(addresses: AddressSettings) -> Result<Self, reqwest::Error> {
        Self::with_rules(AddressRules::new(addresses))
    }

    /// Clients with these address rules, and with the proxy and certificates of the environment.
    ///
    /// # Errors
    /// The system's certificates can't be read.
    pub fn with_rules(rules: AddressRules) -> Result<Self, reqwest::Error> {
        let rules = Arc::new(rules);
        Ok(Self {
            clients: ClientSet::of_environment(&rules)?,
            rules,
        })
    }

    /// The address rules.
    pub fn rules(&self) -> &AddressRules {
        &self.rules
    }
}

// === impl Http ===

impl Http {
    /// A client with the proxy, certificates and timeout of a Provider. Providers with neither
    /// proxy nor certificates share one.
    ///
    /// # Errors
    /// A certificate, key or proxy address is invalid, or the proxy's address is refused; the error
    /// names it.
    pub fn new(provider: &ResolvedProvider, http_clients: &HttpClients) -> Result<Self, Invalid> {
        let rules = http_clients.rules.clone();
        let clients = match (&provider.tls, &provider.proxy) {
            (None, None) => http_clients.clients.clone(),
            (tls, proxy) => ClientSet::of_provider(&rules, tls.as_ref(), proxy.as_ref())?,
        };
        Ok(Self {
            rules,
            transport: Transport::Wire(clients),
            timeout: provider.timeout,
            redactor: Redactor::new(provider),
            headers: BTreeMap::new(),
            confirmation: Confirmation::Json(&[]),
            accepts_redirects: provider.accept_redirects,
        })
    }

    /// A client that sends nothing and records requests for [`Http::recorded`]. Every response is
    /// an empty 200.
    pub fn dry_run() -> Self {
        let rules = Arc::new(AddressRules::new(AddressSettings::default()));
        Self {
            rules,
            transport: Transport::DryRun(Arc::default()),
            timeout: Duration::MAX,
            redactor: Redactor::default(),
            headers: BTreeMap::new(),
            confirmation: Confirmation::Status,
            accepts_redirects: false,
        }
    }

    /// A client for a service that confirms writes in this way.
    pub fn confirmed_by(self, confirmation: Confirmation) -> Self {
        Self {
            confirmation,
            ..self
        }
    }

    /// Adds the headers of the Provider's Secret to every request. They replace those of the type,
    /// except headers that HTTP or the type computes.
    #[must_use]
    pub fn with_headers_of(mut self, provider: &ResolvedProvider) -> Self {
        let headers = provider.headers.iter();
        let accepted = headers.filter(|(name, _)| provider.kind.accepts_header(name));
        self.headers = accepted
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self
    }

    /// Whether requests are only recorded. Responses then say nothing about the service.
    pub fn is_dry_run(&self) -> bool {
        matches!(self.transport, Transport::DryRun(_))
    }

    /// The address rules, for types that do not use HTTP.
    pub fn address_rules(&self) -> &Arc<AddressRules> {
        &self.rules
    }

    /// The requests recorded so far in a dry run.
    pub fn recorded(&self) -> Vec<Request> {
        match &self.transport {
            Transport::Wire(_) => Vec::new(),
            Transport::DryRun(requests) => requests.lock().clone(),
        }
    }

    /// Sends a request once and follows up to five redirects, each to an allowed http or https URL.
    ///
    /// 307 and 308 repeat the request. 301, 302 and 303 are followed for reads only; a
    /// Provider can accept them as the end of a write. Headers marked sensitive are not sent to
    /// another host.
    ///
    /// The body of a 2xx is not read if the service confirms writes by the status. A body that
    /// breaks off after another status is reported as far as it came.
    ///
    /// # Errors
    /// Transient if there is no response: unreachable, not trusted or timed out; or if the body of
    /// a 2xx breaks off, so that the answer is unknown. Permanent if the address is not allowed, a
    /// redirect is not followed, or a secret header cannot be sent. A response with any other
    /// status is no error.
    pub async fn send(&self, request: Request) -> Result<Response, Failure> {
        let request = request.secret_headers(&self.headers);
        request.check_headers()?;
        match &self.transport {
            Transport::Wire(clients) => self.call(clients, request).await,
            Transport::DryRun(requests) => {
                let host = host_of(&request.url);
                requests.lock().push(request);
                Ok(Response {
                    host,
                    status: 200,
                    headers: HeaderMap::new(),
                    body: Vec::new(),
                    is_read: false,
                    confirmation: Confirmation::Status,
                    accepted_redirect: false,
                    dry_run: true,
                    redactor: Redactor::default(),
                })
            }
        }
    }

    async fn call(&self, clients: &ClientSet, request: Request) -> Result<Response, Failure> {
        let redactor = self.redactor.with_headers(&request.headers);
        let redactor = redactor.with_secrets(&request.secrets);
        let is_read = request.is_read;
        let confirmation = match is_read {
            true => Confirmation::Parsed,
            false => self.confirmation,
        };
        let now = Instant::now();
        let deadline = now.checked_add(self.timeout).unwrap_or(now + FAR);
        let late = Failure::transient(
            Reason::Timeout,
            format!(
                "{} did not answer within {:?}",
                host_of(&request.url),
                self.timeout
            ),
        );
        let head = timeout_at(deadline, self.follow(clients, request)).await;
        let head = head.unwrap_or(Err(late)).map_err(|failure| Failure {
            detail: cut_chars(&redactor.redact(&failure.detail), LONGEST_DETAIL),
            ..failure
        })?;
        let response = Response {
            host: head.host,
            status: head.response.status().as_u16(),
            headers: head.response.headers().clone(),
            body: Vec::new(),
            is_read,
            confirmation,
            accepted_redirect: head.accepted_redirect,
            dry_run: false,
            redactor,
        };
        response.with_body(head.response, deadline).await
    }

    async fn follow(&self, clients: &ClientSet, mut request: Request) -> Result<Head, Failure> {
        for _ in 0..=MOST_REDIRECTS {
            clients.check_target(&self.rules, &request.url).await?;
            let host = host_of(&request.url);
            let response = send_one(clients, &request).await?;
            let status = response.status().as_u16();
            let accepted_redirect =
                self.accepts_redirects && redirect::loses_body(&request, status);
            let target = match accepted_redirect {
                true => None,
                false => redirect::target(&request, status, response.headers())?,
            };
            match target {
                Some(target) => request = redirect::redirected(request, target),
                None => {
                    return Ok(Head {
                        host,
                        response,
                        accepted_redirect,
                    });
                }
            }
        }
        Err(Failure::permanent(
            Reason::Rejected,
            format!(
                "{} redirects more than {MOST_REDIRECTS} times",
                host_of(&request.url)
            ),
        ))
    }
}

/// A response whose body is not read yet.
struct Head {
    host: String,
    response: reqwest::Response,
    accepted_redirect: bool,
}

async fn send_one(clients: &ClientSet, request: &Request) -> Result<reqwest::Response, Failure> {
    let client = clients.client_for(&request.url);
    let mut builder = client
        .request(request.method.clone(), request.url.clone())
        .headers(request.headers.clone());
    if !request.body.is_empty() {
        builder = builder.body(request.body.clone());
    }
    let sent = builder.send().await;
    sent.map_err(|error| without_response(&host_of(&request.url), error))
}

/// The failure of a call without a response. It does not quote the URL, which may hold a secret.
fn without_response(host: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_timeout() {
        return Failure::transient(Reason::Timeout, format!("{host} did not answer in time"));
    }
    if error.is_builder() {
        return Failure::permanent(
            Reason::Misconfigured,
            format!("the request to {host} is invalid; check the address and the headers"),
        );
    }
    if let Some(failure) = untrusted(host, &error) {
        return failure;
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused.clone().into();
        }
    }
    Failure::transient(
        Reason::Unreachable,
        format!("no answer from {host}: {cause}"),
    )
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or("the service").to_owned()
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use reqwest::header::AUTHORIZATION;

    use super::*;

    #[tokio::test]
    async fn a_request_without_one_of_its_secret_headers_is_not_sent() {
        for token in ["s3cret\nX-B: c", "s3cret\r", "s3cret\0", "s3cret\x7f"] {
            let http = Http::dry_run();
            let url = Url::parse("https://service.example").unwrap();
            let failure = http
                .send(Request::new(Method::POST, url).bearer(token))
                .await;
            let failure = failure.unwrap_err();
            assert_eq!(failure.reason, Reason::Misconfigured);
            assert!(failure.detail.contains(AUTHORIZATION.as_str()), "{failure}");
            assert!(!failure.detail.contains("s3cret"), "{failure}");
            assert!(http.recorded().is_empty());
        }
    }
}
