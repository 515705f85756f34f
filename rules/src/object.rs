//! An object as it was read, before anything is known of it but its name and its place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::problem::{Problem, Severity};

/// The API group of Alert and Provider.
pub const GROUP: &str = "notification.toolkit.fluxcd.io";

/// Where an object comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file; nothing where it comes from a cluster.
    pub file: Option<Arc<str>>,
    /// The line where each field begins; the empty path is the object itself.
    pub lines: BTreeMap<String, u64>,
}

impl Origin {
    /// The line of a field, or of the nearest one around it that is known.
    pub fn line(&self, field: &str) -> Option<u64> {
        let mut path = field;
        loop {
            match self.lines.get(path) {
                Some(line) => return Some(*line),
                None if path.is_empty() => return None,
                None => path = &path[..path.rfind(['.', '[']).unwrap_or_default()],
            }
        }
    }
}

/// An object as it was read.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Its whole manifest.
    pub value: Value,
    /// Where it stands.
    pub origin: Origin,
}

/// What tells objects of the kinds that rules consist of from each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Alert, Provider, Secret or ConfigMap.
    pub kind: String,
    /// Its namespace; `default` where the manifest has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl Identity {
    /// A uid for an object that no API server has given one: always the same for the same object.
    pub fn uid(&self) -> String {
        let name = format!("{GROUP}/{}/{}/{}", self.kind, self.namespace, self.name);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
    }
}

/// It may be a Secret: only its name is shown.
impl fmt::Debug for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Object({})", self.identity())
    }
}

impl Object {
    /// An object that comes from no file.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            origin: Origin::default(),
        }
    }

    /// A text of the object; empty where it isn't one.
    pub fn text(&self, path: &[&str]) -> &str {
        let mut value = &self.value;
        for key in path {
            value = &value[key];
        }
        value.as_str().unwrap_or_default()
    }

    /// Whether rules consist of such objects: Alert and Provider of any version, Secret and
    /// ConfigMap.
    pub fn is_rule(&self) -> bool {
        let (group, _) = self
            .text(&["apiVersion"])
            .rsplit_once('/')
            .unwrap_or_default();
        match self.text(&["kind"]) {
            "Alert" | "Provider" => group == GROUP,
            "Secret" | "ConfigMap" => self.text(&["apiVersion"]) == "v1",
            _ => false,
        }
    }

    /// Who it is.
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

    /// A problem of this object, at one of its fields; the empty field is the object as a whole.
    pub fn problem(&self, severity: Severity, field: &str, sentence: impl Into<String>) -> Problem {
        Problem {
            file: self.origin.file.as_deref().map(str::to_owned),
            line: self.origin.line(field),
            object: Some(self.identity().to_string()),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            sentence: sentence.into(),
            severity,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_without_a_namespace_is_in_default_and_keeps_its_made_up_uid() {
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
    fn rules_consist_of_four_kinds() {
        for (api_version, kind, expected) in [
            ("notification.toolkit.fluxcd.io/v1beta1", "Alert", true),
            ("notification.toolkit.fluxcd.io/v9", "Provider", true),
            ("notification.toolkit.fluxcd.io/v1", "Receiver", false),
            ("example.org/v1", "Alert", false),
            ("v1", "Secret", true),
            ("v1", "Namespace", false),
        ] {
            let object = Object::new(json!({"apiVersion": api_version, "kind": kind}));
            assert_eq!(object.is_rule(), expected, "{api_version} {kind}");
        }
    }

    #[test]
    fn a_field_without_a_line_has_the_line_of_what_is_around_it() {
        let lines = [("", 1), ("spec", 4), ("spec.list[0]", 6)];
        let lines = lines
            .into_iter()
            .map(|(path, line)| (path.to_owned(), line))
            .collect();
        let origin = Origin { file: None, lines };
        for (field, line) in [
            ("spec.list[0].name", 6),
            ("spec.list[1]", 4),
            ("spec.a", 4),
            ("data.a", 1),
            ("data", 1),
            ("", 1),
        ] {
            assert_eq!(origin.line(field), Some(line), "{field}");
        }
    }
}
