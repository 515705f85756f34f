//! The clients that [`Http`](super::Http) uses, with the proxy and certificates of the environment
//! or of a Provider.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, ClientBuilder};
use tidings_rules::{Proxy, Tls};
use url::Url;

use super::resolver::{CheckedResolver, check_host};
use crate::http::address_rules::{AddressRules, Refused};
use crate::http::invalid::Invalid;
use crate::tls::Trust;

/// The clients of one Provider.
#[derive(Clone)]
pub struct ClientSet {
    /// Connects to the service, or to the Provider's proxy.
    client: Client,
    /// Connects to the environment's proxy. It is a separate client, so that the proxy's host is
    /// exempt from the address rules only here.
    environment: Option<(Arc<Matcher>, Client)>,
    /// The Provider's proxy, which makes the connections to services.
    proxy: Option<Arc<CheckedProxy>>,
}

/// A Provider's proxy. It is checked like a service.
struct CheckedProxy {
    url: Url,
    /// The field or key that names it.
    origin: String,
}

impl ClientSet {
    /// For Providers without proxy and certificates: those of the environment apply
    /// (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`).
    ///
    /// # Errors
    /// The system's certificates can't be read.
    pub fn of_environment(rules: &Arc<AddressRules>) -> Result<Self, reqwest::Error> {
        Self::build(rules, [builder(), builder()])
    }

    /// For a Provider with a proxy or certificates of its own.
    ///
    /// # Errors
    /// A certificate, key or proxy address is invalid, or the proxy's address is refused; the error
    /// names it.
    pub fn of_provider(
        rules: &Arc<AddressRules>,
        tls: Option<&Tls>,
        proxy: Option<&Proxy>,
    ) -> Result<Self, Invalid> {
        let with_tls = || tls.map_or_else(|| Ok(builder()), |tls| with_tls(builder(), tls));
        let built = match proxy {
            Some(proxy) => {
                let checked = CheckedProxy::new(rules, proxy)?;
                let client = with_tls()?
                    .proxy(reqwest_proxy(proxy)?)
                    .dns_resolver(Arc::new(CheckedResolver::new(rules, Vec::new())))
                    .build();
                client.map(|client| Self {
                    client,
                    environment: None,
                    proxy: Some(Arc::new(checked)),
                })
            }
            None => Self::build(rules, [with_tls()?, with_tls()?]),
        };
        // The errors of reqwest may quote secrets.
        built.map_err(|_| {
            Invalid::from(
                "spec.certSecretRef or the proxy is invalid; check the keys ca.crt, tls.crt and \
                 tls.key",
            )
        })
    }

    fn build(
        rules: &Arc<AddressRules>,
        [direct, proxied]: [ClientBuilder; 2],
    ) -> Result<Self, reqwest::Error> {
        let client = direct
            .no_proxy()
            .dns_resolver(Arc::new(CheckedResolver::new(rules, Vec::new())))
            .build()?;
        let matcher = Matcher::from_env();
        let proxies = proxies_of(&matcher);
        let environment = if proxies.is_empty() {
            None
        } else {
            let client = proxied
                .dns_resolver(Arc::new(CheckedResolver::new(rules, proxies)))
                .build()?;
            Some((Arc::new(matcher), client))
        };
        Ok(Self {
            client,
            environment,
            proxy: None,
        })
    }

    /// Checks the host of a URL: an address in it. Names are checked when the client connects;
    /// behind a Provider's proxy here, because the proxy resolves them. That proxy is checked, too,
    /// so that the error names its field.
    ///
    /// # Errors
    /// The rules refuse the host or the proxy.
    pub async fn check_target(&self, rules: &AddressRules, url: &Url) -> Result<(), Refused> {
        let Some(proxy) = &self.proxy else {
            return rules.check_url(url);
        };
        let checked = check_host(rules, &proxy.url).await;
        checked.map_err(|refused| refused.of_proxy(&proxy.origin))?;
        check_host(rules, url).await
    }

    /// The client for a URL.
    pub fn client_for(&self, url: &Url) -> &Client {
        let Some((matcher, client)) = &self.environment else {
            return &self.client;
        };
        let is_proxied = url
            .as_str()
            .parse::<Uri>()
            .is_ok_and(|uri| matcher.intercept(&uri).is_some());
        if is_proxied { client } else { &self.client }
    }
}

impl CheckedProxy {
    /// The proxy, whose address in the URL is checked.
    fn new(rules: &AddressRules, proxy: &Proxy) -> Result<Self, Invalid> {
        let origin = proxy.origin.clone();
        let url = Url::parse(&proxy.address)
            .map_err(|_| Invalid(format!("{origin}: the proxy is not a URL; correct it")))?;
        let checked = rules.check_url(&url);
        checked.map_err(|refused| Invalid(refused.of_proxy(&origin).to_string()))?;
        Ok(Self { url, origin })
    }
}

/// The hosts of the environment's proxies, found with a probe host that no `NO_PROXY` excludes.
fn proxies_of(matcher: &Matcher) -> Vec<String> {
    let probes = [
        Uri::from_static("http://a.tidings.invalid"),
        Uri::from_static("https://a.tidings.invalid"),
    ];
    let proxy = |probe| matcher.intercept(probe)?.uri().host().map(str::to_owned);
    probes.iter().filter_map(proxy).collect()
}

/// What the client reads of a body before the body is read, in bytes.
const HTTP2_WINDOW: u32 = 64 << 10;
/// The most bytes of the headers of an answer by HTTP/2. By HTTP/1.1 it is 408 KiB.
const HTTP2_MAX_HEADERS: u32 = 64 << 10;

fn builder() -> ClientBuilder {
    Client::builder()
        .http2_initial_stream_window_size(HTTP2_WINDOW)
        .http2_initial_connection_window_size(HTTP2_WINDOW)
        .http2_max_header_list_size(HTTP2_MAX_HEADERS)
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(60))
        .referer(false)
}

fn reqwest_proxy(proxy: &Proxy) -> Result<reqwest::Proxy, Invalid> {
    let reqwest_proxy = reqwest::Proxy::all(&proxy.address).map_err(|_| {
        Invalid::from("spec.proxySecretRef: the key address is not a URL; write http://HOST:PORT")
    })?;
    let Some((username, password)) = &proxy.credentials else {
        return Ok(reqwest_proxy);
    };
    let password = password
        .password()
        .ok_or("spec.proxySecretRef: the key password is not UTF-8; correct it")?;
    Ok(reqwest_proxy.basic_auth(username, password))
}

fn with_tls(builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder, Invalid> {
    let trust = Trust::new(Some(tls))?;
    let mut config = trust.config(trust.verifier())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(builder.tls_backend_preconfigured(config))
}
