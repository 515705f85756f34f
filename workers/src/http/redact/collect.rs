//! Collects the secrets of a Provider.

use serde_json::Value;
use tidings_rules::ResolvedProvider;
use url::Url;

use super::{ORDINARY_SEGMENTS, SHORTEST_ENCODED};
use crate::notifier::contract::ProviderType;
use crate::notifier::provider_type;

/// What errors show as the form of an address.
const HINT: &str = "https://HOST/PATH";
/// Fields of a JSON key that are not secret, as in that of a Google service account.
const VISIBLE_FIELDS: [&str; 9] = [
    "type",
    "project_id",
    "client_email",
    "client_id",
    "auth_uri",
    "token_uri",
    "auth_provider_x509_cert_url",
    "client_x509_cert_url",
    "universe_domain",
];
/// The longest secret that is read as JSON.
const LONGEST_JSON: usize = 64 << 10;

/// What a Provider has.
#[derive(Default)]
pub struct Collected {
    /// The secrets.
    pub secrets: Vec<String>,
    /// Parts of the secrets that are not secret on their own.
    pub visible: Vec<String>,
}

/// Collects the values of a Provider's Secrets and the secret parts of its address.
pub fn collect(provider: &ResolvedProvider) -> Collected {
    let mut secrets: Vec<String> = Vec::new();
    let mut visible: Vec<String> = provider.headers.keys().cloned().collect();
    for (key, value) in &provider.secret.0 {
        let text = value.text().unwrap_or_default();
        match key.as_str() {
            "address" | "url" => {
                secrets.extend(secrets_of_address(text));
                visible.extend(visible_of_address(text));
            }
            "username"
            | "githubAppID"
            | "githubAppInstallationID"
            | "githubAppInstallationOwner"
            | "githubAppBaseURL" => {}
            _ => {
                secrets.push(text.to_owned());
                visible.extend(visible_of_json(text));
            }
        }
    }
    let headers = provider.headers.values();
    secrets.extend(headers.clone().cloned());
    let credentials = headers.filter_map(|value| value.split_once(' '));
    secrets.extend(credentials.map(|(_, rest)| rest.to_owned()));
    secrets.extend(secrets_of_proxy(provider));
    secrets.extend(secrets_of_spec(provider));
    visible.extend(visible_of_address(&provider.address));
    Collected { secrets, visible }
}

fn secrets_of_proxy(provider: &ResolvedProvider) -> Vec<String> {
    let Some(proxy) = &provider.proxy else {
        return Vec::new();
    };
    let address = Url::parse(&proxy.address).ok();
    let in_address = address.and_then(|url| url.password().map(str::to_owned));
    let credentials = proxy.credentials.iter();
    let passwords = credentials.filter_map(|(_, password)| password.text().map(str::to_owned));
    in_address.into_iter().chain(passwords).collect()
}

/// The names in the query of an address. Of a connection string, its names, its host and the names
/// of objects. Services name them in errors.
fn visible_of_address(address: &str) -> Vec<String> {
    if let Ok(url) = Url::parse(address) {
        return url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .collect();
    }
    let mut visible = Vec::new();
    for (name, value) in address.split(';').filter_map(|pair| pair.split_once('=')) {
        let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        visible.extend(Some(name.trim()).filter(is_word).map(str::to_owned));
        if name.ends_with("Name") || name.ends_with("Path") {
            visible.push(value.to_owned());
        }
        if name.trim() == "Endpoint" {
            let host = value.split_once("://").map_or(value, |(_, host)| host);
            visible.push(host.trim_end_matches('/').to_owned());
        }
    }
    visible
}

/// The fields of a JSON key that are not secret.
fn visible_of_json(secret: &str) -> Vec<String> {
    let is_object = secret.trim_start().starts_with('{') && secret.len() <= LONGEST_JSON;
    let fields = match is_object.then(|| serde_json::from_str(secret)) {
        Some(Ok(Value::Object(fields))) => fields,
        _ => return Vec::new(),
    };
    let names = VISIBLE_FIELDS
        .into_iter()
        .chain(["private_key", "private_key_id"]);
    let values = VISIBLE_FIELDS
        .iter()
        .filter_map(|name| fields.get(*name)?.as_str());
    names.chain(values).map(str::to_owned).collect()
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
