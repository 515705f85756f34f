//! The one HTTP client of all provider types: addresses, proxy, TLS, timeout, redirects, sizes and
//! outcomes are the same everywhere.

pub mod address;
pub mod address_rules;
pub mod classify;
mod client;
mod exchange;
pub mod invalid;
pub mod redact;
mod redirect;
mod resolver;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use tidings_core::runtime::config::AddressSettings;
use tidings_core::{Failure, Reason};
use tidings_rules::ResolvedProvider;
use url::Url;

use crate::http::redact::Redactor;
use address_rules::{AddressRules, Refused};
use client::Ways;
use invalid::Invalid;

pub use exchange::{Request, Response};

/// Redirects are followed this many times.
const MOST_REDIRECTS: usize = 5;
/// More of an response is not read; the longest that is needed is a page of a hundred comments.
const MOST_OF_AN_ANSWER: usize = 8 << 20;

/// What all Providers share on their way out.
#[derive(Clone)]
pub struct HttpClients {
    rules: Arc<AddressRules>,
    ways: Ways,
}

/// Makes requests for one Provider, or only records them.
#[derive(Clone)]
pub struct Http {
    rules: Arc<AddressRules>,
    transport: Transport,
    timeout: Duration,
    redactor: Redactor,
}

#[derive(Clone)]
enum Transport {
    Wire(Ways),
    DryRun(Arc<Mutex<Vec<Request>>>),
}

impl HttpClients {
    /// The way out with these rules for addresses, and with the proxy and the certificates of the
    /// environment.
    ///
    /// # Errors
    /// The system's certificates can't be read.
    pub fn new(addresses: AddressSettings) -> Result<Self, reqwest::Error> {
        let rules = Arc::new(AddressRules::new(addresses));
        Ok(Self {
            ways: Ways::of_environment(&rules)?,
            rules,
        })
    }
}

// === impl Http ===

impl Http {
    /// A client with the proxy, the certificates and the timeout of a Provider. Those that have
    /// neither proxy nor certificates of their own share one.
    ///
    /// # Errors
    /// A certificate, key or proxy address that can't be read, as a sentence that names its key.
    pub fn new(provider: &ResolvedProvider, http_clients: &HttpClients) -> Result<Self, Invalid> {
        let rules = http_clients.rules.clone();
        let ways = match (&provider.tls, &provider.proxy) {
            (None, None) => http_clients.ways.clone(),
            (tls, proxy) => Ways::of_provider(&rules, tls.as_ref(), proxy.as_ref())?,
        };
        Ok(Self {
            rules,
            transport: Transport::Wire(ways),
            timeout: provider.timeout,
            redactor: Redactor::new(provider),
        })
    }

    /// A client that makes no request, but keeps them for [`Http::recorded`]. Every response is an
    /// empty 200.
    pub fn dry_run() -> Self {
        let rules = Arc::new(AddressRules::new(AddressSettings::default()));
        Self {
            rules,
            transport: Transport::DryRun(Arc::default()),
            timeout: Duration::MAX,
            redactor: Redactor::default(),
        }
    }

    /// Whether requests are only recorded: then nothing can be learnt from an response.
    pub fn is_dry_run(&self) -> bool {
        matches!(self.transport, Transport::DryRun(_))
    }

    /// Which addresses may be connected to, for what is not HTTP.
    pub fn address_rules(&self) -> &Arc<AddressRules> {
        &self.rules
    }

    /// The requests of a dry run so far.
    pub fn recorded(&self) -> Vec<Request> {
        match &self.transport {
            Transport::Wire(_) => Vec::new(),
            Transport::DryRun(requests) => requests.lock().clone(),
        }
    }

    /// Sends a request once and follows at most five redirects, each of them to http or https only,
    /// and each to an address that is allowed.
    ///
    /// 307 and 308 repeat the request, 301, 302 and 303 become a GET without body, as Flux's
    /// notification-controller has it. Another host gets no header that is marked sensitive.
    ///
    /// # Errors
    /// Transient, where no response came: unreachable or timeout. Permanent, where the address is
    /// refused. Every status is an response.
    pub async fn send(&self, request: Request) -> Result<Response, Failure> {
        let host = host_of(&request.url);
        match &self.transport {
            Transport::Wire(ways) => {
                let late = Failure::transient(
                    Reason::Timeout,
                    format!("{host} did not answer within {:?}", self.timeout),
                );
                let redactor = self.redactor.with_headers(&request.headers);
                let response =
                    tokio::time::timeout(self.timeout, follow(ways, &self.rules, request))
                        .await
                        .unwrap_or(Err(late))?;
                Ok(Response {
                    redactor,
                    ..response
                })
            }
            Transport::DryRun(requests) => {
                requests.lock().push(request);
                Ok(Response {
                    host,
                    status: 200,
                    headers: HeaderMap::new(),
                    body: Vec::new(),
                    dry_run: true,
                    redactor: Redactor::default(),
                })
            }
        }
    }
}

async fn follow(
    ways: &Ways,
    rules: &AddressRules,
    mut request: Request,
) -> Result<Response, Failure> {
    for _ in 0..=MOST_REDIRECTS {
        rules.check_url(&request.url)?;
        let response = send_one(ways, &request).await?;
        let Some(target) = redirect::target(&request.url, &response) else {
            return Ok(response);
        };
        request = redirect::redirected(request, target?, response.status);
    }
    Err(Failure::permanent(
        Reason::Rejected,
        format!(
            "{} redirects more than {MOST_REDIRECTS} times",
            host_of(&request.url)
        ),
    ))
}

async fn send_one(ways: &Ways, request: &Request) -> Result<Response, Failure> {
    let host = host_of(&request.url);
    let client = ways.client_for(&request.url);
    let mut builder = client
        .request(request.method.clone(), request.url.clone())
        .headers(request.headers.clone());
    if !request.body.is_empty() {
        builder = builder.body(request.body.clone());
    }
    let mut response = builder
        .send()
        .await
        .map_err(|error| unanswered(&host, error))?;
    let (status, headers) = (
        response.status().as_u16(),
        std::mem::take(response.headers_mut()),
    );
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unanswered(&host, error))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_OF_AN_ANSWER {
            body.truncate(MOST_OF_AN_ANSWER);
            break;
        }
    }
    Ok(Response {
        host,
        status,
        headers,
        body,
        dry_run: false,
        redactor: Redactor::default(),
    })
}

/// Why there is no response. The URL stays out of the sentence: it may hold a secret.
fn unanswered(host: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_timeout() {
        return Failure::transient(Reason::Timeout, format!("{host} did not answer in time"));
    }
    if error.is_builder() {
        return Failure::permanent(
            Reason::Misconfigured,
            format!("the request to {host} can't be made"),
        );
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
