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
mod tests;
