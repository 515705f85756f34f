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
        .filter(|name| !kind.accepts_header(name))
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
