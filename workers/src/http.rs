//! The one HTTP client of all provider types: proxy, TLS, timeout, redirects, sizes and outcomes are the same everywhere.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Method};
use serde::Serialize;
use tidings_core::{Failure, Reason};
use tidings_rules::{ResolvedProvider, Tls};
use url::Url;

use crate::notifier::Invalid;

/// Redirects are followed this many times.
const MOST_REDIRECTS: usize = 5;
/// More of an answer is not read; the longest that is needed is a page of a hundred comments.
const MOST_OF_AN_ANSWER: usize = 8 << 20;

/// Makes requests for one Provider, or only records them.
#[derive(Clone)]
pub struct Http {
    transport: Transport,
    timeout: Duration,
}

#[derive(Clone)]
enum Transport {
    Wire(Client),
    DryRun(Arc<Mutex<Vec<Request>>>),
}

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
pub struct Answer {
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
}

// === impl Http ===

impl Http {
    /// A client with the proxy, the certificates and the timeout of a Provider. `shared` serves those that have neither
    /// proxy nor certificates of their own.
    ///
    /// # Errors
    /// A certificate, key or proxy address that can't be read, as a sentence that names its key.
    pub fn new(provider: &ResolvedProvider, shared: &Client) -> Result<Self, Invalid> {
        let client = if provider.tls.is_none() && provider.proxy.is_none() { shared.clone() } else { own_client(provider)? };
        Ok(Self { transport: Transport::Wire(client), timeout: provider.timeout })
    }

    /// A client that makes no request, but keeps them for [`Http::recorded`]. Every answer is an empty 200.
    pub fn dry_run() -> Self {
        Self { transport: Transport::DryRun(Arc::default()), timeout: Duration::MAX }
    }

    /// Whether requests are only recorded: then nothing can be learnt from an answer.
    pub fn is_dry_run(&self) -> bool {
        matches!(self.transport, Transport::DryRun(_))
    }

    /// The requests of a dry run so far.
    pub fn recorded(&self) -> Vec<Request> {
        match &self.transport {
            Transport::Wire(_) => Vec::new(),
            Transport::DryRun(requests) => requests.lock().map(|requests| requests.clone()).unwrap_or_default(),
        }
    }

    /// Sends a request once and follows at most five redirects, each of them to http or https only.
    ///
    /// 307 and 308 repeat the request, 301, 302 and 303 become a GET without body, as Flux's notification-controller has
    /// it. Another host gets no header that is marked sensitive.
    ///
    /// # Errors
    /// Transient, where no answer came: unreachable or timeout. Every status is an answer.
    pub async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let client = match &self.transport {
            Transport::Wire(client) => client,
            Transport::DryRun(requests) => {
                let host = host_of(&request.url);
                if let Ok(mut requests) = requests.lock() {
                    requests.push(request);
                }
                return Ok(Answer { host, status: 200, headers: HeaderMap::new(), body: Vec::new(), dry_run: true });
            }
        };
        let host = host_of(&request.url);
        let late = Failure::transient(Reason::Timeout, format!("{host} did not answer within {:?}", self.timeout));
        tokio::time::timeout(self.timeout, follow(client, request)).await.unwrap_or(Err(late))
    }
}

/// The client for Providers without a proxy and certificates of their own: those of the environment count
/// (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`).
///
/// # Errors
/// The system's certificates can't be read.
pub fn shared_client() -> Result<Client, reqwest::Error> {
    base_builder().build()
}

fn base_builder() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(60))
        .referer(false)
}

fn own_client(provider: &ResolvedProvider) -> Result<Client, Invalid> {
    let mut builder = base_builder();
    if let Some(tls) = &provider.tls {
        builder = with_tls(builder, tls)?;
    }
    if let Some(proxy) = &provider.proxy {
        let mut chosen = reqwest::Proxy::all(&proxy.address).map_err(|_| Invalid::from("the proxy's address is not a URL"))?;
        if let Some((username, password)) = &proxy.credentials {
            let password = password.text().ok_or("the proxy's password is not UTF-8")?;
            chosen = chosen.basic_auth(username, password);
        }
        builder = builder.proxy(chosen);
    }
    // reqwest's own words may quote what it was given.
    builder.build().map_err(|_| Invalid::from("the certificates or the proxy can't be used; check ca.crt, tls.crt, tls.key"))
}

fn with_tls(mut builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, Invalid> {
    if let Some(authorities) = &tls.authorities {
        let certificates = Certificate::from_pem_bundle(authorities.bytes()).ok().filter(|bundle| !bundle.is_empty());
        builder = builder.tls_certs_only(certificates.ok_or("ca.crt holds no certificate in PEM form")?);
    }
    if let Some((certificate, key)) = &tls.identity {
        let pem = [certificate.bytes(), b"\n", key.bytes()].concat();
        let identity = Identity::from_pem(&pem).map_err(|_| Invalid::from("tls.crt and tls.key are not a pair in PEM form"))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

async fn follow(client: &Client, mut request: Request) -> Result<Answer, Failure> {
    for _ in 0..=MOST_REDIRECTS {
        let answer = send_one(client, &request).await?;
        let Some(target) = redirect_target(&request.url, &answer) else {
            return Ok(answer);
        };
        request = redirected(request, target?, answer.status);
    }
    Err(Failure::permanent(Reason::Rejected, format!("{} redirects more than {MOST_REDIRECTS} times", host_of(&request.url))))
}

async fn send_one(client: &Client, request: &Request) -> Result<Answer, Failure> {
    let host = host_of(&request.url);
    let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
    if !request.body.is_empty() {
        builder = builder.body(request.body.clone());
    }
    let mut response = builder.send().await.map_err(|error| unanswered(&host, error))?;
    let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&host, error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_OF_AN_ANSWER {
            body.truncate(MOST_OF_AN_ANSWER);
            break;
        }
    }
    Ok(Answer { host, status, headers, body, dry_run: false })
}

/// The next hop of an answer that redirects; nothing for every other answer.
fn redirect_target(base: &Url, answer: &Answer) -> Option<Result<Url, Failure>> {
    if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
    let target = base.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    Some(target.ok_or_else(|| Failure::permanent(Reason::Rejected, format!("{} redirects to no http address", answer.host))))
}

fn redirected(mut request: Request, target: Url, status: u16) -> Request {
    if matches!(status, 301..=303) && request.method != Method::HEAD {
        request.method = Method::GET;
        request.body.clear();
        request.headers.remove(header::CONTENT_TYPE);
    }
    if (target.scheme(), target.host(), target.port_or_known_default())
        != (request.url.scheme(), request.url.host(), request.url.port_or_known_default())
    {
        let secret: Vec<HeaderName> =
            request.headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(name, _)| name.clone()).collect();
        for name in secret {
            request.headers.remove(name);
        }
    }
    request.url = target;
    request
}

/// Why there is no answer. The URL stays out of the sentence: it may hold a secret.
fn unanswered(host: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if error.is_timeout() {
        return Failure::transient(Reason::Timeout, format!("{host} did not answer in time"));
    }
    if error.is_builder() {
        return Failure::permanent(Reason::Misconfigured, format!("the request to {host} can't be made"));
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::transient(Reason::Unreachable, format!("no answer from {host}: {cause}"))
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or("the service").to_owned()
}

// === impl Request ===

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Vec::new() }
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
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
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

    /// Sets a header that nobody else may see: it is redacted in dry runs and never follows a redirect to another host.
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
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        self.secret_header(header::AUTHORIZATION, &format!("Basic {pair}"))
    }

    /// Sets the headers of the Provider's Secret; they go before those set earlier.
    pub fn secret_headers(mut self, provider_headers: &std::collections::BTreeMap<String, String>) -> Self {
        for (name, value) in provider_headers {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                self = self.secret_header(name, value);
            }
        }
        self
    }
}

// === impl Answer ===

impl Answer {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The beginning of the body as text, for sentences.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        crate::text::cut_chars(&line, 300)
    }
}
