//! A manifest with its origin, before it is checked.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::lines::Lines;
use crate::problem::{Problem, Severity};

/// The API group of Alert and Provider.
pub const GROUP: &str = "notification.toolkit.fluxcd.io";

/// The API group of ProviderGrant.
pub const GRANT_GROUP: &str = "tidings.dev";
/// The version of ProviderGrant.
pub const GRANT_VERSION: &str = "v1alpha1";
/// The kind ProviderGrant.
pub const GRANT_KIND: &str = "ProviderGrant";

/// The origin of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The path of the file; `None` if the object comes from a cluster.
    pub file: Option<Arc<str>>,
    /// The line of each field.
    pub lines: Lines,
}

impl Origin {
    /// Creates a problem at a field, without naming the object or the field.
    pub(crate) fn problem(&self, severity: Severity, field: &str, message: String) -> Problem {
        Problem {
            file: self.file.as_deref().map(str::to_owned),
            line: self.line(field),
            object: None,
            field: None,
            message,
            severity,
        }
    }

    /// The line of a field, or of its nearest parent with a known line.
    pub fn line(&self, field: &str) -> Option<u64> {
        self.lines.line(field)
    }
}

/// A manifest with its origin.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// The whole manifest.
    pub value: Value,
    /// The origin of the manifest.
    pub origin: Arc<Origin>,
}

/// Identifies an object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Alert, Provider, ProviderGrant, Secret or ConfigMap.
    pub kind: String,
    /// The namespace; `default` if the manifest has none.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Identity {
    /// A stable uid for an object without one.
    pub fn uid(&self) -> String {
        let name = format!("{GROUP}/{}/{}/{}", self.kind, self.namespace, self.name);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
    }
}

/// Shows only the identity, because the object may be a Secret.
impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Object({})", self.identity())
    }
}

impl Object {
    /// Creates an object without a file.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            origin: Arc::default(),
        }
    }

    /// The string at this path; empty if there is none.
    pub fn text(&self, path: &[&str]) -> &str {
        let mut value = &self.value;
        for key in path {
            value = &value[key];
        }
        value.as_str().unwrap_or_default()
    }

    /// Whether the object is part of the rules: an Alert, a Provider or a ProviderGrant of any
    /// version, a Secret or a ConfigMap.
    pub fn is_rule(&self) -> bool {
        let (group, _) = self
            .text(&["apiVersion"])
            .rsplit_once('/')
            .unwrap_or_default();
        match self.text(&["kind"]) {
            "Alert" | "Provider" => group == GROUP,
            GRANT_KIND => group == GRANT_GROUP,
            "Secret" | "ConfigMap" => self.text(&["apiVersion"]) == "v1",
            _ => false,
        }
    }

    /// Kind, namespace and name of the object.
    pub fn identity(&self) -> Identity {
        let namespace = match self.text(&["metadata", "namespace"]) {
            "" => "default",
            namespace => namespace,
        };
        Identity {
            kind: self.text(&["kind"]).to_owned(),
            namespace: namespace.to_owned(),
            name: self.text(&["metadata", "name"]).to_owned(),
        }
    }

    /// Creates a problem in a field of this object; the empty field is the object as a whole.
    pub fn problem(&self, severity: Severity, field: &str, message: impl Into<String>) -> Problem {
        Problem {
            object: Some(self.identity().to_string()),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            ..self.origin.problem(severity, field, message.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_without_a_namespace_is_in_default_and_has_a_stable_uid() {
        let object =
            Object::new(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}));
        assert_eq!(object.identity().to_string(), "Secret default/s");
        assert_eq!(object.identity().uid(), object.identity().uid());
        assert_ne!(
            object.identity().uid(),
            Identity {
                name: "t".into(),
                ..object.identity()
            }
            .uid()
        );
    }

    #[test]
    fn five_kinds_are_rules() {
        for (api_version, kind, expected) in [
            ("notification.toolkit.fluxcd.io/v1beta1", "Alert", true),
            ("notification.toolkit.fluxcd.io/v9", "Provider", true),
            ("notification.toolkit.fluxcd.io/v1", "Receiver", false),
            ("tidings.dev/v1alpha1", "ProviderGrant", true),
            ("tidings.dev/v1alpha1", "Alert", false),
            ("example.org/v1", "Alert", false),
            ("v1", "Secret", true),
            ("v1", "Namespace", false),
        ] {
            let object = Object::new(json!({"apiVersion": api_version, "kind": kind}));
            assert_eq!(object.is_rule(), expected, "{api_version} {kind}");
        }
    }
}
