//! Redacts secrets in texts for people: details of failures, dead letters, dry runs.

mod encodings;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use tidings_rules::ResolvedProvider;
use url::Url;

use crate::notifier::contract::ProviderType;
use crate::notifier::provider_type;
use encodings::layers;

/// Replaces a secret.
pub const REDACTED: &str = "[redacted]";
/// The shortest value that is redacted. Shorter ones would match ordinary words.
const SHORTEST: usize = 4;

/// The shortest value that is redacted in any encoding and case, and the shortest part of a secret
/// at the end of a text, a segment of a secret path and a value of a secret query.
const SHORTEST_ENCODED: usize = 8;
/// The shortest part of a secret that is redacted anywhere in a text. Shorter ones are common parts
/// of words and addresses.
const SHORTEST_PART: usize = 12;
/// What errors show as the form of an address.
const HINT: &str = "https://HOST/PATH";
/// The most bytes of secrets that are searched for in every encoding, the shortest secrets first. A
/// tenant chooses their size, and a search needs many times their size in memory.
const MOST_DECODED: usize = 64 << 10;
/// Segments of secret addresses that many addresses have.
const ORDINARY_SEGMENTS: [&str; 8] = [
    "services",
    "webhooks",
    "webhookb2",
    "workflows",
    "triggers",
    "messages",
    "open-apis",
    "incomingwebhook",
];

/// Knows the secrets of one Provider.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<Secrets>,
}

/// What to search for.
#[derive(Default)]
struct Secrets {
    /// All secrets, longest first, so that no part of a longer secret remains.
    exact: Vec<String>,
    /// The secrets without encodings. Only texts for people need them, so a call that succeeds does
    /// not pay for them.
    decoded: OnceLock<DecodedSecrets>,
}

/// What to search for in a text without its encodings.
struct DecodedSecrets {
    texts: Vec<String>,
    search: Option<AhoCorasick>,
    /// All parts of this length, also without spaces.
    parts: HashSet<[u8; SHORTEST_PART]>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redactor")
    }
}

impl Redactor {
    /// Collects the values of a Provider's Secrets and the secret parts of its address.
    pub fn new(provider: &ResolvedProvider) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for (key, value) in &provider.secret.0 {
            let text = value.text().unwrap_or_default();
            match key.as_str() {
                "address" | "url" => secrets.extend(secrets_of_address(text)),
                "username"
                | "githubAppID"
                | "githubAppInstallationID"
                | "githubAppInstallationOwner"
                | "githubAppBaseURL" => {}
                _ => secrets.push(text.to_owned()),
            }
        }
        secrets.extend(provider.headers.values().cloned());
        secrets.extend(
            provider
                .headers
                .values()
                .filter_map(|value| value.split_once(' '))
                .map(|(_, rest)| rest.to_owned()),
        );
        if let Some(proxy) = &provider.proxy {
            secrets.extend(
                Url::parse(&proxy.address)
                    .ok()
                    .and_then(|url| url.password().map(str::to_owned)),
            );
            secrets.extend(
                proxy
                    .credentials
                    .iter()
                    .filter_map(|(_, password)| password.text())
                    .map(str::to_owned),
            );
        }
        secrets.extend(secrets_of_spec(provider));
        Self::of(secrets)
    }

    /// Adds the sensitive headers of a request. They hold derived secrets, such as signed tokens.
    pub fn with_headers(&self, headers: &HeaderMap) -> Self {
        let values = headers
            .values()
            .filter(|value| value.is_sensitive())
            .filter_map(|value| value.to_str().ok());
        let parts =
            values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]);
        self.with(parts.flatten().flat_map(forms).collect())
    }

    /// Adds more secrets.
    pub fn with_secrets(&self, secrets: &[String]) -> Self {
        self.with(secrets.iter().flat_map(|secret| forms(secret)).collect())
    }

    fn with(&self, forms: Vec<String>) -> Self {
        if forms.is_empty() {
            self.clone()
        } else {
            Self::sorted(self.secrets.exact.iter().cloned().chain(forms).collect())
        }
    }

    fn of(secrets: Vec<String>) -> Self {
        Self::sorted(secrets.iter().flat_map(|secret| forms(secret)).collect())
    }

    fn sorted(mut exact: Vec<String>) -> Self {
        exact.retain(|secret| secret.len() >= SHORTEST);
        exact.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        exact.dedup();
        Self {
            secrets: Arc::new(Secrets {
                exact,
                decoded: OnceLock::new(),
            }),
        }
    }

    /// The text without the secrets, in whatever encoding they are.
    pub fn redact(&self, text: &str) -> String {
        let exact = self.secrets.exact.iter();
        let mut text = exact.fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) {
                text.replace(secret.as_str(), REDACTED)
            } else {
                text
            }
        });
        for part in self.encoded(&text).into_iter().rev() {
            text.replace_range(part, REDACTED);
        }
        text
    }

    /// The parts of a text that are encoded secrets, in order and without overlaps.
    fn encoded(&self, text: &str) -> Vec<Range<usize>> {
        let decoded = self.secrets.decoded();
        let Some(search) = &decoded.search else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        for layer in layers(text) {
            let found = search.find_iter(&layer.text);
            parts.extend(found.map(|found| layer.origin(found.range())));
            for layer in [&layer, &layer.without_spaces()] {
                let found = decoded.parts_in(&layer.text).into_iter();
                parts.extend(found.map(|found| layer.origin(found)));
            }
            if let Some(length) = decoded.beginning_at_end(&layer.text) {
                let end = layer.text.len();
                parts.push(layer.origin(end - length..end));
            }
        }
        parts.sort_unstable_by_key(|part| part.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for part in parts {
            match merged.last_mut().filter(|last| part.start <= last.end) {
                Some(last) => last.end = last.end.max(part.end),
                None => merged.push(part),
            }
        }
        merged
    }
}

impl Secrets {
    fn decoded(&self) -> &DecodedSecrets {
        self.decoded.get_or_init(|| DecodedSecrets::of(&self.exact))
    }
}

impl DecodedSecrets {
    /// `exact` is ordered from the longest to the shortest.
    fn of(exact: &[String]) -> Self {
        let mut left = MOST_DECODED;
        let is_within = |texts: &Vec<String>| {
            let needed = texts.iter().map(String::len).sum();
            left.checked_sub(needed).map(|rest| left = rest).is_some()
        };
        let secrets = exact.iter().rev().filter(|it| it.len() < MOST_DECODED);
        let texts = secrets.map(|secret| decoded(secret)).take_while(is_within);
        let mut texts: Vec<String> = texts.flatten().collect();
        texts.sort_unstable();
        texts.dedup();
        // A DFA would need many times the memory and time to build, for short texts.
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts);
        let mut parts = HashSet::new();
        for text in &texts {
            for text in [text, &text.replace(' ', "")] {
                let windows = text.as_bytes().windows(SHORTEST_PART);
                parts.extend(windows.filter_map(|it| <[u8; SHORTEST_PART]>::try_from(it).ok()));
            }
        }
        Self {
            parts,
            search: search.ok(),
            texts,
        }
    }

    /// The longest parts of the secrets in a text, as services show that cut what they repeat.
    fn parts_in(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for (start, window) in text.as_bytes().windows(SHORTEST_PART).enumerate() {
            if !self.parts.contains(window) {
                continue;
            }
            let end = start + SHORTEST_PART;
            match found.last_mut().filter(|last| start <= last.end) {
                Some(last) => last.end = end,
                None => found.push(start..end),
            }
        }
        for part in &mut found {
            part.start = text.floor_char_boundary(part.start);
            part.end = text.ceil_char_boundary(part.end);
        }
        found
    }

    /// The length of the beginning of a secret with which a text ends, because it was cut.
    fn beginning_at_end(&self, text: &str) -> Option<usize> {
        let longest = |secret: &String| {
            let most = secret.len().min(text.len());
            (SHORTEST_ENCODED..=most)
                .rev()
                .filter(|length| secret.is_char_boundary(*length))
                .map(|length| &secret[..length])
                .filter(|beginning| !ORDINARY_SEGMENTS.contains(beginning))
                .find(|beginning| text.ends_with(beginning))
                .map(str::len)
        };
        self.texts.iter().filter_map(longest).max()
    }
}

/// A secret without its encodings, and as base64.
fn decoded(secret: &str) -> Vec<String> {
    let layers = layers(secret).into_iter().chain(layers(&base64s(secret)));
    let texts = layers.flat_map(|layer| {
        let parts = layer.text.split('\0').map(|text| text.trim().to_owned());
        parts.collect::<Vec<_>>()
    });
    texts
        .filter(|text| text.len() >= SHORTEST_ENCODED)
        .collect()
}

/// What a secret looks like within any text in base64, without the characters at its ends that
/// depend on its neighbors. Separated by NUL.
fn base64s(secret: &str) -> String {
    let encoded = (0..3).map(|before| {
        let mut text = vec![0; before];
        text.extend_from_slice(secret.as_bytes());
        let encoded = BASE64_STANDARD_NO_PAD.encode(&text);
        // Of 4 characters the first 2 or 3 hold bits of 1 or 2 bytes before.
        let start = [0, 2, 3][before];
        let end = match text.len() % 3 {
            0 => encoded.len(),
            _ => encoded.len() - 1,
        };
        encoded.get(start..end).unwrap_or_default().to_owned()
    });
    let standard: Vec<String> = encoded.collect();
    let url_safe = standard
        .iter()
        .map(|text| text.replace('+', "-").replace('/', "_"));
    let all: Vec<String> = url_safe.chain(standard.iter().cloned()).collect();
    all.join("\0")
}

/// A secret in the forms in which a service may repeat it: unchanged, with other white space, in
/// JSON, and in a URL.
fn forms(secret: &str) -> [String; 4] {
    let json = serde_json::Value::from(secret).to_string();
    let escaped = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    [
        secret.to_owned(),
        one_line(secret),
        json.trim_matches('"').to_owned(),
        escaped,
    ]
}

/// The words of a text with one space between them.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The secret parts of an address in a Secret: everything after the host, and the user info. Of a
/// connection string, also each key.
fn secrets_of_address(address: &str) -> Vec<String> {
    // The error about such an address says how to write one. That must stay readable.
    let below = address.split_once("://").map_or(address, |(_, rest)| rest);
    if HINT.contains(below) {
        return Vec::new();
    }
    let Ok(url) = Url::parse(address) else {
        let pairs = address.split(';').filter_map(|pair| pair.split_once('='));
        let keys = pairs.filter(|(name, _)| name.trim().ends_with("Key"));
        let keys = keys.map(|(_, value)| value.to_owned());
        return std::iter::once(below.to_owned()).chain(keys).collect();
    };
    let path = url.path().trim_start_matches('/').to_owned();
    let query = url.query().unwrap_or_default().to_owned();
    let segments = path.split('/').filter(|segment| {
        segment.len() >= SHORTEST_ENCODED && !ORDINARY_SEGMENTS.contains(segment)
    });
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let values = values.filter(|value| value.len() >= SHORTEST_ENCODED);
    let mut secrets: Vec<String> = segments.map(str::to_owned).chain(values).collect();
    let whole = path.trim_end_matches('/').to_owned();
    secrets.extend([whole, path, query, credential(&url).to_owned()]);
    secrets
}

/// The password of a URL, or the user name without one, which then is a token.
fn credential(url: &Url) -> &str {
    url.password().unwrap_or(url.username())
}

/// What is secret in the spec: the address and the channel if the type says so, and passwords.
fn secrets_of_spec(provider: &ResolvedProvider) -> Vec<String> {
    let mut secrets = Vec::new();
    if provider_type(provider.kind.name).is_some_and(ProviderType::is_address_secret) {
        secrets.extend(secrets_of_address(&provider.address));
    }
    if provider.kind.has_secret_channel() {
        secrets.push(provider.channel.clone());
    }
    // Only `nats` has several addresses, and tokens as user names.
    for address in provider.address.split(',') {
        let Ok(url) = Url::parse(address.trim()) else {
            continue;
        };
        secrets.extend(url.password().map(str::to_owned));
        if provider.kind.name == "nats" {
            secrets.push(credential(&url).to_owned());
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
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
}
