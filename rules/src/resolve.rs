//! Resolves a Provider: combines it with the contents of its Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings_core::model::id;
use tidings_core::model::token::hex;
use url::Url;

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
                None => Unresolved::Missing(format!(
                    "Provider {namespace}/{name} not found; create it in namespace {namespace}"
                )),
            }),
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
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kind::{Kind, Kinds};
    use crate::options::Options;
    use crate::testing::{self, Manifest, provider};

    const KINDS: Kinds = &[
        Kind {
            keys: KEYS,
            sends_headers: true,
            ..Kind::new("generic", Family::Generic)
        },
        Kind {
            keys: KEYS,
            ..Kind::new("github", Family::CommitStatus)
        },
        Kind {
            keys: &["token"],
            ..Kind::new("keyless", Family::Generic)
        },
    ];
    const KEYS: &[&str] = &[
        "address", "ca.crt", "headers", "password", "proxy", "tls.crt", "token", "url", "username",
    ];
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n";

    /// Resolves a Provider whose `secretRef` names a Secret with these keys, with additional
    /// fields.
    fn resolve_with(
        kind: &str,
        secret: Value,
        more: Value,
    ) -> Result<ResolvedProvider, Unresolved> {
        let provider = provider("p", kind)
            .with("address", "https://own.example")
            .with("username", "own")
            .with("secretRef", json!({"name": "s"}))
            .with_fields(more);
        let proxy = json!({
            "address": "socks5://proxy.example:1080", "username": "u", "password": "p",
        });
        let certificates = json!({"caFile": CERTIFICATE, "certFile": CERTIFICATE, "keyFile": KEY});
        let objects = [
            provider,
            testing::secret("s", secret),
            testing::secret("proxy", proxy),
            testing::secret("certificates", certificates),
            testing::secret("empty", json!({})),
        ]
        .map(Manifest::object);
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        assert_eq!(rules.problems(), []);
        rules
            .resolve("apps", "p")
            .map(|resolved| ResolvedProvider::clone(&resolved))
    }

    fn message(secret: Value, more: Value) -> String {
        resolve_with("generic", secret, more)
            .map(|_| String::new())
            .unwrap_or_else(|error| format!("{error:?}"))
    }

    #[test]
    fn the_secret_takes_precedence_over_the_spec() {
        let headers = "X-A: ' b '\nX-B: 1\n";
        let keys = json!({"address": " https://secret.example \n", "username": "theirs", "password": "p", "headers": headers});
        let resolved = resolve_with("generic", keys, json!({})).unwrap();
        assert_eq!(
            (resolved.address.as_str(), resolved.username.as_str()),
            ("https://secret.example", "theirs")
        );
        assert_eq!(
            resolved.headers,
            BTreeMap::from([("X-A".into(), " b ".into()), ("X-B".into(), "1".into())])
        );
        assert_eq!(
            resolve_with("generic", json!({"url": "https://u.example"}), json!({}))
                .unwrap()
                .address,
            "https://u.example"
        );
        let own = resolve_with("generic", json!({"headers": ""}), json!({})).unwrap();
        assert_eq!(
            (own.address.as_str(), own.username.as_str(), own.proxy),
            ("https://own.example", "own", None)
        );
        assert_eq!(
            resolve_with("generic", json!({"address": " "}), json!({}))
                .unwrap()
                .address,
            ""
        );
    }

    #[test]
    fn an_invalid_secret_is_reported_and_not_shown() {
        for (secret, more, expected) in [
            (
                json!({"address": "s3cret".repeat(400)}),
                json!({}),
                "the key address is longer than 2048 bytes",
            ),
            (
                json!({"username": "s3cret"}),
                json!({}),
                "the key password is missing",
            ),
            (
                json!({"password": "s3cret"}),
                json!({}),
                "the key username is missing",
            ),
            (
                json!({"headers": "- s3cret"}),
                json!({}),
                "the key headers must be a YAML map",
            ),
            (
                json!({"headers": "a b: s3cret"}),
                json!({}),
                "invalid HTTP header name",
            ),
            (
                json!({"headers": "X-A: \"s3cret\\nX-B: c\""}),
                json!({}),
                "in the value of X-A",
            ),
            (
                json!({"headers": "Connection: s3cret"}),
                json!({}),
                "the header Connection in the key headers controls the connection",
            ),
            (
                json!({"token": "s3cret\nX-B: c"}),
                json!({}),
                "the key token contains a line break",
            ),
            (
                json!({"username": "u", "password": "s3c\0ret"}),
                json!({}),
                "the key password contains",
            ),
            (
                json!({"proxy": "http://s3 cret:31 28"}),
                json!({}),
                "the key proxy must be",
            ),
            (
                json!({"ca.crt": "s3cret"}),
                json!({}),
                "the key ca.crt is not in PEM format",
            ),
            (
                json!({}),
                json!({"proxySecretRef": {"name": "empty"}}),
                "Secret apps/empty: the key address",
            ),
            (
                json!({}),
                json!({"certSecretRef": {"name": "empty"}}),
                "Secret apps/empty: no certificate",
            ),
            (
                json!({}),
                json!({"serviceAccountName": "x"}),
                "workload identity",
            ),
        ] {
            let message = message(secret.clone(), more.clone());
            assert!(
                message.starts_with("Invalid(") && message.contains(expected),
                "{secret} {more}: {message}"
            );
            assert!(!message.contains("s3"), "{message}");
        }
    }

    #[test]
    fn a_line_break_at_the_end_of_a_key_is_not_part_of_its_value() {
        let value = |line_end: &str| {
            let keys = json!({
                "address": format!("https://secret.example{line_end}"),
                "headers": format!("X-A: b{line_end}"),
                "password": format!(" p {line_end}"),
                "proxy": format!("http://proxy.example{line_end}"),
                "token": format!("t{line_end}"),
                "username": format!("u{line_end}"),
            });
            let resolved = resolve_with("generic", keys, json!({})).unwrap();
            let basic = resolved.secret.basic().unwrap();
            format!(
                "{} {:?} {basic:?} {:?} {:?}",
                resolved.address,
                resolved.headers,
                resolved.secret.token(),
                resolved.proxy.map(|proxy| proxy.address)
            )
        };
        assert!(value("").contains("\" p \""));
        for line_end in ["\n", "\r\n", "\n\n"] {
            assert_eq!(value(line_end), value(""), "{line_end:?}");
        }
    }

    #[test]
    fn keys_that_the_type_does_not_read_are_ignored_with_a_warning() {
        let secret = json!({
            "username": "s3cret", "password": "s3cret", "headers": "- s3cret", "proxy": "s3cret"
        });
        let objects = [
            provider("p", "keyless").with("secretRef", json!({"name": "s"})),
            testing::secret("s", secret),
        ]
        .map(Manifest::object);
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        let resolved = rules.resolve("apps", "p").unwrap();
        assert!(resolved.headers.is_empty() && resolved.proxy.is_none());
        let [problem] = rules.problems() else {
            panic!("one warning, not {:?}", rules.problems())
        };
        assert_eq!(problem.severity, crate::Severity::Warning);
        assert_eq!(problem.field.as_deref(), Some("spec.secretRef"));
        assert_eq!(rules.entries()[0].problems, rules.problems());
        let text = problem.to_string();
        assert!(
            text.contains("Secret apps/s") && !text.contains("s3cret"),
            "{text}"
        );
    }

    #[test]
    fn a_proxy_whose_host_the_client_cannot_read_is_no_proxy() {
        for address in ["http://p", "https://p.example:3128", "socks5://[::1]:1080"] {
            assert!(is_proxy(address), "{address}");
        }
        for address in [
            "socks5://b\u{fc}cher.example",
            "socks5://bad%20host:1080",
            "socks5://%31%32%37.0.0.1",
            "socks5://a{b}.example",
            "ftp://p",
            "socks5://",
        ] {
            assert!(!is_proxy(address), "{address}");
        }
    }

    #[test]
    fn a_missing_secret_is_reported_with_its_field() {
        for field in ["secretRef", "certSecretRef", "proxySecretRef"] {
            let message = message(json!({}), json!({field: {"name": "no"}}));
            assert_eq!(
                message,
                format!(
                    "Missing(\"spec.{field}: Secret apps/no not found; \
                     create it in namespace apps\")"
                )
            );
        }
        assert!(message(json!({}), json!({"suspend": true})).starts_with("Suspended("));
    }

    #[test]
    fn proxy_secret_ref_takes_precedence_over_the_secret_and_the_spec() {
        let proxy = |secret: Value, more: Value| {
            resolve_with("generic", secret, more)
                .unwrap()
                .proxy
                .unwrap()
        };
        let own = json!({"proxy": "http://spec.example"});
        assert_eq!(proxy(json!({}), own.clone()).address, "http://spec.example");
        assert_eq!(
            proxy(json!({"proxy": "http://secret.example"}), own).address,
            "http://secret.example"
        );
        let named = proxy(
            json!({"proxy": "http://secret.example"}),
            json!({"proxySecretRef": {"name": "proxy"}}),
        );
        assert_eq!(named.address, "socks5://proxy.example:1080");
        assert_eq!(named.credentials, Some(("u".into(), SecretValue::new("p"))));
        assert_eq!(named.origin, "spec.proxySecretRef, the key address");
    }

    #[test]
    fn certificates_of_the_secret_count_for_commit_statuses_only() {
        let keys = json!({"ca.crt": CERTIFICATE, "tls.crt": CERTIFICATE});
        assert!(
            resolve_with("generic", keys.clone(), json!({}))
                .unwrap()
                .tls
                .is_none()
        );
        let tls = resolve_with("github", keys.clone(), json!({}))
            .unwrap()
            .tls
            .unwrap();
        assert!(
            tls.authorities.is_some() && tls.identity.is_none(),
            "a certificate without a key is ignored"
        );
        let named = resolve_with(
            "generic",
            keys,
            json!({"certSecretRef": {"name": "certificates"}}),
        )
        .unwrap()
        .tls
        .unwrap();
        assert!(named.authorities.is_some() && named.identity.is_some());
    }

    #[test]
    fn the_fingerprint_changes_with_every_secret() {
        let of =
            |secret: Value, more: Value| resolve_with("generic", secret, more).unwrap().fingerprint;
        let base = of(json!({"token": "a"}), json!({}));
        assert_eq!(base, of(json!({"token": "a"}), json!({})));
        assert_ne!(base, of(json!({"token": "b"}), json!({})));
        assert_ne!(base, of(json!({"token": "a"}), json!({"timeout": "1s"})));
        assert_ne!(
            base,
            of(
                json!({"token": "a"}),
                json!({"proxySecretRef": {"name": "proxy"}})
            )
        );
    }
}
