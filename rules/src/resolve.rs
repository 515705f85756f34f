//! A Provider and its Secrets become what a notifier is built from.

use std::collections::BTreeMap;

use tidings_core::model::id;
use tidings_core::model::token::hex;
use url::Url;

use crate::kind::Family;
use crate::object::Identity;
use crate::provider::Provider;
use crate::resolved::{Proxy, ResolvedProvider, SecretData, SecretValue, Tls, Unresolved};
use crate::snapshot::Rules;

/// The longest address, as in the API.
const LONGEST_ADDRESS_BYTES: usize = 2048;

/// Resolves a Provider with the Secrets of the same rules.
pub(crate) fn resolve(rules: &Rules, provider: &Provider) -> Result<ResolvedProvider, Unresolved> {
    let subject = format!("Provider {}/{}", provider.namespace, provider.name);
    if provider.suspended {
        return Err(Unresolved::Suspended(format!("{subject} is suspended")));
    }
    if provider.service_account.is_some() {
        let sentence = "spec.serviceAccountName asks for workload identity, which is not supported; use spec.secretRef";
        return Err(Unresolved::Invalid(format!("{subject}: {sentence}")));
    }
    let reader = Reader { rules, provider };
    let secret = reader
        .read("spec.secretRef", provider.secret.as_deref())?
        .cloned()
        .unwrap_or_default();
    let cert_secret = reader.read("spec.certSecretRef", provider.cert_secret.as_deref())?;
    let proxy_secret = reader.read("spec.proxySecretRef", provider.proxy_secret.as_deref())?;
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
        channel: provider.channel.clone(),
        timeout: provider.timeout,
        commit_status_expr: provider.commit_status_expr.clone(),
        rate_limit: provider.rate_limit,
        max_in_flight: provider.max_in_flight,
        commit_status: provider.commit_status.clone(),
        links: provider.links,
        retry: provider.retry,
        manifest: provider.manifest.clone(),
    })
}

/// Reads Secrets for one Provider, and says which one is wrong.
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
            .ok_or_else(|| match self.rules.refusal("Secret", namespace, name) {
                Some(sentence) => Unresolved::Invalid(format!(
                    "Secret {namespace}/{name} of {field} is refused: {sentence}"
                )),
                None => Unresolved::Missing(self.absent(field, name)),
            })
    }

    fn absent(&self, field: &str, name: &str) -> String {
        let namespace = &self.provider.namespace;
        let secret = Identity {
            kind: "Secret".to_owned(),
            namespace: namespace.clone(),
            name: name.to_owned(),
        };
        match self.rules.unreadable(&secret) {
            Some(why) => format!("{secret}, which {field} names, can't be read: {why}"),
            None => format!("there is no {secret}, which {field} names"),
        }
    }

    fn invalid(&self, secret: Option<&str>, sentence: &str) -> Unresolved {
        let namespace = &self.provider.namespace;
        Unresolved::Invalid(format!(
            "Secret {namespace}/{}: {sentence}",
            secret.unwrap_or_default()
        ))
    }

    /// What is wrong with the Secret of `secretRef`.
    fn invalid_secret(&self, sentence: &str) -> Unresolved {
        self.invalid(self.provider.secret.as_deref(), sentence)
    }

    fn check_basic(&self, secret: &SecretData) -> Result<(), Unresolved> {
        let password = secret
            .get("password")
            .is_some_and(|value| !value.bytes().is_empty());
        match (secret.text("username").is_some(), password) {
            (true, false) => Err(self.invalid_secret(
                "the key username is there without password; give both or neither",
            )),
            (false, true) => Err(self.invalid_secret(
                "the key password is there without username; give both or neither",
            )),
            _ => Ok(()),
        }
    }

    /// A key of the Secret that is there takes the address's place, even when it is blank.
    fn address(&self, secret: &SecretData) -> Result<String, Unresolved> {
        for key in ["address", "url"] {
            if let Some(value) = secret.get(key) {
                let text = value
                    .text()
                    .ok_or_else(|| self.invalid_secret(&format!("the key {key} is not text")))?;
                if text.len() > LONGEST_ADDRESS_BYTES {
                    return Err(self.invalid_secret(&format!(
                        "the key {key} is longer than {LONGEST_ADDRESS_BYTES} bytes"
                    )));
                }
                return Ok(text.to_owned());
            }
        }
        Ok(self.provider.address.trim().to_owned())
    }

    fn headers(&self, secret: &SecretData) -> Result<BTreeMap<String, String>, Unresolved> {
        let Some(value) = secret.get("headers") else {
            return Ok(BTreeMap::new());
        };
        let text = value
            .text()
            .ok_or_else(|| self.invalid_secret("the key headers is not text"))?;
        if text.is_empty() {
            return Ok(BTreeMap::new());
        }
        // The error would show the value.
        let headers: BTreeMap<String, String> = serde_saphyr::from_str(text).map_err(|_| {
            self.invalid_secret("the key headers is not a YAML map of header names to texts")
        })?;
        for (name, value) in &headers {
            if !is_header_name(name) {
                return Err(
                    self.invalid_secret("the key headers holds a name that is none in HTTP")
                );
            }
            if !value
                .bytes()
                .all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
            {
                let sentence = format!(
                    "the key headers holds a line break or control character in the value of {name}"
                );
                return Err(self.invalid_secret(&sentence));
            }
        }
        Ok(headers)
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
                self.invalid(name, "the key address, that of the proxy, is missing")
            })?;
            if !is_proxy(address) {
                return Err(self.invalid(
                    name,
                    "the key address is not the address of an http, https or socks5 proxy",
                ));
            }
            let password = proxy_secret
                .get("password")
                .cloned()
                .unwrap_or_else(|| SecretValue::new([]));
            let credentials = proxy_secret
                .text("username")
                .map(|username| (username.to_owned(), password));
            return Ok(Some(Proxy {
                address: address.to_owned(),
                credentials,
            }));
        }
        if let Some(address) = secret.text("proxy") {
            if !is_proxy(address) {
                return Err(self.invalid_secret(
                    "the key proxy is not the address of an http, https or socks5 proxy",
                ));
            }
            return Ok(Some(Proxy {
                address: address.to_owned(),
                credentials: None,
            }));
        }
        match self.provider.proxy.as_str() {
            "" => Ok(None),
            address if is_proxy(address) => Ok(Some(Proxy {
                address: address.to_owned(),
                credentials: None,
            })),
            _ => {
                let Provider {
                    namespace, name, ..
                } = self.provider;
                Err(Unresolved::Invalid(format!(
                    "Provider {namespace}/{name}: spec.proxy is not the address of a proxy"
                )))
            }
        }
    }

    /// Certificates of `certSecretRef`; those of `secretRef` count for commit statuses only, and
    /// must be readable for every type, since somebody meant them to be used.
    fn tls(
        &self,
        secret: &SecretData,
        cert_secret: Option<&SecretData>,
    ) -> Result<Option<Tls>, Unresolved> {
        if let Some(data) = cert_secret {
            let name = self.provider.cert_secret.as_deref();
            let tls = certificates(data).map_err(|sentence| self.invalid(name, &sentence))?;
            if tls.authorities.is_none() && tls.identity.is_none() {
                return Err(self.invalid(name, "needs ca.crt, or tls.crt and tls.key"));
            }
            return Ok(Some(tls));
        }
        let tls = certificates(secret).map_err(|sentence| self.invalid_secret(&sentence))?;
        let counts = self.provider.kind.family == Family::CommitStatus && tls != Tls::default();
        Ok(counts.then_some(tls))
    }
}

/// Reads `ca.crt`, `tls.crt` and `tls.key`, or the names they had before. A certificate without its
/// key is left out.
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
            Err(format!("the key {key} does not hold PEM ({begin}…)"))
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
    Url::parse(address)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https" | "socks5") && url.has_host())
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A hash, so that it tells nothing.
fn fingerprint(provider: &Provider, secrets: [Option<&SecretData>; 3]) -> String {
    let mut parts = vec![provider.manifest.to_string()];
    for secret in secrets {
        for (key, value) in secret.iter().flat_map(|secret| &secret.0) {
            parts.extend([key.clone(), hex(value.bytes())]);
        }
        // Keeps the Secrets apart: no key is empty.
        parts.push(String::new());
    }
    id::digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::check::Options;
    use crate::kind::{Kind, Kinds};
    use crate::object::Object;

    const KINDS: Kinds = &[
        Kind {
            name: "generic",
            family: Family::Generic,
        },
        Kind {
            name: "github",
            family: Family::CommitStatus,
        },
    ];
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n";

    /// Resolves a Provider of some type whose `secretRef` names a Secret with these keys, and more
    /// fields.
    fn resolve_with(
        kind: &str,
        secret: Value,
        more: Value,
    ) -> Result<ResolvedProvider, Unresolved> {
        let mut spec = json!({"type": kind, "address": "https://own.example", "username": "own", "secretRef": {"name": "s"}});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let metadata = |name: &str| json!({"name": name, "namespace": "apps"});
        let provider = json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": "Provider", "metadata": metadata("p"), "spec": spec,
        });
        let of = |name: &str, keys: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name), "stringData": keys});
        let proxy = of(
            "proxy",
            json!({"address": "socks5://proxy.example:1080", "username": "u", "password": "p"}),
        );
        let certificates = of(
            "certificates",
            json!({"caFile": CERTIFICATE, "certFile": CERTIFICATE, "keyFile": KEY}),
        );
        let objects = [
            provider,
            of("s", secret),
            proxy,
            certificates,
            of("empty", json!({})),
        ]
        .map(Object::new);
        let rules = Rules::compile(&objects, KINDS, &Options::default());
        assert_eq!(rules.problems(), []);
        rules
            .resolve("apps", "p")
            .map(|resolved| ResolvedProvider::clone(&resolved))
    }

    fn sentence(secret: Value, more: Value) -> String {
        resolve_with("generic", secret, more)
            .map(|_| String::new())
            .unwrap_or_else(|error| format!("{error:?}"))
    }

    #[test]
    fn the_secret_goes_before_the_spec() {
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
    fn what_only_a_change_mends_is_invalid_and_shows_no_value() {
        for (secret, more, expected) in [
            (
                json!({"address": "s3cret".repeat(400)}),
                json!({}),
                "the key address is longer than 2048 bytes",
            ),
            (
                json!({"username": "s3cret"}),
                json!({}),
                "the key username is there without password",
            ),
            (
                json!({"password": "s3cret"}),
                json!({}),
                "the key password is there without username",
            ),
            (
                json!({"headers": "- s3cret"}),
                json!({}),
                "the key headers is not a YAML map",
            ),
            (
                json!({"headers": "a b: s3cret"}),
                json!({}),
                "the key headers holds a name that is none",
            ),
            (
                json!({"headers": "X-A: \"s3cret\\nX-B: c\""}),
                json!({}),
                "in the value of X-A",
            ),
            (
                json!({"proxy": "http://s3 cret:31 28"}),
                json!({}),
                "the key proxy is not the address",
            ),
            (
                json!({"ca.crt": "s3cret"}),
                json!({}),
                "the key ca.crt does not hold PEM",
            ),
            (
                json!({}),
                json!({"proxySecretRef": {"name": "empty"}}),
                "Secret apps/empty: the key address",
            ),
            (
                json!({}),
                json!({"certSecretRef": {"name": "empty"}}),
                "Secret apps/empty: needs ca.crt",
            ),
            (
                json!({}),
                json!({"serviceAccountName": "x"}),
                "workload identity",
            ),
        ] {
            let sentence = sentence(secret.clone(), more.clone());
            assert!(
                sentence.starts_with("Invalid(") && sentence.contains(expected),
                "{secret} {more}: {sentence}"
            );
            assert!(!sentence.contains("s3"), "{sentence}");
        }
    }

    #[test]
    fn a_secret_that_is_not_there_is_missing() {
        for field in ["secretRef", "certSecretRef", "proxySecretRef"] {
            let sentence = sentence(json!({}), json!({field: {"name": "no"}}));
            assert_eq!(
                sentence,
                format!("Missing(\"there is no Secret apps/no, which spec.{field} names\")")
            );
        }
        assert!(sentence(json!({}), json!({"suspend": true})).starts_with("Suspended("));
    }

    #[test]
    fn the_proxy_of_its_own_secret_goes_before_that_of_the_secret_and_the_spec() {
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
            "a certificate without key is left out"
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
