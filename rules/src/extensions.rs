//! The extensions of Alert and Provider, and their annotations.
//!
//! Flux's schemas lack the extension fields, so an API server with Flux's CRDs drops them. It never
//! drops an annotation. Each extension can be given either way, with the same checks.

mod form;
mod merge;
mod near_miss;

pub use form::Form;
pub(crate) use merge::merge;

use serde_json::Value;

use crate::cluster_selector::ClusterSelector;
use crate::object::Object;

/// The field that restricts an Alert to clusters.
pub(crate) const CLUSTERS: &str = "clusters";
/// The field that restricts an Alert to clusters with certain labels.
pub(crate) const CLUSTER_SELECTOR: &str = "clusterSelector";

/// The prefix of the annotations. Annotations with other prefixes are ignored.
pub const PREFIX: &str = "tidings.dev/";

/// An extension of Alert or Provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// `Alert` or `Provider`.
    pub kind: &'static str,
    /// The path of the field below `spec`.
    pub field: &'static str,
    /// The annotation after [`PREFIX`]: the field in kebab case.
    pub name: &'static str,
    /// How the annotation's text is read.
    pub form: Form,
    /// A value, for the documentation.
    pub example: &'static str,
}

const fn alert(
    field: &'static str,
    name: &'static str,
    form: Form,
    example: &'static str,
) -> Extension {
    Extension {
        kind: "Alert",
        field,
        name,
        form,
        example,
    }
}

const fn provider(
    field: &'static str,
    name: &'static str,
    form: Form,
    example: &'static str,
) -> Extension {
    Extension {
        kind: "Provider",
        ..alert(field, name, form, example)
    }
}

/// Every extension: one row for each field.
#[rustfmt::skip]
pub const EXTENSIONS: &[Extension] = &[
    alert(CLUSTERS, "clusters", Form::List, "prod-*,stage-*"),
    alert(CLUSTER_SELECTOR, "cluster-selector", Form::Selector,
        "env=prod,tier in (web,api),!legacy"),
    alert("channel", "channel", Form::Text, "on-call"),
    alert("providerRef.namespace", "provider-namespace", Form::Text, "platform"),
    alert("eventSeverity", "event-severity", Form::Severity, "info,error"),
    alert("template.inline", "template", Form::Text, "{{ name }}: {{ event.message }}"),
    alert("template.configMapKeyRef", "template-ref", Form::Reference, "texts/short"),
    provider("apiAddress", "api-address", Form::Text, "https://example.com/gitlab"),
    provider("rateLimit", "rate-limit", Form::Text, "10/1s"),
    provider("maxInFlight", "max-in-flight", Form::Number, "5"),
    provider("retry.maxAge", "retry-max-age", Form::Text, "24h"),
    provider("retry.min", "retry-min", Form::Text, "2s"),
    provider("retry.max", "retry-max", Form::Text, "10m"),
    provider("pool", "pool", Form::Text, "eu-1"),
    provider("template.inline", "template", Form::Text, "{{ name }}: {{ event.message }}"),
    provider("template.configMapKeyRef", "template-ref", Form::Reference, "texts/short"),
    provider("links", "links", Form::Boolean, "true"),
    provider("acceptRedirects", "accept-redirects", Form::Boolean, "true"),
    provider("clusterField", "cluster-field", Form::Boolean, "true"),
    provider("reasonStates", "reason-states", Form::Map, "Deployed=success,Drifted=none"),
    provider("commitStatus.id", "commit-status-id", Form::Text, "qualified"),
    provider("commitStatus.pending", "commit-status-pending", Form::Boolean, "true"),
    provider("commitStatus.targetURL", "commit-status-target-url", Form::Text,
        "https://example.com/{{ cluster }}/{{ name }}"),
];

impl Extension {
    /// The extensions of `Alert` or `Provider`; none for other kinds.
    pub fn of(kind: &str) -> impl Iterator<Item = &'static Self> {
        EXTENSIONS.iter().filter(move |row| row.kind == kind)
    }

    /// The key of the annotation.
    pub fn annotation(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// The path of the annotation in an object, as problems name it.
    pub fn annotation_path(&self) -> String {
        format!("metadata.annotations[{}]", self.annotation())
    }

    /// The path of the field in an object, as problems name it.
    pub fn field_path(&self) -> String {
        format!("spec.{}", self.field)
    }

    /// Whether `path` is the field or a part of it.
    fn contains(&self, path: &str) -> bool {
        is_within(path, &self.field_path())
    }

    /// Whether the object has the field.
    fn is_in(&self, object: &Object) -> bool {
        let mut value = &object.value["spec"];
        for key in self.field.split('.') {
            value = &value[key];
        }
        !value.is_null()
    }
}

/// The extensions of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectExtensions {
    /// The fields that are set and that Flux's schema lacks, sorted.
    pub fields: Vec<&'static str>,
    /// The fields that annotations give.
    pub annotated: Vec<&'static str>,
    /// `spec.clusters` of an Alert.
    pub clusters: Vec<String>,
    /// `spec.clusterSelector` of an Alert, as text; empty if the Alert has none.
    pub cluster_selector: String,
}

impl ObjectExtensions {
    /// The extensions of an object, with the annotations that are valid.
    pub(crate) fn new(object: &Object, annotated: &[&'static Extension]) -> Self {
        // Flux's schema has `eventSeverity`. It rejects our values and drops none.
        let is_ours = |row: &&Extension| row.form != Form::Severity && row.is_in(object);
        let rows = Extension::of(object.text(&["kind"])).filter(is_ours);
        let mut fields: Vec<_> = rows.map(|row| row.field).collect();
        fields.sort_unstable();
        let clusters = object.value["spec"][CLUSTERS].as_array();
        let name = |name: &Value| name.as_str().map(str::to_owned);
        let selector = &object.value["spec"][CLUSTER_SELECTOR];
        let selector = Some(selector).filter(|selector| !selector.is_null());
        let selector = selector.and_then(ClusterSelector::of_value);
        Self {
            fields,
            annotated: annotated.iter().map(|row| row.field).collect(),
            clusters: clusters.into_iter().flatten().filter_map(name).collect(),
            cluster_selector: selector.map_or_else(String::new, |it| it.to_string()),
        }
    }

    /// Whether the field is set.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.fields.contains(&field)
    }

    /// Whether an annotation gives the field.
    pub(crate) fn annotates(&self, field: &str) -> bool {
        self.annotated.contains(&field)
    }
}

/// The path of what a user wrote: that of the annotation, if the value at `path`, or a part of it,
/// was given by one.
pub(crate) fn written_path(
    path: &str,
    annotated: &[&'static Extension],
    object: &Object,
) -> String {
    let exact = annotated.iter().find(|row| row.contains(path));
    // A problem of a whole, such as `spec.template`, that is given by annotations only.
    let whole = || {
        let parts = || {
            Extension::of(object.text(&["kind"])).filter(|row| is_within(&row.field_path(), path))
        };
        if parts().any(|row| row.is_in(object)) {
            return None;
        }
        annotated
            .iter()
            .find(|row| parts().any(|part| part == **row))
    };
    match exact.or_else(whole) {
        Some(row) => row.annotation_path(),
        None => path.to_owned(),
    }
}

/// Whether `path` is `whole` or a part of it.
fn is_within(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests;
