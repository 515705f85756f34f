//! Redacts secrets in texts for people: details of failures, dead letters, dry runs.

mod collect;
mod escapes;
mod masks;
mod radix;
mod search;
#[cfg(test)]
mod tests;
mod views;
mod windows;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use tidings_rules::ResolvedProvider;

use collect::{Collected, collect};
use search::DecodedSecrets;
use views::visit_views;

/// Replaces a secret.
pub const REDACTED: &str = "[redacted]";
/// The shortest value that is redacted. Shorter ones would match ordinary words.
const SHORTEST: usize = 4;

/// The shortest value that is redacted in any encoding and case, and the shortest part of one.
const SHORTEST_ENCODED: usize = windows::WINDOW;
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
    /// All secrets in the forms in which services usually repeat them.
    exact: Vec<String>,
    /// All secrets, from the shortest to the longest.
    plain: Vec<String>,
    /// Parts of the secrets that are not secret on their own.
    visible: Vec<String>,
    /// The secrets without encodings. Only texts for people need them, so a call that succeeds does
    /// not pay for them.
    decoded: OnceLock<DecodedSecrets>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redactor")
    }
}

impl Redactor {
    /// Collects the values of a Provider's Secrets and the secret parts of its address.
    pub fn new(provider: &ResolvedProvider) -> Self {
        let Collected { secrets, visible } = collect(provider);
        Self::default().with(secrets, visible)
    }

    /// Adds the sensitive headers of a request. They hold derived secrets, such as signed tokens.
    pub fn with_headers(&self, headers: &HeaderMap) -> Self {
        let values = headers
            .values()
            .filter(|value| value.is_sensitive())
            .filter_map(|value| value.to_str().ok());
        let parts =
            values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]);
        let secrets = parts.flatten().map(str::to_owned).collect();
        self.with(secrets, Vec::new())
    }

    /// Adds more secrets.
    pub fn with_secrets(&self, secrets: &[String]) -> Self {
        self.with(secrets.to_vec(), Vec::new())
    }

    fn with(&self, secrets: Vec<String>, visible: Vec<String>) -> Self {
        if secrets.is_empty() {
            return self.clone();
        }
        let known = &self.secrets;
        let forms = secrets.iter().flat_map(|secret| forms(secret));
        let exact = known.exact.iter().cloned().chain(forms).collect();
        let visible = known.visible.iter().cloned().chain(visible).collect();
        let plain = known.plain.iter().cloned().chain(secrets).collect();
        Self {
            secrets: Arc::new(Secrets {
                exact: sorted(exact),
                plain: sorted(plain),
                visible,
                decoded: OnceLock::new(),
            }),
        }
    }

    #[cfg(test)]
    fn of(secrets: Vec<String>) -> Self {
        Self::default().with(secrets, Vec::new())
    }

    /// The text without the secrets and without their parts of 8 or more characters, in whatever
    /// encoding they are. Nothing of a text with too many encodings is shown.
    pub fn redact(&self, text: &str) -> String {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for secret in &self.secrets.exact {
            let found = text.match_indices(secret.as_str());
            parts.extend(found.map(|(start, found)| start..start + found.len()));
        }
        let decoded = self.secrets.decoded();
        let is_searched =
            decoded.is_empty() || visit_views(text, &mut |view| decoded.find(view, &mut parts));
        if !is_searched {
            return REDACTED.to_owned();
        }
        let mut text = text.to_owned();
        for part in merged(parts).into_iter().rev() {
            text.replace_range(part, REDACTED);
        }
        text
    }
}

impl Secrets {
    fn decoded(&self) -> &DecodedSecrets {
        self.decoded
            .get_or_init(|| DecodedSecrets::of(&self.plain, &self.visible))
    }
}

/// The secrets that are long enough to be redacted, from the shortest to the longest.
fn sorted(mut secrets: Vec<String>) -> Vec<String> {
    secrets.retain(|secret| secret.len() >= SHORTEST);
    secrets.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    secrets.dedup();
    secrets
}

/// The parts in order and without overlaps.
fn merged(mut parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    // What decoding found twice can seem to end before it begins.
    parts.retain(|part| part.start < part.end);
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
