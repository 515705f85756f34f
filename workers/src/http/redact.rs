//! Redacts secrets in texts for people: details of failures, dead letters, dry runs.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use tidings_rules::ResolvedProvider;
use url::Url;

/// Replaces a secret.
pub const REDACTED: &str = "[redacted]";
/// The shortest value that is redacted. Shorter ones would match ordinary words.
const SHORTEST: usize = 4;

/// Knows the secrets of one Provider.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that no part of a longer secret remains.
    secrets: Arc<[String]>,
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
        secrets.extend(
            Url::parse(&provider.address)
                .ok()
                .and_then(|url| url.password().map(str::to_owned)),
        );
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
        let forms: Vec<String> = parts.flatten().flat_map(forms).collect();
        if forms.is_empty() {
            self.clone()
        } else {
            Self::sorted(self.secrets.iter().cloned().chain(forms).collect())
        }
    }

    fn of(secrets: Vec<String>) -> Self {
        Self::sorted(secrets.iter().flat_map(|secret| forms(secret)).collect())
    }

    fn sorted(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= SHORTEST);
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self {
            secrets: secrets.into(),
        }
    }

    /// The text without the secrets.
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) {
                text.replace(secret.as_str(), REDACTED)
            } else {
                text
            }
        })
    }
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

/// The secret parts of an address in a Secret: everything after the host.
fn secrets_of_address(address: &str) -> Vec<String> {
    let Ok(url) = Url::parse(address) else {
        return vec![address.to_owned()];
    };
    let path = url.path().trim_start_matches('/').to_owned();
    let query = url.query().unwrap_or_default().to_owned();
    vec![path, query, url.password().unwrap_or_default().to_owned()]
}
