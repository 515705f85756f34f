//! Redaction of what services answer. The first line is the secret, the rest is the answer.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tidings_rules::testing::{provider, secret};
use tidings_rules::{Options, Rules};
use tidings_workers::http::redact::Redactor;
use tidings_workers::notifier::kinds;

use crate::runner::{Target, split};

/// Shorter secrets, and parts of secrets, would also redact ordinary words.
const SHORTEST: usize = 8;
/// Of larger secrets only longer parts are found.
const LONGEST: usize = 512;
/// Words that stay readable although a secret contains them.
const VISIBLE: [&str; 12] = [
    "redacted", "[", "bearer", "basic", "token", "digest", "apikey", "geniekey", "key", "service",
    "webhook", "message",
];

#[test]
fn no_answer_shows_a_secret_in_any_encoding() {
    Target {
        name: "redaction",
        dictionary: &[
            "%",
            "%25",
            "\\u00",
            "\\/",
            "&#",
            "&#x",
            "&amp;",
            "=",
            "+",
            "&lt;",
            "s3cret",
            "Bearer ",
            "\"",
            "\\",
            "\u{200b}",
            "é",
            "c2VjcmV0",
            "…",
            "...",
            "****",
            "=3D",
            "\\u{2f}",
            "\\057",
            "%u002f",
            "&AMP;",
            "&#38",
            "\"\"",
            "733363726574",
            "ONRWG4TFOQ",
        ],
        check: |input| {
            let (value, answer) = split(input);
            if value.trim().len() < SHORTEST {
                return;
            }
            // No header can hold some values, so their Provider is invalid.
            let Some(redactor) = redactor(&value) else {
                return;
            };
            let shown = redactor.redact(&answer);
            let value = value.trim();
            assert_no_part(value, &shown);
            assert_cut_parts_are_redacted(&redactor, value, input.len());
            for form in encoded(value) {
                assert!(!shown.contains(&form), "as it came: {shown:?}");
                let shown = redactor.redact(&format!("no access: {form} "));
                assert!(!shown.contains(&form), "encoded: {shown:?}");
            }
        },
    }
    .run();
}

fn redactor(value: &str) -> Option<Redactor> {
    let objects = [
        provider("slack", "slack")
            .with("address", "https://slack.example/api/chat.postMessage")
            .with("secretRef", json!({"name": "token"}))
            .object(),
        secret("token", json!({"token": value})).object(),
    ];
    let rules = Rules::compile(&objects, kinds(), &Options::default());
    let resolved = rules.resolve("apps", "slack").ok()?;
    Some(Redactor::new(&resolved))
}

/// No answer shows 8 characters of a secret next to each other.
fn assert_no_part(secret: &str, shown: &str) {
    let (secret, shown) = (secret.to_ascii_lowercase(), shown.to_ascii_lowercase());
    if secret.len() > LONGEST || VISIBLE.iter().any(|word| secret.contains(word)) {
        return;
    }
    for part in secret.as_bytes().windows(SHORTEST) {
        // Plus signs and white space of several forms count as one space.
        let is_compared = |byte: &u8| byte.is_ascii_graphic() && *byte != b'+';
        let part = std::str::from_utf8(part).unwrap_or_default();
        if part.bytes().all(|byte| is_compared(&byte)) && !part.is_empty() {
            assert!(!shown.contains(part), "the part {part:?}: {shown:?}");
        }
    }
}

/// Cuts a secret anywhere, and encodes, wraps and marks what remains.
fn assert_cut_parts_are_redacted(redactor: &Redactor, secret: &str, choice: usize) {
    let from = choice % secret.len();
    let to = secret.len() - (choice / 7) % secret.len();
    let Some(part) = secret.get(from..to) else {
        return;
    };
    for mark in ["", "…", "...", "****", "\"}"] {
        assert_no_part(secret, &redactor.redact(&format!("bad {mark}{part}{mark}")));
    }
    let base64 = BASE64_STANDARD.encode(secret);
    let width = 4 + choice % 60;
    let lines: Vec<_> = base64
        .as_bytes()
        .chunks(width)
        .map(String::from_utf8_lossy)
        .collect();
    for data in [
        lines.join("\n"),
        lines.join(" "),
        BASE64_STANDARD.encode(&base64),
        hex::encode(secret),
        hex::encode(&base64),
    ] {
        let shown = redactor.redact(&format!("bad {data}"));
        let rest = shown.replace("[redacted]", "");
        // Only what fills up the last digits may remain, and what they share with other bytes.
        assert!(rest.len() <= "bad ".len() + 8, "as data: {shown:?}");
    }
}

/// What services make of a secret: as it is, as JSON, percent-encoded.
fn encoded(secret: &str) -> Vec<String> {
    let json = json!(secret).to_string();
    vec![
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
    ]
}
