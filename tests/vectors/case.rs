//! The recorded cases.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tidings_workers::notifier::PROVIDERS;

use crate::RECORDED_TYPES;

/// The input of `tidings test`.
#[derive(Debug, Deserialize)]
pub struct Input {
    /// The objects of the rules folder.
    #[serde(default)]
    pub rules: Vec<Value>,
    /// The event, or its text if it is not valid JSON.
    #[serde(default)]
    pub event: Value,
    pub event_text: Option<String>,
    /// The value of `--labels`.
    pub labels: Option<String>,
    #[serde(default)]
    pub no_cross_namespace_refs: bool,
}

impl Input {
    /// A recorded type of a Provider that the executable does not support.
    pub fn missing_type(&self) -> Option<&str> {
        let types = self
            .rules
            .iter()
            .filter_map(|object| object.pointer("/spec/type")?.as_str());
        types
            .filter(|kind| RECORDED_TYPES.contains(kind))
            .find(|kind| !is_supported_type(kind))
    }
}

/// Whether the executable supports a provider type.
pub fn is_supported_type(kind: &str) -> bool {
    PROVIDERS.iter().any(|provider| provider.kind == kind)
}

/// A case of a provider type.
#[derive(Debug, Deserialize)]
pub struct WireCase {
    pub name: String,
    pub skip: Option<String>,
    #[serde(flatten)]
    pub input: Input,
    #[serde(default)]
    pub server: Vec<Rule>,
    #[serde(default)]
    pub requests: Vec<ExpectedRequest>,
    /// Host and credentials of each tunnel through the Provider's proxy.
    #[serde(default)]
    pub tunnels: Vec<(String, String)>,
    /// Values that may differ, by JSON pointer.
    #[serde(default)]
    pub loose: BTreeMap<String, Looseness>,
    pub outcomes: Option<Vec<String>>,
    #[serde(default)]
    pub exit: i32,
    /// The key of the signature in X-Signature.
    pub signature_key: Option<String>,
}

/// A scripted response, and the requests that get it.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    #[serde(default, rename = "match")]
    pub matcher: Matcher,
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
    /// How often it is used; 0: always.
    #[serde(default)]
    pub times: usize,
}

/// The requests that a [`Rule`] responds to.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Matcher {
    pub method: Option<String>,
    pub host: Option<String>,
    pub path: Option<String>,
}

/// A recorded request.
#[derive(Debug, Deserialize)]
pub struct ExpectedRequest {
    pub method: String,
    pub scheme: String,
    pub host: String,
    pub path: String,
    #[serde(default)]
    pub query: String,
    #[serde(default)]
    pub via_proxy: bool,
    pub client_cert_cn: Option<String>,
    pub headers: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "present")]
    pub body_json: Option<Value>,
    pub body_json_lines: Option<Value>,
    pub body_form: Option<Value>,
    pub body_text: Option<Value>,
}

impl ExpectedRequest {
    /// The body, and the name of its recorded form.
    pub fn body(&self) -> Option<(&'static str, &Value)> {
        let forms = [
            ("body_json", &self.body_json),
            ("body_json_lines", &self.body_json_lines),
            ("body_form", &self.body_form),
            ("body_text", &self.body_text),
        ];
        forms
            .into_iter()
            .find_map(|(name, body)| Some((name, body.as_ref()?)))
    }
}

/// How a value may differ from the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Looseness {
    Order,
    LineOrder,
    Value,
    Prefix,
    Any,
}

/// Distinguishes null from an absent value.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// All cases of a file in `data/`.
pub fn load<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/data")
        .join(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
