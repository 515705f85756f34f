//! Redacts secrets in texts for people: details of failures, dead letters, dry runs.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use tidings_rules::ResolvedProvider;
use url::Url;

use crate::notifier::contract::ProviderType;
use crate::notifier::provider_type;

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

/// The secret parts of an address in a Secret: everything after the host, and the user info. Of a
/// connection string, also each key.
fn secrets_of_address(address: &str) -> Vec<String> {
    let Ok(url) = Url::parse(address) else {
        let pairs = address.split(';').filter_map(|pair| pair.split_once('='));
        let keys = pairs.filter(|(name, _)| name.trim().ends_with("Key"));
        let keys = keys.map(|(_, value)| value.to_owned());
        return std::iter::once(address.to_owned()).chain(keys).collect();
    };
    let path = url.path().trim_start_matches('/').to_owned();
    let query = url.query().unwrap_or_default().to_owned();
    vec![path, query, credential(&url).to_owned()]
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
    use super::*;
    use crate::message::sample::{provider, secret};

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
