//! `status` of an Alert and a Provider, as it stands in the cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What Tidings makes of an Alert, and what came of it last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// Whether the Alert is in force (type `Ready`), or what is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The generation of the Alert that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The value of the last request for a reconciliation that was seen. Kept for Flux's tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// When an event matched last of which a delivery has been tried; written at most once a
    /// minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_match_time: Option<Time>,
    /// When a delivery was made last; written at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivery_time: Option<Time>,
    /// The last attempt that failed; written at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// What Tidings makes of a Provider, and what came of it last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// Whether the Provider can be used (type `Ready`), or what is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// The generation of the Provider that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The value of the last request for a reconciliation that was seen. Kept for Flux's tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// When a delivery was made last; written at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivery_time: Option<Time>,
    /// The last attempt that failed; written at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Whether deliveries to the service are held back because it failed again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitStatus>,
}

/// A failed attempt. Secrets are redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When it was made.
    pub time: Time,
    /// What went wrong, in a sentence.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// What went wrong, in a word: the reason of the attempt, as in metrics.
    pub reason: String,
}

/// The circuit of a Provider's service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitStatus {
    /// `closed`: deliveries are made. `open`: they wait. `half-open`: one of them is tried.
    /// `paused`: they wait for a person.
    pub state: CircuitState,
    /// When the next delivery is tried, while the circuit is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What opened it, in a sentence without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Whether deliveries are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CircuitState {
    /// They are made.
    Closed,
    /// They wait.
    Open,
    /// One of them is tried.
    HalfOpen,
    /// They wait until somebody resumes them.
    Paused,
}

/// The conditions of Kubernetes' API conventions, with the limits that they have there.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "description": "Which condition this is.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {"description": "Whether it holds.", "type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {
                    "description": "Why, in a word.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {"description": "Why, in a sentence.", "type": "string", "maxLength": 32768},
                "observedGeneration": {
                    "description": "The generation of the object that this is about.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {"description": "Since when the status is this.", "type": "string", "format": "date-time"},
            },
        },
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}
