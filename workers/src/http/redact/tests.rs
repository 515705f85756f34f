use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use proptest::prelude::*;

use super::*;
use crate::message::sample::{provider, secret};

/// Writes each character that is no letter or digit as an escape.
fn escaped(text: &str, escape: impl Fn(u8) -> String) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => escape(byte),
    };
    text.bytes().map(escape).collect()
}

/// A secret as a service may repeat it.
fn encoded(secret: &str, how: usize) -> String {
    match how {
        0 => secret.to_owned(),
        1 => secret.to_uppercase(),
        2 => serde_json::json!(secret).to_string().replace('/', "\\/"),
        3 => escaped(secret, |byte| format!("\\u{byte:04X}")),
        4 => escaped(secret, |byte| format!("&#{byte};")),
        5 => escaped(secret, |byte| format!("&#x{byte:x};")),
        6 => escaped(secret, |byte| format!("%{byte:02x}")),
        7 => secret.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02X}");
            text
        }),
        8 => BASE64_STANDARD.encode(secret),
        9 => BASE64_URL_SAFE.encode(format!("me:{secret}")),
        10 => BASE64_STANDARD.encode(format!("x{secret}\n")),
        11 => encoded(&encoded(secret, 7), 6),
        12 => encoded(&encoded(secret, 3), 2),
        _ => encoded(&encoded(secret, 4), 7).to_lowercase(),
    }
}

proptest! {
    #[test]
    fn no_encoding_of_a_secret_is_shown(
        secret in "[A-Za-z0-9]{8}[ -~]{0,24}[A-Za-z0-9]",
        how in 0usize..14,
        before in "[ -~]{0,9}[ :=]",
        after in "[ ,;)][ -~]{0,9}",
        kept in 8usize..40,
    ) {
        let redactor = Redactor::of(vec![secret.clone()]);
        let encoded = encoded(&secret, how);
        let shown = redactor.redact(&format!("{before}{encoded}{after}"));
        // Of base64, up to two characters at each end also depend on its neighbors.
        let middle = match how {
            8..=10 => encoded[..encoded.len() - 4].chars().skip(4).collect::<String>(),
            _ => encoded,
        };
        prop_assert!(!shown.contains(&middle), "{secret:?}: {shown:?}");
        prop_assert!(shown.contains(REDACTED), "{shown:?}");
        // A text that was cut within the secret.
        let cut = format!("{before}{}", &secret[..kept.min(secret.len())]);
        prop_assert!(redactor.redact(&cut).contains(REDACTED), "{cut:?}");
    }
}

#[test]
fn a_part_of_a_secret_is_redacted_wherever_a_service_cut_it() {
    let secret = "S3cr3t/Tok&en+Value==\"X9zQ";
    let redactor = Redactor::of(vec![secret.to_owned()]);
    let base64 = BASE64_STANDARD.encode(secret);
    let lines = [&base64[..16], &base64[16..32], &base64[32..]];
    for text in [
        r#"{"error":"bad token Bearer S3cr3t/Tok&en+Value=="..."}"#.to_owned(),
        r#"token ...Tok&en+Value=="X9zQ."#.to_owned(),
        "token S3cr3t/Tok&en…".to_owned(),
        "a cr3t/Tok%26en%2BV... b".to_owned(),
        lines.join("\n"),
        lines.join("\r\n  "),
    ] {
        let shown = redactor.redact(&text);
        assert!(shown.contains(REDACTED), "{text}: {shown}");
        let left = shown.replace(REDACTED, "").to_lowercase();
        for part in secret.to_lowercase().as_bytes().windows(8) {
            let part = String::from_utf8_lossy(part);
            assert!(!left.contains(&*part), "{text}: {shown}");
        }
        for line in &lines[..2] {
            assert!(!shown.contains(&line[4..12]), "{shown}");
        }
    }
    let other = "the value of the token is not valid; send S3cr3t";
    assert_eq!(redactor.redact(other), other);
}

#[test]
fn large_secrets_are_searched_for_as_they_are_and_small_ones_in_every_encoding() {
    let large: Vec<String> = (0..40)
        .map(|number| format!("l4rge-{number}-").repeat(MOST_DECODED / 200))
        .collect();
    let secrets = large.iter().cloned().chain(["s3cret/value".to_owned()]);
    let redactor = Redactor::of(secrets.collect());
    assert_eq!(redactor.redact(&large[39]), REDACTED);
    assert_eq!(redactor.redact("a S3CRET%2fVALUE"), "a [redacted]");
    let searched = redactor.secrets.decoded().texts.iter().map(String::len);
    assert!(searched.sum::<usize>() <= MOST_DECODED);
}

#[test]
fn parts_of_a_secret_address_are_redacted_and_ordinary_ones_are_not() {
    let address = "https://h/services/T0000001/s3cret-part/?sig=s3cret-value&v=1";
    for (text, shown) in [
        ("/services/s3cret-part", "/services/[redacted]"),
        ("moved to /v2/S3CRET-PART/", "moved to /v2[redacted]"),
        ("bad sig s3cret%2Dvalue", "bad sig [redacted]"),
        ("no team t0000001", "no team [redacted]"),
        ("v=1 services", "v=1 services"),
    ] {
        assert_eq!(redacted("slack", address, text), shown);
    }
}

#[test]
fn the_form_of_an_address_stays_readable() {
    let hint = "write it as https://HOST/PATH";
    for address in [
        "https://",
        "https:",
        "https",
        "http://",
        "https://HOST/PATH",
        "://",
    ] {
        assert_eq!(redacted("slack", address, hint), hint, "{address}");
    }
    assert_eq!(redacted("slack", "https://s3 cret", "s3 cret"), REDACTED);
}

/// A text with the secrets, as the Redactor of a Provider leaves it.
fn redacted(kind: &'static str, address: &str, text: &str) -> String {
    let provider = provider(kind, |provider| {
        (provider.address, provider.channel) = (address.into(), "the-channel".into());
    });
    Redactor::new(&provider).redact(text)
}

#[test]
fn credentials_in_the_spec_are_redacted() {
    for (kind, address, text) in [
        (
            "slack",
            "https://hooks.slack.com/services/s3cret",
            "/services/s3cret",
        ),
        (
            "discord",
            "https://discord.com/api/webhooks/1/s3cret",
            "api/webhooks/1/s3cret",
        ),
        ("rocket", "https://h/hooks/s3cret?x=1", "hooks/s3cret"),
        (
            "lark",
            "https://h/open-apis/bot/v2/hook/s3cret",
            "open-apis/bot/v2/hook/s3cret",
        ),
        ("msteams", "https://h/?sig=s3cret", "sig=s3cret"),
        (
            "googlechat",
            "https://h/v1?key=k&token=s3cret",
            "key=k&token=s3cret",
        ),
        ("zoom", "https://h/hook/s3cret", "hook/s3cret"),
        ("sentry", "https://s3cret@o1.ingest.sentry.io/1", "s3cret"),
        (
            "azureeventhub",
            "Endpoint=sb://h/;SharedAccessKey=s3cret=;EntityPath=e",
            "s3cret=",
        ),
        (
            "nats",
            "nats://s3cret@a:4222, nats://me:s3cret2@b:4222",
            "s3cret s3cret2",
        ),
        ("generic", "https://me:s3cret@h/x", "s3cret"),
        ("pagerduty", "https://h", "the-channel"),
    ] {
        let shown = redacted(kind, address, text);
        assert!(
            !shown.contains("s3cret") && shown.contains(REDACTED),
            "{kind}: {shown}"
        );
    }
}

#[test]
fn what_is_no_credential_stays_readable() {
    assert_eq!(redacted("generic", "https://h/path", "/path"), "/path");
    assert_eq!(
        redacted("slack", "https://h/x", "the-channel"),
        "the-channel"
    );
    assert_eq!(
        redacted(
            "github",
            "https://acme@github.com/acme/deploy",
            "acme/deploy"
        ),
        "acme/deploy"
    );
}

#[test]
fn a_key_of_the_secret_is_redacted_without_its_line_break() {
    let provider = provider("pagerduty", |provider| {
        provider.secret = secret(&[("routingKey", "s3cret\n"), ("password", " s3cret2\n")]);
    });
    let shown = Redactor::new(&provider).redact("bad s3cret, s3cret2");
    assert_eq!(shown, "bad [redacted], [redacted]");
}
