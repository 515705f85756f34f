//! What a provider type makes of the keys of its Secret. Messages never contain a value.

use std::collections::BTreeMap;

use crate::kind::Kind;
use crate::resolved::SecretData;

/// What a type ignores in its Secret, or uses as its author may not expect: one sentence each.
pub fn warnings(kind: &Kind, secret: &SecretData) -> Vec<String> {
    [
        ignored_keys(kind, secret),
        line_break_of_raw_key(kind, secret),
        ignored_headers(kind, secret),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ignored_keys(kind: &Kind, secret: &SecretData) -> Option<String> {
    let ignored: Vec<&str> = secret
        .0
        .iter()
        .filter(|(key, value)| !value.bytes().is_empty() && !kind.reads(key))
        .map(|(key, _)| key.as_str())
        .collect();
    (!ignored.is_empty()).then(|| {
        format!(
            "type {} does not read {}, which {} no effect; it reads {}",
            kind.name,
            named("the key", &ignored),
            if ignored.len() == 1 { "has" } else { "have" },
            kind.keys.join(", ")
        )
    })
}

fn line_break_of_raw_key(kind: &Kind, secret: &SecretData) -> Option<String> {
    let value = secret.get(kind.raw_key)?;
    value.ends_with_line_break().then(|| {
        format!(
            "the key {} ends with a line break, which is part of the value; remove the line break \
             unless the receiver's key has it, too",
            kind.raw_key
        )
    })
}

fn ignored_headers(kind: &Kind, secret: &SecretData) -> Option<String> {
    let headers = headers(secret.text("headers").filter(|_| kind.sends_headers)?).ok()?;
    let ignored: Vec<&str> = headers
        .keys()
        .map(String::as_str)
        .filter(|name| !kind.accepts_header(name) && !kind.refuses_header(name))
        .collect();
    (!ignored.is_empty()).then(|| {
        format!(
            "{} in the key headers cannot be set, because Tidings computes {}; remove {}",
            named("the header", &ignored),
            if ignored.len() == 1 { "it" } else { "them" },
            if ignored.len() == 1 { "it" } else { "them" },
        )
    })
}

/// `the key a`, or `the keys a, b`.
fn named(what: &str, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {}", names.join(", "))
}

/// Reads the key `headers`. A line break at the end of a value, as YAML's block style adds it, is
/// not part of the value.
///
/// # Errors
/// A sentence about all invalid headers, without their values.
pub fn headers(text: &str) -> Result<BTreeMap<String, String>, String> {
    // The YAML error would contain the value.
    let headers: BTreeMap<String, String> = serde_saphyr::from_str(text)
        .map_err(|_| "the key headers must be a YAML map of header names to strings".to_owned())?;
    let trimmed = |value: &String| value.trim_end_matches(['\r', '\n']).to_owned();
    let (named, unnamed): (Vec<_>, Vec<_>) =
        headers.iter().partition(|(name, _)| is_header_name(name));
    let unreadable = named
        .iter()
        .filter(|(_, value)| !is_header_value(&trimmed(value)));
    let unreadable: Vec<&str> = unreadable.map(|(name, _)| name.as_str()).collect();
    let mut wrong = Vec::new();
    match unnamed.len() {
        0 => {}
        1 => wrong.push("an invalid HTTP header name".to_owned()),
        count => wrong.push(format!("{count} invalid HTTP header names")),
    }
    if !unreadable.is_empty() {
        let names = unreadable.join(", ");
        wrong.push(format!("a control character in the value of {names}"));
    }
    if !wrong.is_empty() {
        return Err(format!("the key headers contains {}", wrong.join(", and ")));
    }
    let trimmed = named
        .into_iter()
        .map(|(name, value)| (name.clone(), trimmed(value)));
    Ok(trimmed.collect())
}

/// Rejects headers that control the connection.
///
/// # Errors
/// A sentence that names all of them.
pub fn check_headers(kind: &Kind, headers: &BTreeMap<String, String>) -> Result<(), String> {
    let names = headers.keys().map(String::as_str);
    let refused: Vec<&str> = names.filter(|name| kind.refuses_header(name)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} in the key headers {} the connection and cannot be sent; remove {}",
        named("the header", &refused),
        if refused.len() == 1 {
            "controls"
        } else {
            "control"
        },
        if refused.len() == 1 { "it" } else { "them" },
    ))
}

/// The keys whose values go into headers: as they are, or as user name and password, which have no
/// control characters (RFC 7617, section 2).
const CREDENTIALS: [&str; 3] = ["password", "token", "username"];

/// Rejects credentials that no header can hold. A line break at the end is not part of them. A
/// signing key can have any value, and so can the keys of types that send no headers of the Secret:
/// they use JSON documents, or no HTTP.
///
/// # Errors
/// A sentence that names the key and not its value.
pub fn check_credentials(kind: &Kind, secret: &SecretData) -> Result<(), String> {
    let is_sent = |key: &&str| kind.sends_headers && kind.reads(key) && *key != kind.raw_key;
    CREDENTIALS
        .into_iter()
        .filter(is_sent)
        .try_for_each(|key| check_credential(key, secret))
}

/// Rejects the value of one key that no header can hold.
///
/// # Errors
/// A sentence that names the key and not its value.
pub fn check_credential(key: &str, secret: &SecretData) -> Result<(), String> {
    let Some(value) = secret.get(key) else {
        return Ok(());
    };
    if std::str::from_utf8(value.bytes()).is_err() {
        return Err(format!("the key {key} is not valid UTF-8; correct it"));
    }
    match secret.text(key) {
        Some(text) if text.chars().any(char::is_control) => Err(format!(
            "the key {key} contains a line break or another control character, which no header \
             can hold; remove it"
        )),
        _ => Ok(()),
    }
}

fn is_header_value(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Family;
    use crate::resolved::SecretValue;

    const HMAC: Kind = Kind {
        keys: &["address", "headers", "token"],
        raw_key: "token",
        sends_headers: true,
        own_headers: &["x-signature"],
        ..Kind::new("generic-hmac", Family::Generic)
    };

    fn warnings_of(kind: &Kind, keys: &[(&str, &str)]) -> Vec<String> {
        let keys = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), SecretValue::new(*value)));
        warnings(kind, &SecretData(keys.collect()))
    }

    #[test]
    fn keys_that_a_type_does_not_read_are_named_and_their_values_are_not() {
        assert_eq!(
            warnings_of(&HMAC, &[("token", "k"), ("username", "")]),
            [""; 0]
        );
        let found = warnings_of(
            &HMAC,
            &[("token", "k"), ("password", "s3cret"), ("Token", "x")],
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("the keys Token, password,"), "{found:?}");
        assert!(!found[0].contains("s3cret"));
    }

    #[test]
    fn a_line_break_at_the_end_of_a_raw_key_is_reported() {
        for (token, expected) in [("k\n", 1), ("k\r\n", 1), ("k\r", 1), ("k", 0), (" k ", 0)] {
            assert_eq!(
                warnings_of(&HMAC, &[("token", token)]).len(),
                expected,
                "{token:?}"
            );
        }
    }

    #[test]
    fn all_invalid_headers_are_reported() {
        let text = "a b: s3cret\nX-C: \"s3cret\\x01\"\nc d: x\nX-A: \"\\x7f\"\nX-B: ok\n";
        let found = headers(text).unwrap_err();
        assert!(found.contains("2 invalid HTTP header names"), "{found}");
        assert!(found.contains("in the value of X-A, X-C"), "{found}");
        assert!(!found.contains("s3cret"), "{found}");
    }

    #[test]
    fn headers_that_cannot_be_set_are_named() {
        let headers = "Host: a\nX-SIGNATURE: s3cret\nX-Team: b\ncontent-length: '1'\n";
        let found = warnings_of(&HMAC, &[("headers", headers)]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("the headers Host, X-SIGNATURE, content-length in"),
            "{found:?}"
        );
        let attributes = Kind {
            keys: &["headers"],
            ..Kind::new("googlepubsub", Family::Message)
        };
        assert_eq!(warnings_of(&attributes, &[("headers", headers)]), [""; 0]);
    }

    #[test]
    fn headers_that_control_the_connection_are_refused_and_named() {
        let refused = |text: &str| check_headers(&HMAC, &headers(text).unwrap());
        for name in [
            "Connection",
            "EXPECT",
            "http2-settings",
            "Keep-Alive",
            "Max-Forwards",
            "Proxy-Authorization",
            "Proxy-Connection",
            "te",
            "Upgrade",
        ] {
            let error = refused(&format!("{name}: s3cret\nX-Team: b\n")).unwrap_err();
            assert!(error.contains(&format!("the header {name} in")), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
            assert!(!HMAC.accepts_header(name), "{name}");
        }
        for name in ["Host", "Content-Length", "Transfer-Encoding", "Trailer"] {
            assert_eq!(refused(&format!("{name}: a")), Ok(()));
            assert!(!HMAC.accepts_header(name), "{name}");
        }
        assert!(headers("':authority': a").is_err(), "HTTP/2's own headers");
    }

    #[test]
    fn credentials_that_no_header_can_hold_are_refused_unless_they_are_used_as_stored() {
        let kind = Kind {
            raw_key: "",
            keys: &["password", "token", "username"],
            ..HMAC
        };
        for key in kind.keys {
            let check = |value: &[u8]| {
                let value = SecretValue::new(value);
                check_credentials(&kind, &SecretData([((*key).to_owned(), value)].into()))
            };
            for value in [&b"s3c\nret"[..], b"s3c\rret", b"s3c\0ret", b"s3c\x7fret"] {
                let error = check(value).unwrap_err();
                assert!(
                    error.contains(&format!("the key {key} contains")),
                    "{error}"
                );
                assert!(!error.contains("s3c"), "{error}");
            }
            assert!(check(b"\xff").unwrap_err().contains("UTF-8"));
            for value in [
                &b"s3cret\n"[..],
                b"s3cret\r\n",
                b"s 3cret",
                "s\u{e9}".as_bytes(),
            ] {
                assert_eq!(check(value), Ok(()));
            }
        }
        let signing_key = SecretData([("token".into(), SecretValue::new(*b"\0\n\xff"))].into());
        assert_eq!(check_credentials(&HMAC, &signing_key), Ok(()));
    }

    #[test]
    fn a_line_break_at_the_end_of_a_header_is_not_part_of_it() {
        assert_eq!(
            headers("X-A: |\n  a\nX-B: ' b '\n"),
            Ok(BTreeMap::from([
                ("X-A".into(), "a".into()),
                ("X-B".into(), " b ".into())
            ]))
        );
        assert!(headers("X-A: |\n  a\n  b\n").is_err());
    }
}
