//! Manifest builders for the tests of every crate.
//!
//! ```
//! use serde_json::json;
//! use tidings_rules::testing::{alert, provider, secret};
//!
//! let objects = [
//!     provider("slack", "slack").with("secretRef", json!({"name": "slack-url"})).object(),
//!     secret("slack-url", json!({"address": "https://hooks.example"})).object(),
//!     alert("errors", "slack").with("eventSeverity", "error").in_namespace("infra").object(),
//! ];
//! # assert_eq!(objects[2].identity().to_string(), "Alert infra/errors");
//! ```

use std::fmt;

use serde_json::{Value, json};

use crate::object::{GRANT_GROUP, GRANT_KIND, GRANT_VERSION, GROUP, Object};

/// The namespace of every manifest that does not name another.
pub const NAMESPACE: &str = "apps";

/// The manifest of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest(Value);

/// An Alert that sends every event of every Kustomization in its namespace to one Provider.
pub fn alert(name: &str, provider: &str) -> Manifest {
    Manifest::new(&format!("{GROUP}/v1beta3"), "Alert", name)
        .with("providerRef", json!({"name": provider}))
        .with(
            "eventSources",
            json!([{"kind": "Kustomization", "name": "*"}]),
        )
}

/// A Provider of a type, without any other field.
pub fn provider(name: &str, kind: &str) -> Manifest {
    Manifest::new(&format!("{GROUP}/v1beta3"), "Provider", name).with("type", kind)
}

/// A ProviderGrant in a namespace, which shares all of its Providers with [`NAMESPACE`].
pub fn grant(name: &str, namespace: &str) -> Manifest {
    let api_version = format!("{GRANT_GROUP}/{GRANT_VERSION}");
    Manifest::new(&api_version, GRANT_KIND, name)
        .with("from", json!([{"namespace": NAMESPACE}]))
        .in_namespace(namespace)
}

/// A Secret with these keys in `stringData`.
pub fn secret(name: &str, keys: Value) -> Manifest {
    Manifest::new("v1", "Secret", name).set("/stringData", keys)
}

/// A ConfigMap with these keys in `data`.
pub fn config_map(name: &str, keys: Value) -> Manifest {
    Manifest::new("v1", "ConfigMap", name).set("/data", keys)
}

impl Manifest {
    fn new(api_version: &str, kind: &str, name: &str) -> Self {
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        Self(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}))
    }

    /// Sets a field of the spec.
    #[must_use]
    pub fn with(self, field: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("/spec/{field}"), value)
    }

    /// Sets several fields of the spec, given as a JSON object.
    ///
    /// # Panics
    /// If `fields` is not an object.
    #[must_use]
    pub fn with_fields(self, fields: Value) -> Self {
        let fields = fields.as_object().expect("the fields are a JSON object");
        fields.iter().fold(self, |manifest, (field, value)| {
            manifest.with(field, value.clone())
        })
    }

    /// Sets any field by its path, such as `/metadata/generation`; adds missing parent objects.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut field = &mut self.0;
        for key in path.split('/').skip(1) {
            field = &mut field[key];
        }
        *field = value.into();
        self
    }

    /// Shortens the backoff of a Provider, so that tests are quick.
    #[must_use]
    pub fn that_retries_soon(self) -> Self {
        self.with("retry", json!({"min": "100ms", "max": "1s"}))
    }

    /// Moves the object to another namespace than [`NAMESPACE`].
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        self.set("/metadata/namespace", namespace)
    }

    /// Changes the version of an Alert or a Provider; the default is `v1beta3`.
    #[must_use]
    pub fn in_version(self, version: &str) -> Self {
        self.set("/apiVersion", format!("{GROUP}/{version}"))
    }

    /// The manifest as JSON.
    pub fn value(self) -> Value {
        self.0
    }

    /// The manifest as an object that [`Rules::compile`](crate::Rules::compile) accepts.
    pub fn object(self) -> Object {
        Object::new(self.0)
    }
}

/// Writes the manifest as one line of JSON, which is also a YAML document.
impl fmt::Display for Manifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A text in which almost every position needs another state of an automaton, for tests of costly
/// patterns.
pub fn disorder(seed: u64, bytes: usize) -> String {
    let mut state = seed;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        if state >> 63 == 0 { 'a' } else { 'b' }
    };
    (0..bytes).map(next).collect()
}
