//! Resolves a Provider: combines it with the contents of its Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings_core::model::id;
use tidings_core::model::origin;
use tidings_core::model::token::hex;
use url::Url;

use crate::grant;
use crate::kind::Family;
use crate::object::Identity;
use crate::provider::Provider;
use crate::resolved::{Proxy, ResolvedProvider, SecretData, SecretValue, Tls, Unresolved};
use crate::secret_keys;
use crate::snapshot::Rules;

/// The maximum length of an address, as in the CRD.
const MAX_ADDRESS_BYTES: usize = 2048;

impl Rules {
    /// A Provider with the contents of its Secrets. The result is computed once per snapshot.
    ///
    /// # Errors
    /// `Missing` if the Provider or one of its Secrets does not exist, `Suspended` if it is
    /// suspended, and `Invalid` if the Provider or a Secret must be changed.
    pub fn resolve(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<ResolvedProvider>, Unresolved> {
        match self.provider_entry(namespace, name) {
            Some(entry) => entry
                .resolved
                .get_or_init(|| resolve(self, &entry.provider).map(Arc::new))
                .clone(),
            None => Err(match self.rejection("Provider", namespace, name) {
                Some(message) => Unresolved::Invalid(format!(
                    "Provider {namespace}/{name} is invalid: {message}"
                )),
                None => Unresolved::Missing(self.not_found(namespace, name)),
            }),
        }
    }
}

impl Rules {
    /// The same as [`Rules::resolve`], for an Alert in the namespace `from`.
    ///
    /// # Errors
    /// Those of [`Rules::resolve`], and `Missing` if the Provider is not shared with the namespace.
    /// This says nothing about the Provider, not even whether it exists.
    pub fn resolve_for(
        &self,
        from: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<ResolvedProvider>, Unresolved> {
        match self.is_granted(from, namespace, name) {
            true => self.resolve(namespace, name),
            false => Err(Unresolved::Missing(grant::missing(from, namespace, name))),
        }
    }
}

impl Rules {
    /// Why a Provider is not part of the rules.
    fn not_found(&self, namespace: &str, name: &str) -> String {
        match origin::split(namespace).0 {
            Some(cluster) if self.is_unread(cluster) => format!(
                "Provider {namespace}/{name}: the rules of cluster {cluster} were not read since \
                 this process started; check its API server and its kubeconfig"
            ),
            _ => {
                format!("Provider {namespace}/{name} not found; create it in namespace {namespace}")
            }
        }
    }
}

/// Resolves a Provider with the Secrets of the same snapshot.
fn resolve(rules: &Rules, provider: &Provider) -> Result<ResolvedProvider, Unresolved> {
    let subject = format!("Provider {}/{}", provider.namespace, provider.name);
    if provider.suspended {
        return Err(Unresolved::Suspended(format!("{subject} is suspended")));
    }
    if provider.service_account.is_some() {
        return Err(Unresolved::Invalid(format!(
            "{subject}: spec.serviceAccountName: workload identity is not supported; use \
             spec.secretRef"
        )));
    }
    let reader = Reader { rules, provider };
    let secret = reader
        .read("spec.secretRef", provider.secret.as_deref())?
        .cloned()
        .unwrap_or_default();
    let cert_secret = reader.read("spec.certSecretRef", provider.cert_secret.as_deref())?;
    let proxy_secret = reader.read("spec.proxySecretRef", provider.proxy_secret.as_deref())?;
    secret_keys::check_credentials(&provider.kind, &secret)
        .map_err(|message| reader.invalid_secret(&message))?;
    reader.check_basic(&secret)?;
    let tls = reader.tls(&secret, cert_secret)?;
    Ok(ResolvedProvider {
        address: reader.address(&secret)?,
        username: secret
            .text("username")
            .unwrap_or(&provider.username)
            .to_owned(),
        headers: reader.headers(&secret)?,
        proxy: reader.proxy(&secret, proxy_secret)?,
        fingerprint: fingerprint(provider, [Some(&secret), cert_secret, proxy_secret]),
        tls,
        secret,
        namespace: provider.namespace.clone(),
        name: provider.name.clone(),
        uid: provider.uid.clone(),
        kind: provider.kind,
        api_address: provider.api_address.clone(),
        channel: provider.channel.clone(),
        timeout: provider.timeout,
        commit_status_expr: provider.commit_status_expr.clone(),
        rate_limit: provider.rate_limit,
        max_in_flight: provider.max_in_flight,
        commit_status: provider.commit_status.clone(),
        reason_states: provider.reason_states.clone(),
        links: provider.links,
        accept_redirects: provider.accept_redirects,
        cluster_field: provider.cluster_field,
        retry: provider.retry,
        manifest: provider.manifest.clone(),
    })
}

/// Reads the Secrets of one Provider. Errors name the Secret and the field that references it.
struct Reader<'a> {
    rules: &'a Rules,
    provider: &'a Provider,
}

impl<'a> Reader<'a> {
    fn read(&self, field: &str, name: Option<&str>) -> Result<Option<&'a SecretData>, Unresolved> {
        let Some(name) = name else {
            return Ok(None);
        };
        let namespace = &self.provider.namespace;
        let data = self.rules.secret(namespace, name);
        data.map(Some)
            .ok_or_else(|| match self.rules.rejection("Secret", namespace, name) {
                Some(message) => Unresolved::Invalid(format!(
                    "{field}: Secret {namespace}/{name} is invalid: {message}"
                )),
                None => Unresolved::Missing(self.not_found(field, name)),
            })
    }

    fn not_found(&self, field: &str, name: &str) -> String {
        let namespace = &self.provider.namespace;
        let secret = Identity {
            kind: "Secret".to_owned(),
            namespace: namespace.clone(),
            name: name.to_owned(),
        };
        match self.rules.unreadable(&secret) {
            Some(reason) => format!("{field}: {secret} cannot be read: {reason}"),
            None => {
                format!("{field}: {secret} not found; create it in namespace {namespace}")
            }
        }
    }

    fn invalid(&self, secret: Option<&str>, message: &str) -> Unresolved {
        let namespace = &self.provider.namespace;
        Unresolved::Invalid(format!(
            "Secret {namespace}/{}: {message}",
            secret.unwrap_or_default()
        ))
    }

    /// An error in the Secret of `secretRef`.
    fn invalid_secret(&self, message: &str) -> Unresolved {
        self.invalid(self.provider.secret.as_deref(), message)
    }

    fn reads(&self, key: &str) -> bool {
        self.provider.kind.reads(key)
    }

    /// Rejects a user name without its password, or the reverse, for every type. Flux then sends
    /// without any credentials, or fails.
    fn check_basic(&self, secret: &SecretData) -> Result<(), Unresolved> {
        let given = |key| secret.text(key).is_some();
        match (given("username"), given("password")) {
            (true, false) => Err(self
                .invalid_secret("the key password is missing; add it, or remove the key username")),
            (false, true) => Err(self
                .invalid_secret("the key username is missing; add it, or remove the key password")),
            _ => Ok(()),
        }
    }

    /// A key of the Secret takes precedence over `spec.address`, even if it is blank.
    fn address(&self, secret: &SecretData) -> Result<String, Unresolved> {
        for key in ["address", "url"] {
            if let Some(value) = secret.get(key) {
                let text = value.text().ok_or_else(|| {
                    self.invalid_secret(&format!("the key {key} is not valid UTF-8"))
                })?;
                if text.len() > MAX_ADDRESS_BYTES {
                    return Err(self.invalid_secret(&format!(
                        "the key {key} is longer than {MAX_ADDRESS_BYTES} bytes; shorten it"
                    )));
                }
                return Ok(text.to_owned());
            }
        }
        Ok(self.provider.address.trim().to_owned())
    }

    fn headers(&self, secret: &SecretData) -> Result<BTreeMap<String, String>, Unresolved> {
        let Some(value) = secret.get("headers").filter(|_| self.reads("headers")) else {
            return Ok(BTreeMap::new());
        };
        let text = value
            .text()
            .ok_or_else(|| self.invalid_secret("the key headers is not valid UTF-8"))?;
        if text.is_empty() {
            return Ok(BTreeMap::new());
        }
        let headers = secret_keys::headers(text);
        let checked = headers.and_then(|headers| {
            secret_keys::check_headers(&self.provider.kind, &headers).map(|()| headers)
        });
        checked.map_err(|message| self.invalid_secret(&message))
    }

    fn proxy(
        &self,
        secret: &SecretData,
        proxy_secret: Option<&SecretData>,
    ) -> Result<Option<Proxy>, Unresolved> {
        if let Some(proxy_secret) = proxy_secret {
            let name = self.provider.proxy_secret.as_deref();
            let address = proxy_secret.text("address");
            let address = address.ok_or_else(|| {
                self.invalid(
                    name,
                    "the key address is missing; set it to the URL of the proxy",
                )
            })?;
            if !is_proxy(address) {
                return Err(
                    self.invalid(name, "the key address must be an http, https or socks5 URL")
                );
            }
            for key in ["username", "password"] {
                secret_keys::check_credential(key, proxy_secret)
                    .map_err(|message| self.invalid(name, &message))?;
            }
            let password = SecretValue::new(proxy_secret.text("password").unwrap_or_default());
            let credentials = proxy_secret
                .text("username")
                .map(|username| (username.to_owned(), password));
            return Ok(Some(Proxy {
                address: address.to_owned(),
                credentials,
                origin: "spec.proxySecretRef, the key address".to_owned(),
            }));
        }
        if let Some(address) = secret.text("proxy").filter(|_| self.reads("proxy")) {
            if !is_proxy(address) {
                return Err(
                    self.invalid_secret("the key proxy must be an http, https or socks5 URL")
                );
            }
            return Ok(Some(Proxy {
                address: address.to_owned(),
                credentials: None,
                origin: "spec.secretRef, the key proxy".to_owned(),
            }));
        }
        match self.provider.proxy.as_str() {
            "" => Ok(None),
            address if is_proxy(address) => Ok(Some(Proxy {
                address: address.to_owned(),
                credentials: None,
                origin: "spec.proxy".to_owned(),
            })),
            _ => {
                let Provider {
                    namespace, name, ..
                } = self.provider;
                Err(Unresolved::Invalid(format!(
                    "Provider {namespace}/{name}: spec.proxy must be an http or https URL"
                )))
            }
        }
    }

    /// Certificates of `certSecretRef`. Those of `secretRef` are only used for commit statuses, but
    /// must be valid for every type.
    fn tls(
        &self,
        secret: &SecretData,
        cert_secret: Option<&SecretData>,
    ) -> Result<Option<Tls>, Unresolved> {
        if let Some(data) = cert_secret {
            let name = self.provider.cert_secret.as_deref();
            let tls = certificates(data).map_err(|message| self.invalid(name, &message))?;
            if tls.authorities.is_none() && tls.identity.is_none() {
                return Err(self.invalid(
                    name,
                    "no certificate found; add the key ca.crt, or tls.crt and tls.key",
                ));
            }
            return Ok(Some(tls));
        }
        let tls = certificates(secret).map_err(|message| self.invalid_secret(&message))?;
        let counts = self.provider.kind.family == Family::CommitStatus && tls != Tls::default();
        Ok(counts.then_some(tls))
    }
}

/// Reads `ca.crt`, `tls.crt` and `tls.key`, or the former names of these keys. A certificate
/// without its key is ignored.
fn certificates(data: &SecretData) -> Result<Tls, String> {
    let find = |keys: [&'static str; 2]| {
        let named = keys
            .into_iter()
            .find_map(|key| data.get(key).map(|value| (key, value)));
        named.filter(|(_, value)| !value.bytes().is_empty())
    };
    let pem = |(key, value): (&str, &SecretValue), begin: &str| {
        let text = value.text().unwrap_or_default();
        if text.contains(begin) {
            Ok(value.clone())
        } else {
            Err(format!("the key {key} is not in PEM format ({begin}…)"))
        }
    };
    let authorities = find(["ca.crt", "caFile"])
        .map(|found| pem(found, "-----BEGIN CERTIFICATE"))
        .transpose()?;
    let identity = match (find(["tls.crt", "certFile"]), find(["tls.key", "keyFile"])) {
        (Some(certificate), Some(key)) => Some((
            pem(certificate, "-----BEGIN CERTIFICATE")?,
            pem(key, "-----BEGIN")?,
        )),
        _ => None,
    };
    Ok(Tls {
        authorities,
        identity,
    })
}

fn is_proxy(address: &str) -> bool {
    // The client ignores a proxy whose host it cannot read.
    let is_plain = |host: &str| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    };
    Url::parse(address).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https" | "socks5")
            && url
                .host_str()
                .is_some_and(|host| !host.is_empty() && is_plain(host))
    })
}

/// A hash of the manifest and the Secrets. It does not reveal them.
fn fingerprint(provider: &Provider, secrets: [Option<&SecretData>; 3]) -> String {
    let mut parts = vec![provider.manifest.to_string()];
    for secret in secrets {
        for (key, value) in secret.iter().flat_map(|secret| &secret.0) {
            parts.extend([key.clone(), hex(value.bytes())]);
        }
        // Separates the Secrets: no key is empty.
        parts.push(String::new());
    }
    id::digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
