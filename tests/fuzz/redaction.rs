//! Redaction of what services answer. The first line is the secret, the rest is the answer.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tidings_rules::testing::{provider, secret};
use tidings_rules::{Options, Rules};
use tidings_workers::http::redact::Redactor;
use tidings_workers::notifier::kinds;

use crate::runner::{Target, split};

/// Shorter secrets would also redact ordinary words.
const SHORTEST: usize = 8;

#[test]
fn no_answer_shows_a_secret_in_any_encoding() {
    Target {
        name: "redaction",
        dictionary: &[
            "%", "%25", "\\u00", "\\/", "&#", "&#x", "&amp;", "=", "+", "&lt;", "s3cret",
            "Bearer ", "\"", "\\", "\u{200b}", "é", "c2VjcmV0",
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
            for form in encoded(value.trim()) {
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

/// What services make of a secret: as it is, as JSON, percent-encoded.
fn encoded(secret: &str) -> Vec<String> {
    let json = json!(secret).to_string();
    vec![
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
    ]
}
