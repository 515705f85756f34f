//! Generates the CustomResourceDefinitions of Alert, Provider and ProviderGrant from the types.
//!
//! All versions have the same properties. If a version lacked a property, a patch through it would
//! silently remove the value that another version has set. The versions differ only in defaults
//! and deprecation.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::kind::{Family, Kind, Kinds};
use crate::object::{GRANT_GROUP, GRANT_KIND, GRANT_VERSION, GROUP};
use crate::resource::{AlertSpec, ProviderGrantSpec, ProviderSpec, Version};
use crate::status_fields::{AlertStatus, ProviderStatus};

/// The version that the API server stores.
const STORED: Version = Version::V1beta3;

/// The CustomResourceDefinitions of Alert, Provider and ProviderGrant, in this order.
pub fn crds(kinds: Kinds) -> [Value; 3] {
    let about_alerts = "Alert selects events and sends them to a Provider.";
    let about_providers = "Provider is a destination of events, such as a Slack channel.";
    let alert = |version| {
        schema(
            "Alert",
            about_alerts,
            alert_spec(version),
            status::<AlertStatus>(version),
        )
    };
    let provider = |version| {
        schema(
            "Provider",
            about_providers,
            provider_spec(kinds),
            status::<ProviderStatus>(version),
        )
    };
    [
        definition("Alert", alert),
        definition("Provider", provider),
        grant_definition(),
    ]
}

fn grant_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("providergrants.{GRANT_GROUP}")},
        "spec": {
            "group": GRANT_GROUP,
            "names": {
                "kind": GRANT_KIND,
                "listKind": format!("{GRANT_KIND}List"),
                "plural": "providergrants",
                "singular": "providergrant",
            },
            "scope": "Namespaced",
            "versions": [{
                "name": GRANT_VERSION,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {
                    "description": "ProviderGrant shares Providers of its namespace with Alerts of \
                                    other namespaces.",
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {
                            "description": "API group and version of the object: \
                                            tidings.dev/v1alpha1.",
                            "type": "string",
                        },
                        "kind": {
                            "description": "Kind of the object: ProviderGrant.",
                            "type": "string",
                        },
                        "metadata": {"type": "object"},
                        "spec": structural::<ProviderGrantSpec>(),
                    },
                }},
                "additionalPrinterColumns": [
                    {"name": "From", "type": "string", "jsonPath": ".spec.from[*].namespace"},
                    {"name": "Providers", "type": "string", "jsonPath": ".spec.providers"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }],
        },
    })
}

fn definition(kind: &str, schema: impl Fn(Version) -> Value) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let versions: Vec<_> = Version::ALL
        .into_iter()
        .map(|version| served(kind, version, schema(version)))
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            // Stops Flux from replacing `${…}` in the descriptions with variables.
            "annotations": {"kustomize.toolkit.fluxcd.io/substitute": "disabled"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": singular,
                "categories": ["all", "fluxcd", "fluxcd-notifications"],
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

fn served(kind: &str, version: Version, schema: Value) -> Value {
    let name = version.name();
    let mut served = json!({"name": name, "served": true, "storage": version == STORED});
    if version != STORED {
        served["deprecated"] = true.into();
        served["deprecationWarning"] =
            format!("{name} {kind} is deprecated, use {}", STORED.name()).into();
    }
    served["schema"] = json!({"openAPIV3Schema": schema});
    served["subresources"] = json!({"status": {}});
    let ready = |field: &str| format!(".status.conditions[?(@.type==\"Ready\")].{field}");
    served["additionalPrinterColumns"] = json!([
        {"name": "Ready", "type": "string", "jsonPath": ready("status")},
        {"name": "Status", "type": "string", "jsonPath": ready("message")},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    served
}

fn schema(kind: &str, about: &str, spec: Value, status: Value) -> Value {
    let api_version = format!("API group and version of the object, such as {GROUP}/v1beta3.");
    json!({
        "description": about,
        "type": "object",
        "properties": {
            "apiVersion": {"description": api_version, "type": "string"},
            "kind": {"description": format!("Kind of the object: {kind}."), "type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    })
}

fn alert_spec(version: Version) -> Value {
    let mut spec = structural::<AlertSpec>();
    spec["properties"]["eventSeverity"]["default"] = version.default_severity().into();
    spec
}

fn provider_spec(kinds: Kinds) -> Value {
    let mut spec = structural::<ProviderSpec>();
    let names = |wanted: fn(&Kind) -> bool| -> Vec<_> {
        kinds
            .iter()
            .filter(|kind| wanted(kind))
            .map(|kind| kind.name)
            .collect()
    };
    spec["properties"]["type"]["enum"] = names(|_| true).into();
    let only = |field: &str, what: &str, types: &[&str]| {
        json!({
            "rule": format!("!has(self.{field}) || self.type in ['{}']", types.join("', '")),
            "message": format!("{field} requires a type {what}: {}", types.join(", ")),
        })
    };
    let forges = names(|kind| kind.family == Family::CommitStatus);
    let only_forges = |field: &str| only(field, "that writes commit statuses", &forges);
    let writers = names(|kind| kind.family.writes_states());
    let with_event = names(|kind| kind.fields.contains(&"clusterField"));
    let cluster_field = json!({
        "rule": format!(
            "!has(self.clusterField) || !self.clusterField || self.type in ['{}']",
            with_event.join("', '")
        ),
        "message": format!(
            "clusterField requires a type that sends the event as JSON: {}",
            with_event.join(", ")
        ),
    });
    let with_api = names(|kind| kind.fields.contains(&"apiAddress"));
    let one_id = json!({
        "rule": "!has(self.commitStatus) || !has(self.commitStatus.id) || \
                 self.commitStatus.id == 'default' || !has(self.commitStatusExpr) || \
                 self.commitStatusExpr.matches('^\\\\s*$')",
        "message": "commitStatus.id must be default if commitStatusExpr is set",
    });
    spec["x-kubernetes-validations"] = json!([
        only_forges("commitStatusExpr"),
        only_forges("commitStatus"),
        only(
            "reasonStates",
            "that writes commit statuses or incidents",
            &writers
        ),
        cluster_field,
        only("apiAddress", "with the API of a Git forge", &with_api),
        one_id
    ]);
    spec
}

/// The schema of `status`. In old versions `observedGeneration` defaults to -1, because tools that
/// wait for such an object read it before the first status is written.
fn status<T: JsonSchema>(version: Version) -> Value {
    let mut status = structural::<T>();
    if version != STORED {
        status["default"] = json!({"observedGeneration": -1});
    }
    status
}

/// The structural schema of a type, as an API server requires it: without references and without
/// `null`, which an API server treats as absent.
pub(crate) fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(simplify).transform(&mut schema);
    schema.remove("title");
    schema.to_value()
}

/// Rewrites what schemars generates for optional values, enums and comments of several lines.
fn simplify(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.retain(|key, value| !(key == "default" && value.is_null()));
    if let Some(Value::String(description)) = object.shift_remove("description") {
        object.shift_insert(
            0,
            "description".to_owned(),
            description.replace('\n', " ").into(),
        );
    }
    if let Some(Value::Array(types)) = object.get("type") {
        let some = types.iter().find(|name| *name != "null").cloned();
        object.insert("type".to_owned(), some.unwrap_or_default());
    }
    if let Some(Value::Array(choices)) = object.shift_remove("anyOf") {
        for inner in choices
            .into_iter()
            .filter(|choice| *choice != json!({"type": "null"}))
        {
            adopt(object, inner);
        }
    }
    if let Some(Value::Array(variants)) = object.shift_remove("oneOf") {
        let words: Vec<_> = variants
            .into_iter()
            .map(|variant| variant["const"].clone())
            .collect();
        object.insert("type".to_owned(), "string".into());
        object.insert("enum".to_owned(), words.into());
    }
}

/// Adds the properties of the type of a field. The properties of the field itself take precedence.
fn adopt(object: &mut Map<String, Value>, inner: Value) {
    let Value::Object(inner) = inner else { return };
    for (key, value) in inner {
        object.entry(key).or_insert(value);
    }
}
