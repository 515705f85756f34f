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
fn resolve_with(kind: &str, secret: Value, more: Value) -> Result<ResolvedProvider, Unresolved> {
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
