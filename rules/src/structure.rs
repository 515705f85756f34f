//! Compares a manifest with the schema of its kind: unknown fields, missing fields, wrong types.
//!
//! The schema of a spec is that of the CRD. An unknown field is an error in a folder only: in a
//! cluster the API server decides which fields exist, and newer CRDs may have more of them.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tidings_core::model::nearest::{instead, nearest};

use crate::crd::structural;
use crate::object::GRANT_KIND;
use crate::report::Report;
use crate::resource::{AlertSpec, ProviderGrantSpec, ProviderSpec};

/// The spec of a kind.
pub trait Spec: Default + DeserializeOwned + JsonSchema {
    /// The schema of the spec, as in the CRD.
    fn schema() -> &'static Value;
}

impl Spec for AlertSpec {
    fn schema() -> &'static Value {
        static SCHEMA: LazyLock<Value> = LazyLock::new(structural::<AlertSpec>);
        &SCHEMA
    }
}

impl Spec for ProviderSpec {
    fn schema() -> &'static Value {
        static SCHEMA: LazyLock<Value> = LazyLock::new(structural::<ProviderSpec>);
        &SCHEMA
    }
}

impl Spec for ProviderGrantSpec {
    fn schema() -> &'static Value {
        static SCHEMA: LazyLock<Value> = LazyLock::new(structural::<ProviderGrantSpec>);
        &SCHEMA
    }
}

/// Reports every problem in the structure of the manifest, except in its spec.
pub(crate) fn check_manifest(report: &mut Report<'_>) {
    let schema = manifest(report.object.text(&["kind"]));
    let value = &report.object.value;
    Walk { report, schema }.value(schema, value, "");
}

/// Reports every problem in the structure of the spec. Returns a spec without them: wrong values
/// are left out, and missing ones are empty, so that the other fields can be checked.
pub(crate) fn check_spec<T: Spec>(spec: &Value, report: &mut Report<'_>) -> Value {
    let schema = manifest(report.object.text(&["kind"]));
    Walk { report, schema }.value(T::schema(), spec, "spec")
}

/// The schema of a manifest of a kind. The schema of its spec is open.
fn manifest(kind: &str) -> &'static Value {
    static RULE: LazyLock<Value> = LazyLock::new(|| with_metadata(&["spec", "status"]));
    static SECRET: LazyLock<Value> =
        LazyLock::new(|| with_metadata(&["data", "stringData", "type", "immutable", "sops"]));
    static CONFIG_MAP: LazyLock<Value> =
        LazyLock::new(|| with_metadata(&["data", "binaryData", "immutable", "sops"]));
    match kind {
        "Secret" => &SECRET,
        "ConfigMap" => &CONFIG_MAP,
        _ => &RULE,
    }
}

/// A manifest with metadata and these fields, which may hold anything.
fn with_metadata(fields: &[&str]) -> Value {
    let text = json!({"type": "string"});
    let free = json!({"type": "object", "additionalProperties": {}});
    let metadata = json!({
        "name": text, "namespace": text, "labels": free, "annotations": free, "uid": text,
        "generateName": text, "creationTimestamp": {}, "deletionTimestamp": {},
        "deletionGracePeriodSeconds": {}, "finalizers": {}, "generation": {}, "managedFields": {},
        "ownerReferences": {}, "resourceVersion": {}, "selfLink": {},
    });
    let mut properties = json!({
        "apiVersion": text, "kind": text,
        "metadata": {"type": "object", "properties": metadata},
    });
    for field in fields {
        properties[field] = json!({});
    }
    json!({"type": "object", "properties": properties})
}

struct Walk<'a, 'b> {
    report: &'a mut Report<'b>,
    /// The schema of the whole manifest.
    schema: &'static Value,
}

impl Walk<'_, '_> {
    /// Checks a value. Returns the part of it that has the right structure.
    fn value(&mut self, schema: &Value, value: &Value, field: &str) -> Value {
        match (schema["type"].as_str().unwrap_or_default(), value) {
            // Null counts as absent.
            ("", _) | (_, Value::Null) | ("string", Value::String(_)) => value.clone(),
            ("boolean", Value::Bool(_)) => value.clone(),
            ("integer", Value::Number(number)) if !number.is_f64() => value.clone(),
            ("object", Value::Object(map)) => self.object(schema, map, field),
            ("array", Value::Array(items)) => self.array(&schema["items"], items, field),
            (wanted, _) => {
                self.report.error(field, wrong_type(wanted, value));
                Value::Null
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], field: &str) -> Value {
        let mut good = Vec::with_capacity(items.len());
        for (position, item) in items.iter().enumerate() {
            let field = format!("{field}[{position}]");
            good.push(self.not_null(schema, item, &field));
        }
        good.into()
    }

    fn object(&mut self, schema: &Value, map: &Map<String, Value>, field: &str) -> Value {
        let mut good = Map::new();
        for (key, value) in map {
            let inner = join(field, key);
            match (
                schema["properties"].get(key),
                &schema["additionalProperties"],
            ) {
                (Some(schema), _) => {
                    good.insert(key.clone(), self.value(schema, value, &inner));
                }
                (None, Value::Null) => self.unknown(schema, key, &inner),
                (None, schema) => {
                    good.insert(key.clone(), self.not_null(schema, value, &inner));
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if good.get(name).is_none_or(Value::is_null) {
                let inner = join(field, name);
                self.report.error(&inner, "is missing; set it");
                good.insert(name.to_owned(), empty(&schema["properties"][name]));
            }
        }
        good.into()
    }

    /// Checks an item of a list or a map, which cannot be absent.
    fn not_null(&mut self, schema: &Value, value: &Value, field: &str) -> Value {
        if let Some(wanted) = schema["type"].as_str().filter(|_| value.is_null()) {
            self.report.error(field, wrong_type(wanted, value));
        }
        match self.value(schema, value, field) {
            Value::Null => empty(schema),
            good => good,
        }
    }

    fn unknown(&mut self, schema: &Value, key: &str, field: &str) {
        if self.report.object.origin.file.is_none() {
            return;
        }
        let known = names(schema);
        let elsewhere = || {
            let [top, spec] = [self.schema, spec_schema(self.report)];
            let is_in = |schema: &Value| schema["properties"].get(key).is_some();
            match (is_in(spec), is_in(top)) {
                (true, _) => Some(format!("spec.{key}")),
                (false, true) => Some(key.to_owned()),
                _ => None,
            }
        };
        let fix = match (nearest(key, known.iter().copied()), elsewhere()) {
            (None, Some(path)) => format!("did you mean {path}?"),
            _ => instead(key, &known),
        };
        self.report.error(field, format!("unknown field; {fix}"));
    }
}

fn spec_schema(report: &Report<'_>) -> &'static Value {
    match report.object.text(&["kind"]) {
        "Alert" => AlertSpec::schema(),
        "Provider" => ProviderSpec::schema(),
        GRANT_KIND => ProviderGrantSpec::schema(),
        _ => &Value::Null,
    }
}

fn names(schema: &Value) -> Vec<&str> {
    let properties = schema["properties"].as_object();
    properties
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect()
}

fn join(field: &str, key: &str) -> String {
    match field {
        "" => key.to_owned(),
        // The names contain dots.
        "metadata.annotations" => format!("{field}[{key}]"),
        _ => format!("{field}.{key}"),
    }
}

/// The value of a missing field, so that deserializing goes on.
fn empty(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string") => "".into(),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let names = required.filter_map(Value::as_str);
            names
                .map(|name| (name.to_owned(), empty(&schema["properties"][name])))
                .collect()
        }
        _ => Value::Null,
    }
}

/// Never shows the value, which may contain a secret.
fn wrong_type(wanted: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    match wanted {
        "string" if value.is_array() || value.is_object() => {
            format!("must be a string, not {found}")
        }
        "string" => format!("must be a string, not {found}; put it in quotes"),
        "boolean" => format!("must be true or false, not {found}"),
        "integer" => format!("must be a whole number, not {found}"),
        "array" => format!("must be a list, not {found}"),
        _ => format!("must be a map, not {found}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::check::check;
    use crate::document;
    use crate::kind::{Family, Kind, Kinds};
    use crate::object::Object;
    use crate::options::Options;
    use crate::problem::Problem;

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    /// The problems of a file.
    fn problems(text: &str) -> Vec<Problem> {
        let documents = document::read(&Arc::from("a.yaml"), text.as_bytes(), usize::MAX);
        let (checked, problems) = check(&documents.objects, KINDS, &Options::default());
        let of_objects = checked.into_iter().flat_map(|checked| checked.problems);
        documents
            .problems
            .into_iter()
            .chain(problems)
            .chain(of_objects)
            .collect()
    }

    /// The field, the line and the message of each problem.
    fn found(text: &str) -> Vec<(String, u64, String)> {
        problems(text)
            .into_iter()
            .map(|it| {
                (
                    it.field.unwrap_or_default(),
                    it.line.unwrap_or_default(),
                    it.message,
                )
            })
            .collect()
    }

    fn fields(text: &str) -> Vec<String> {
        found(text).into_iter().map(|(field, ..)| field).collect()
    }

    const ALERT: &str = "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: a, labels: {any: thing}, annotations: {any: thing}}
spec:
  providerRef: {name: p}
  eventSources: [{kind: Kustomization, name: '*'}]
";

    #[test]
    fn all_unknown_fields_of_an_object_are_reported_with_their_lines() {
        let text = "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata:
  name: a
  lables: {a: b}
channel: general
spec:
  eventSeverty: error
  cluster: prod
  providerRef:
    name: p
    zone: infra
  eventSources:
  - kind: Kustomization
    name: '*'
    eventSeverity: info
    matchlabels: {a: b}
  template:
    configMapKeyRef: {name: texts, key: k, optional: true}
";
        let expected = [
            ("metadata.lables", 5, "did you mean labels?"),
            ("channel", 6, "did you mean spec.channel?"),
            ("spec.eventSeverty", 8, "did you mean eventSeverity?"),
            ("spec.cluster", 9, "did you mean clusters?"),
            ("spec.providerRef.zone", 12, "use one of name, namespace"),
            (
                "spec.eventSources[0].eventSeverity",
                16,
                "did you mean spec.eventSeverity?",
            ),
            (
                "spec.eventSources[0].matchlabels",
                17,
                "did you mean matchLabels?",
            ),
            (
                "spec.template.configMapKeyRef.optional",
                19,
                "use one of name, key",
            ),
        ];
        let expected = expected
            .map(|(field, line, fix)| (field.to_owned(), line, format!("unknown field; {fix}")));
        assert_eq!(found(text), expected);
    }

    #[test]
    fn unknown_fields_of_every_kind_are_reported() {
        assert_eq!(found(ALERT), []);
        let provider = "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {name: p}
status: {any: thing}
spec:
  type: slack
  retry: {maxage: 1h}
  secretRef: {name: s, key: token}
  newInFlux: true
";
        assert_eq!(
            fields(provider),
            ["spec.retry.maxage", "spec.secretRef.key", "spec.newInFlux"]
        );
        let message = &found(provider)[2].2;
        assert!(
            message.contains("type") && message.contains("rateLimit"),
            "{message}"
        );
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringdata: {a: b}\n";
        assert_eq!(
            found(secret),
            [(
                "stringdata".into(),
                4,
                "unknown field; did you mean stringData?".into()
            )]
        );
        let config_map =
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nstringData: {a: b}\n";
        assert_eq!(fields(config_map), ["stringData"]);
    }

    #[test]
    fn an_unknown_field_of_a_cluster_is_ignored() {
        let documents = document::read(&Arc::from("a.yaml"), ALERT.as_bytes(), usize::MAX);
        let mut value = documents.objects[0].value.clone();
        value["spec"]["newInFlux"] = true.into();
        value["spec"]["eventSources"][0]["newInFlux"] = true.into();
        value["metadata"]["newInKubernetes"] = true.into();
        let (checked, _) = check(&[Object::new(value)], KINDS, &Options::default());
        assert_eq!(checked[0].problems, []);
        assert!(checked[0].resource.is_some());
    }

    #[test]
    fn wrong_types_and_missing_fields_are_reported_together_with_other_problems() {
        let text = "apiVersion: notification.toolkit.fluxcd.io/v7
kind: Alert
metadata: {name: a, labels: [a]}
spec:
  suspend: 'no'
  summary: 5
  eventSources:
  - {kind: Kustomization}
  - name: x
  - null
  inclusionList: a
  eventMetadata: {a: null, b: true}
  eventSeverity: fatal
  clusters: []
";
        assert_eq!(
            fields(text),
            [
                "metadata.labels",
                "apiVersion",
                "spec.suspend",
                "spec.summary",
                "spec.eventSources[0].name",
                "spec.eventSources[1].kind",
                "spec.eventSources[2]",
                "spec.inclusionList",
                "spec.eventMetadata.a",
                "spec.eventMetadata.b",
                "spec.providerRef",
                "spec.eventSeverity",
                "spec.clusters",
            ]
        );
    }

    #[test]
    fn unknown_kinds_and_versions_are_errors_and_other_groups_are_ignored() {
        for (head, field) in [
            (
                "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Alerts",
                "kind",
            ),
            (
                "apiVersion: notification.toolkit.fluxcd.io/v2\nkind: Provider",
                "apiVersion",
            ),
            (
                "apiVersion: notification.toolkit.fluxcd.io\nkind: Alert",
                "apiVersion",
            ),
            ("apiVersion: v1\nkind: secret", "kind"),
        ] {
            let text = format!("{head}\nmetadata: {{name: a}}\nspec: {{type: slack}}\n");
            let problems = problems(&text);
            let found: Vec<_> = problems.iter().map(|it| it.field.as_deref()).collect();
            assert_eq!(found, [Some(field)], "{head}");
            assert!(
                problems[0]
                    .object
                    .as_deref()
                    .is_some_and(|it| it.ends_with("default/a"))
            );
        }
        let other =
            "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nspec: {a: b}\n";
        assert_eq!(found(other), []);
        assert_eq!(found("apiVersion: example.org/v1\nkind: AllowList\n"), []);
        assert_eq!(found("apiVersion: v1\nkind: List\nitem: []\n").len(), 1);
    }

    #[test]
    fn merge_keys_and_anchors_are_no_unknown_fields() {
        let text = ALERT.replace("spec:\n", "spec:\n  <<: &defaults {eventSeverity: error}\n");
        assert_eq!(found(&text), []);
    }
}
