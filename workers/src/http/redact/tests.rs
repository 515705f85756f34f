//! Tests of redaction.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use proptest::prelude::*;

use super::search::MOST_DECODED;
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
        ("moved to /v2/S3CRET-PART/", "moved to /v2/[redacted]/"),
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

/// The secret of the attack that found the leaks below.
const ATTACKED: &str = r#"S3cr3t/Tok&en+Value=="X9zQ"#;

fn attacked(text: &str) -> String {
    Redactor::of(vec![ATTACKED.to_owned()]).redact(text)
}

#[test]
fn a_part_of_a_secret_is_redacted_wherever_it_was_cut() {
    for (text, expected) in [
        (
            r#"{"error":"bad token Bearer S3cr3t/Tok&en+Value=="..."}"#,
            r#"{"error":"bad token Bearer [redacted]..."}"#,
        ),
        ("bad S3cr3t/Tok&en+Value==\"…", "bad [redacted]…"),
        ("bad S3cr3t/Tok&en+Value\"}", "bad [redacted]\"}"),
        (
            r#"bad ...ok&en+Value=="X9zQ, bye"#,
            "bad ...[redacted], bye",
        ),
        ("bad …cr3t/Tok&en…", "bad …[redacted]…"),
        (r#"bad S3cr3t****e=="X9zQ"#, "bad [redacted]"),
        (r#"bad S3cr3t…X9zQ"#, "bad [redacted]"),
        ("bad S3cr****X9zQ, bye", "bad [redacted], bye"),
    ] {
        assert_eq!(attacked(text), expected, "{text}");
    }
}

#[test]
fn an_encoded_part_is_redacted_although_its_last_escape_was_cut() {
    let encodings: [fn(u8) -> String; 8] = [
        |byte| format!("%{byte:02x}"),
        |byte| format!("\\u{byte:04x}"),
        |byte| format!("&#x{byte:x};"),
        |byte| format!("&#{byte};"),
        |byte| format!("={byte:02X}"),
        |byte| format!("\\{byte:03o}"),
        |byte| format!("\\u{{{byte:x}}}"),
        |byte| format!("\\U{byte:08x}"),
    ];
    for encode in encodings {
        let whole: String = ATTACKED.bytes().map(encode).collect();
        for end in whole.len() * 3 / 4..whole.len() {
            for mark in ["", "…", "...", "'}"] {
                let text = format!("bad {}{mark}", &whole[..end]);
                assert_eq!(attacked(&text), format!("bad [redacted]{mark}"), "{text}");
            }
        }
    }
}

#[test]
fn data_in_lines_and_nested_encodings_are_redacted() {
    let base64 = BASE64_STANDARD.encode(ATTACKED);
    for text in [
        wrapped(&base64, 16, "\n"),
        wrapped(&base64, 20, " "),
        wrapped(&base64, 16, "\\r\\n"),
        BASE64_STANDARD.encode(&base64),
        BASE64_STANDARD.encode(format!("user:{base64}\n")),
        base32(ATTACKED),
        base32(ATTACKED).to_lowercase(),
        hex::encode(ATTACKED),
        wrapped(&hex::encode(ATTACKED), 2, ":"),
        wrapped(&hex::encode_upper(ATTACKED), 32, "\n"),
        escaped(ATTACKED, |byte| format!("\\{}", char::from(byte))),
        ATTACKED.replace('&', "&AMP;").replace('"', "&QUOT;"),
        ATTACKED.replace('&', "&#38").replace('"', "&#34"),
        ATTACKED.replace('&', "%u0026").replace('"', "%u0022"),
        ATTACKED.replace('&', "\\u{26}").replace('"', "\\u{22}"),
        ATTACKED.replace('&', "\\U00000026"),
        ATTACKED.replace('&', "\\046").replace('"', "\\42"),
        ATTACKED.replace('&', "=26").replace("==", "=3D=3D"),
        ATTACKED.replace('"', "\"\""),
        wrapped(ATTACKED, 7, "=\n"),
        wrapped(ATTACKED, 1, " "),
        wrapped(ATTACKED, 3, "\u{200b}"),
    ] {
        let shown = attacked(&format!("bad: {text} (end)"));
        let rest = shown.replace(REDACTED, "");
        assert!(rest.len() <= "bad:  (end)".len() + 10, "{text}: {shown}");
    }
}

#[test]
fn the_public_parts_of_a_secret_stay_readable() {
    let connection = "Endpoint=sb://acme.servicebus.windows.net/;\
                      SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=s3cretKey123=";
    let text = "acme.servicebus.windows.net: no rule RootManageSharedAccessKey";
    assert_eq!(redacted("azureeventhub", connection, text), text);
    let shown = redacted("azureeventhub", connection, "bad s3cretKey1…");
    assert_eq!(shown, "bad [redacted]…");

    let key = serde_json::json!({
        "type": "service_account",
        "project_id": "acme-project",
        "private_key": "-----BEGIN PRIVATE KEY-----\nMIIs3cretkey+x/y\n-----END PRIVATE KEY-----\n",
        "client_email": "flux@acme-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let provider = provider("googlepubsub", |provider| {
        provider.secret = secret(&[("token", &key.to_string())]);
        let value = "Bearer realmless-s3cret".to_owned();
        provider.headers.insert("X-Scope-OrgID".into(), value);
    });
    let redactor = Redactor::new(&provider);
    for text in [
        "https://oauth2.googleapis.com/token: flux@acme-project.iam.gserviceaccount.com may not",
        "no topic in acme-project; the key private_key begins with -----BEGIN PRIVATE KEY-----",
        "the value of the header X-Scope-OrgID is not Bearer realm",
    ] {
        assert_eq!(redactor.redact(text), text);
    }
    assert_eq!(redactor.redact("bad MIIs3cretkey…"), "bad [redacted]…");
    assert_eq!(redactor.redact("Bearer realmless…"), "Bearer [redacted]…");
}

/// A text with a separator after each `width` bytes.
fn wrapped(text: &str, width: usize, separator: &str) -> String {
    let lines = text.as_bytes().chunks(width);
    let lines: Vec<_> = lines.map(String::from_utf8_lossy).collect();
    lines.join(separator)
}

fn base32(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: String = text.bytes().map(|byte| format!("{byte:08b}")).collect();
    let digit = |bits: &[u8]| {
        let bits = format!("{:0<5}", String::from_utf8_lossy(bits));
        char::from(alphabet[usize::from_str_radix(&bits, 2).unwrap()])
    };
    bits.as_bytes().chunks(5).map(digit).collect()
}

/// One of the encodings that are removed, with lines of `width` bytes where it allows lines.
fn one_encoding(text: &str, how: usize, width: usize) -> String {
    match how {
        0 => wrapped(&BASE64_STANDARD.encode(text), width, "\n"),
        1 => wrapped(&BASE64_URL_SAFE.encode(text), width, " "),
        2 => wrapped(&hex::encode(text), width, "\n"),
        3 => wrapped(&hex::encode_upper(text), 2, [":", " ", "-"][width % 3]),
        4 => wrapped(&base32(text), width, "\n"),
        5 => serde_json::json!(text).to_string(),
        6 => text.replace('"', "\"\""),
        7 => escaped(text, |byte| format!("\\{}", char::from(byte))),
        8 => escaped(text, |byte| format!("={byte:02X}")),
        9 => text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        10 => text.bytes().map(|byte| format!("\\{byte:03o}")).collect(),
        11 => text.bytes().map(|byte| format!("&#{byte};")).collect(),
        12 => escaped(text, |byte| format!("%u{byte:04X}")),
        13 => escaped(text, |byte| format!("\\u{{{byte:x}}}")),
        14 => escaped(text, |byte| format!("\\U{byte:08x}")),
        _ => escaped(text, |byte| format!("\\x{byte:02x}")),
    }
}

proptest! {
    #[test]
    fn no_part_of_a_secret_is_shown_in_nested_encodings(
        secret in "[A-Za-z0-9]{8}[ -~]{12,24}[A-Za-z0-9]{4}",
        hows in prop::collection::vec((0usize..16, 4usize..30), 0..4),
        (from, to) in (0.0..0.5f64, 0.5..1.0f64),
        is_cut: bool,
        mark in prop::sample::select(vec!["", "…", "...", "\"}", "****"]),
    ) {
        let encoded = hows.iter().fold(secret.clone(), |text, (how, width)| {
            one_encoding(&text, *how, *width)
        });
        let at = |share: f64| (encoded.len() as f64 * share) as usize;
        let part = match is_cut {
            true => &encoded[at(from)..at(to)],
            false => &encoded,
        };
        let shown = Redactor::of(vec![secret.clone()]).redact(&format!("bad: {part}{mark}"));
        let rest = shown.replace(REDACTED, "").len() - "bad: ".len() - mark.len();
        // Less than one window at an end, quotes, and what fills up the last digits.
        let most = 8.0 * encoded.len() as f64 / secret.len() as f64 + 8.0;
        prop_assert!(rest as f64 <= most, "{secret:?} {part:?}: {shown:?}");
    }

    #[test]
    fn no_part_of_a_secret_is_shown_around_a_mask(
        secret in "[a-z0-9]{24}",
        (kept_before, kept_after) in (1usize..12, 1usize..12),
        mask in "\\*{2,9}|…|\\.{3}|•{3,5}|#{4}",
    ) {
        let text = format!("{}{mask}{}", &secret[..kept_before], &secret[24 - kept_after..]);
        let shown = Redactor::of(vec![secret]).redact(&format!("bad: {text}."));
        let rest = shown.replace(REDACTED, "").replace(&mask, "").len() - "bad: .".len();
        prop_assert!(rest < 8, "{text}: {shown}");
    }
}
