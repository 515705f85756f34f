//! Collects the problems of one object while it is checked.

use serde_json::Value;

use crate::extensions::{self, Extension};
use crate::object::Object;
use crate::problem::{Problem, Severity};
use crate::structure::{self, Spec};

/// The problems of one object.
#[derive(Debug)]
pub struct Report<'a> {
    /// The object that is checked.
    pub object: &'a Object,
    /// The problems found so far.
    pub problems: Vec<Problem>,
    /// The extensions that annotations give. Problems in their values name the annotation.
    pub(crate) annotated: Vec<&'static Extension>,
    rejection: Option<Problem>,
}

impl<'a> Report<'a> {
    /// Starts a report without problems.
    pub fn new(object: &'a Object) -> Self {
        Self {
            object,
            problems: Vec::new(),
            annotated: Vec::new(),
            rejection: None,
        }
    }

    /// Adds an error. An object with an error is rejected. Further errors of the same field and of
    /// its parts follow from the first one and are left out.
    pub fn error(&mut self, field: &str, message: impl Into<String>) {
        let problem = self.problem(Severity::Error, field, message.into());
        self.rejection.get_or_insert_with(|| problem.clone());
        self.add(problem);
    }

    /// Adds a fault. The object stays in effect, without the field.
    pub fn fault(&mut self, field: &str, message: impl Into<String>) {
        let problem = self.problem(Severity::Fault, field, message.into());
        self.add(problem);
    }

    /// Adds a warning. The object stays in effect.
    pub fn warn(&mut self, field: &str, message: impl Into<String>) {
        let problem = self.problem(Severity::Warning, field, message.into());
        self.add(problem);
    }

    /// Creates a fault without adding it.
    pub(crate) fn fault_at(&self, field: &str, message: String) -> Problem {
        self.problem(Severity::Fault, field, message)
    }

    fn problem(&self, severity: Severity, field: &str, message: String) -> Problem {
        let field = extensions::written_path(field, &self.annotated, self.object);
        self.object.problem(severity, &field, message)
    }

    fn add(&mut self, problem: Problem) {
        if !self.problems.iter().any(|known| covers(known, &problem)) {
            self.problems.push(problem);
        }
    }

    /// The first error that rejects the object.
    pub fn rejection(&self) -> Option<&Problem> {
        self.rejection.as_ref()
    }

    /// The uid of the manifest, or one derived from kind, namespace and name.
    pub fn uid(&self) -> String {
        match self.object.text(&["metadata", "uid"]) {
            "" => self.object.identity().uid(),
            uid => uid.to_owned(),
        }
    }

    /// The manifest for CEL expressions: with namespace and uid, without `managedFields`.
    pub fn manifest(&self) -> Value {
        let mut manifest = self.object.value.clone();
        let (namespace, uid) = (self.object.identity().namespace, self.uid());
        if let Some(metadata) = manifest["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.insert("namespace".to_owned(), namespace.into());
            metadata.insert("uid".to_owned(), uid.into());
        }
        manifest
    }

    /// Adds an error if the text has more characters than allowed.
    pub fn at_most(&mut self, field: &str, text: Option<&str>, characters: usize) {
        let length = text.map_or(0, |text| text.chars().count());
        if length > characters {
            self.error(
                field,
                format!("has {length} characters; shorten it to at most {characters}"),
            );
        }
    }

    /// Deserializes `spec` with the values of annotations, and reports every problem in its
    /// structure; `None` if it cannot be read at all. A missing `spec` counts as empty.
    pub fn spec<T: Spec>(&mut self) -> Option<T> {
        let spec = extensions::merge(self);
        let spec = structure::check_spec::<T>(&spec, self);
        if spec.is_null() {
            return Some(T::default());
        }
        match serde_path_to_error::deserialize(&spec) {
            Ok(spec) => Some(spec),
            Err(error) => {
                let path = error.path().to_string();
                let field = if path == "." {
                    "spec".to_owned()
                } else {
                    format!("spec.{path}")
                };
                self.error(&field, without_value(&error.inner().to_string()));
                None
            }
        }
    }
}

/// Whether `known` is an error or a fault of the same field, or of a field that contains it.
fn covers(known: &Problem, problem: &Problem) -> bool {
    let (Some(known_field), Some(field)) = (&known.field, &problem.field) else {
        return false;
    };
    known.severity != Severity::Warning
        && field
            .strip_prefix(known_field.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Removes the value that serde quotes. It may be an address that contains a secret.
fn without_value(message: &str) -> String {
    match (message.find(" \""), message.rfind("\", expected ")) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{}", &message[..begin], &message[end + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{AlertSpec, ProviderSpec};

    #[test]
    fn a_value_of_the_wrong_type_is_reported_with_its_field_and_not_shown() {
        let spec = json!({"type": "slack", "secretRef": "s3cret \", expected b"});
        let object = Object::new(json!({"kind": "Provider", "spec": spec}));
        let mut report = Report::new(&object);
        assert!(report.spec::<ProviderSpec>().unwrap().secret_ref.is_none());
        let problem = &report.problems[0];
        assert_eq!(problem.field.as_deref(), Some("spec.secretRef"));
        assert_eq!(problem.message, "must be a map, not a string");
    }

    #[test]
    fn null_counts_as_absent() {
        let provider = json!({"name": "p"});
        let spec = json!({"providerRef": provider, "eventSources": [], "eventSeverity": null});
        let object = Object::new(json!({"spec": spec}));
        assert!(
            Report::new(&object)
                .spec::<AlertSpec>()
                .unwrap()
                .event_severity
                .is_none()
        );
    }
}
