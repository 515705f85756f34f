//! Taking secrets out of texts that people see: details of failures, dead letters, dry runs.

use tidings_rules::ResolvedProvider;
use url::Url;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";
/// Shorter values would blot out ordinary words.
const SHORTEST: usize = 4;

/// Knows the secrets of one Provider.
#[derive(Clone)]
pub struct Redactor {
    /// Longest first, so that no part of one is left over.
    secrets: Vec<String>,
}

impl Redactor {
    /// Collects all that a Provider's Secrets hold, and what of its address can be one.
    pub fn new(provider: &ResolvedProvider) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for (key, value) in &provider.secret.0 {
            let text = value.text().unwrap_or_default();
            match key.as_str() {
                "address" | "url" => secrets.extend(secrets_of_address(text)),
                "username" | "githubAppID" | "githubAppInstallationID" | "githubAppInstallationOwner" | "githubAppBaseURL" => {}
                _ => secrets.push(text.to_owned()),
            }
        }
        secrets.extend(provider.headers.values().cloned());
        secrets.extend(provider.headers.values().filter_map(|value| value.split_once(' ')).map(|(_, rest)| rest.to_owned()));
        if let Some(proxy) = &provider.proxy {
            secrets.extend(Url::parse(&proxy.address).ok().and_then(|url| url.password().map(str::to_owned)));
            secrets.extend(proxy.credentials.iter().filter_map(|(_, password)| password.text()).map(str::to_owned));
        }
        secrets.extend(Url::parse(&provider.address).ok().and_then(|url| url.password().map(str::to_owned)));
        secrets.retain(|secret| secret.len() >= SHORTEST);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// The text without the secrets.
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), REDACTED) } else { text }
        })
    }
}

/// Of an address in a Secret, all behind the host is secret.
fn secrets_of_address(address: &str) -> Vec<String> {
    let Ok(url) = Url::parse(address) else {
        return vec![address.to_owned()];
    };
    let path = url.path().trim_start_matches('/').to_owned();
    let query = url.query().unwrap_or_default().to_owned();
    vec![path, query, url.password().unwrap_or_default().to_owned()]
}
