//! The specs of Alert and Provider: one type for all API versions and for the Tidings extensions.

mod schema;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use schema::{DURATION, GREATER_THAN_ZERO, event_severity, reason_states};

/// The supported versions of the API. `v1` is treated as `v1beta3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Deprecated. The severity of an Alert defaults to `error`.
    V1beta1,
    /// Deprecated. Adds `inclusionList`, `eventMetadata` and more Provider types.
    V1beta2,
    /// The version that the API server stores.
    V1beta3,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 3] = [Self::V1beta1, Self::V1beta2, Self::V1beta3];

    /// Parses the version of an `apiVersion`, such as `v1beta3` of `group/v1beta3`.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.rsplit_once('/')?.1 {
            "v1" => Some(Self::V1beta3),
            name => Self::ALL.into_iter().find(|version| version.name() == name),
        }
    }

    /// The version as written in `apiVersion`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1beta1 => "v1beta1",
            Self::V1beta2 => "v1beta2",
            Self::V1beta3 => "v1beta3",
        }
    }

    /// The severity of an Alert without `eventSeverity`.
    pub fn default_severity(self) -> &'static str {
        match self {
            Self::V1beta1 => "error",
            Self::V1beta2 | Self::V1beta3 => "info",
        }
    }
}

/// AlertSpec defines which events are sent to which Provider.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertSpec {
    /// Provider that the events are sent to.
    pub provider_ref: ProviderReferenceSpec,
    /// Severities to send. A string is the minimum severity: info (all events), warn or error. A
    /// list is an exact set, such as [info, error]. Defaults to error in v1beta1 and to info in
    /// later versions.
    #[serde(default)]
    #[schemars(schema_with = "event_severity")]
    pub event_severity: Option<Value>,
    /// Objects to send events of. An event must match at least one of the entries.
    pub event_sources: Vec<SourceSpec>,
    /// Regular expressions (RE2 syntax). If set, an event is sent only if its message matches at
    /// least one of them. If empty, all events match.
    pub inclusion_list: Option<Vec<String>>,
    /// Regular expressions (RE2 syntax). An event is not sent if its message matches one of them.
    pub exclusion_list: Option<Vec<String>>,
    /// Metadata to add to every event, such as the name of the cluster or the region.
    pub event_metadata: Option<BTreeMap<String, String>>,
    /// Summary to add to every event. Deprecated: set the key `summary` of eventMetadata instead.
    /// Maximum length: 255 characters.
    #[schemars(length(max = 255))]
    pub summary: Option<String>,
    /// If true, no events are sent for this Alert. Defaults to false.
    pub suspend: Option<bool>,
    /// Channel to send to. Defaults to the channel of the Provider.
    /// A Tidings extension.
    #[schemars(length(max = 2048))]
    pub channel: Option<String>,
    /// Names of the clusters to send events of. `*` matches any number of characters. Defaults to
    /// all clusters. A Tidings extension.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub clusters: Option<Vec<String>>,
    /// Selects clusters by the labels that the hub gives them with `tidings fleet`. If `clusters`
    /// is set too, both must match. A cluster that the hub does not know has no labels. Defaults to
    /// all clusters. A Tidings extension.
    pub cluster_selector: Option<ClusterSelectorSpec>,
    /// Template of the message. Defaults to the template of the Provider. A Tidings extension.
    pub template: Option<TemplateSpec>,
}

/// ClusterSelectorSpec selects clusters by their labels. All requirements must match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSelectorSpec {
    /// Labels that the cluster must have.
    #[schemars(extend("maxProperties" = 100))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Requirements on the labels of the cluster.
    #[schemars(length(max = 100))]
    pub match_expressions: Option<Vec<RequirementSpec>>,
}

/// RequirementSpec is a requirement on one label.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "message": "values are required for In and NotIn, and must be empty for other operators",
    }
]))]
pub struct RequirementSpec {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Relation of the label to the values: In, NotIn, Exists or DoesNotExist. NotIn also matches a
    /// cluster without the label.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// Values for In and NotIn.
    #[schemars(length(max = 100), inner(length(max = 63)))]
    pub values: Option<Vec<String>>,
}

/// SourceSpec selects objects by kind, name, namespace and labels.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// API version of the objects. Ignored.
    pub api_version: Option<String>,
    /// Kind of the objects, such as Kustomization. Any kind is allowed.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Name of the object, or `*` for all objects of the kind.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the objects. Defaults to the namespace of the Alert.
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// Labels that the object must have. All of them must match. Defaults to no labels.
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// ProviderSpec defines a destination of events.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// Type of the service.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ignored. Deprecated.
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub interval: Option<String>,
    /// Destination within the service, such as a channel, a room or a routing key. The meaning
    /// depends on the type.
    #[schemars(length(max = 2048))]
    pub channel: Option<String>,
    /// Name to show as the sender of the messages.
    #[schemars(length(max = 2048))]
    pub username: Option<String>,
    /// Address of the service. The key `address` of the Secret takes precedence. Store an address
    /// that contains a token in the Secret.
    #[schemars(length(max = 2048))]
    pub address: Option<String>,
    /// Address of the API of a Git forge, such as `https://example.com/gitlab` or
    /// `https://example.com/gitlab/api/v4`, if it does not follow from the address. Its path is not
    /// part of the name of the repository. A Tidings extension.
    #[schemars(
        length(max = 2048),
        regex(pattern = r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?$")
    )]
    pub api_address: Option<String>,
    /// Timeout of one delivery attempt in ms, s or m, such as 15s. Defaults to 15s.
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$"))]
    pub timeout: Option<String>,
    /// Address of an HTTP proxy. Deprecated: use proxySecretRef instead.
    #[schemars(length(max = 2048), regex(pattern = "^(http|https)://.*$"))]
    pub proxy: Option<String>,
    /// Secret with the address of a proxy and, optionally, a username and a password. Must be in
    /// the namespace of the Provider.
    pub proxy_secret_ref: Option<Reference>,
    /// Secret with the address, token, username, password or headers. The required keys depend on
    /// the type. Must be in the namespace of the Provider.
    pub secret_ref: Option<Reference>,
    /// Secret with TLS certificates (keys ca.crt, tls.crt and tls.key). Must be in the namespace of
    /// the Provider.
    pub cert_secret_ref: Option<Reference>,
    /// Service account for workload identity. Not supported: a Provider that sets it is rejected.
    pub service_account_name: Option<String>,
    /// Whether to stop deliveries to this Provider. Pending deliveries wait until it is resumed.
    /// Defaults to false.
    pub suspend: Option<bool>,
    /// CEL expression that returns the ID of the commit status. The variables are `event`, `alert`
    /// and `provider`. Only for types that write commit statuses.
    pub commit_status_expr: Option<String>,
    /// Maximum number of deliveries per period, such as 10/1s. Defaults to the limit of the type. A
    /// Tidings extension.
    #[schemars(
        regex(pattern = r"^0*[1-9][0-9]*/([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('/.*[1-9]')",
            "message": "the period must be greater than 0, such as 10/1s",
        }])
    )]
    pub rate_limit: Option<String>,
    /// Maximum number of concurrent deliveries of all workers together, from 1 to 1000. Without it,
    /// each worker makes 64 at a time, and up to 256 if the service answers within a second. A
    /// Tidings extension.
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: Option<i64>,
    /// Retries of failed deliveries. A Tidings extension.
    pub retry: Option<RetrySpec>,
    /// Worker pool that makes the deliveries. Defaults to `default`. A Tidings extension.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,63}$"))]
    pub pool: Option<String>,
    /// Template of the message, for Alerts without a template. Defaults to the standard message of
    /// the type. A Tidings extension.
    pub template: Option<TemplateSpec>,
    /// Whether to add links to the commit and to a dashboard. Defaults to the setting of the
    /// worker. A Tidings extension.
    pub links: Option<bool>,
    /// Whether a service that answers a delivery with a redirect (301, 302 or 303) has accepted it.
    /// The redirect is not followed. Set it only if this is how the service confirms; a login page
    /// redirects in the same way. Defaults to false. A Tidings extension.
    pub accept_redirects: Option<bool>,
    /// Whether the JSON of the event also names the cluster, as `metadata.cluster`, unless it is
    /// `default`. Without it, a header or an attribute names the cluster. Only for types that send
    /// the event as JSON. Defaults to false. A Tidings extension.
    pub cluster_field: Option<bool>,
    /// Options of commit statuses. Only for types that write commit statuses. A Tidings extension.
    pub commit_status: Option<CommitStatusSpec>,
    /// States that reasons of severity info stand for: success, failure, pending or none, such as
    /// `Deployed: success`. They precede the table of reasons. Only for types that write commit
    /// statuses or incidents. A Tidings extension.
    #[serde(default)]
    #[schemars(schema_with = "reason_states")]
    pub reason_states: Option<BTreeMap<String, String>>,
}

/// CommitStatusSpec defines the options of commit statuses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatusSpec {
    /// Format of the status ID if commitStatusExpr is not set: `default` (kind and name, as in
    /// Flux) or `qualified` (cluster, namespace, kind and name). Defaults to `default`.
    #[schemars(extend("enum" = ["default", "qualified"]))]
    pub id: Option<String>,
    /// Whether to report progress as a pending status for types that skip it by default. Defaults
    /// to false.
    pub pending: Option<bool>,
    /// Template of the link of the status, such as `https://example.com/{{ cluster }}/{{ name }}`.
    /// Defaults to the setting of the worker.
    #[schemars(length(max = 2048))]
    #[serde(rename = "targetURL")]
    pub target_url: Option<String>,
}

/// Reference names an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Reference {
    /// Name of the object.
    pub name: String,
}

/// ProviderReferenceSpec names a Provider.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct ProviderReferenceSpec {
    /// Name of the object.
    pub name: String,
    /// Namespace of the Provider. Another namespace than that of the Alert needs a ProviderGrant
    /// there. Defaults to the namespace of the Alert. A Tidings extension.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// ProviderGrantSpec shares Providers of the namespace with Alerts of other namespaces.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct ProviderGrantSpec {
    /// Namespaces whose Alerts may reference the Providers.
    #[schemars(length(min = 1, max = 100))]
    pub from: Vec<GrantFromSpec>,
    /// Names of the Providers. Defaults to all Providers of the namespace.
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub providers: Option<Vec<String>>,
}

/// GrantFromSpec names a namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct GrantFromSpec {
    /// Name of the namespace.
    #[schemars(length(max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
}

/// RetrySpec defines the limits of retries.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.min) || !has(self.max) || duration(self.min) <= duration(self.max)",
        "message": "min must be less than or equal to max",
    }
]))]
pub struct RetrySpec {
    /// Maximum age of a delivery, such as 24h. An older delivery becomes a dead letter. Defaults to
    /// 24h.
    #[schemars(extend("pattern" = DURATION, "x-kubernetes-validations" = [GREATER_THAN_ZERO]))]
    pub max_age: Option<String>,
    /// Upper bound of the first wait, such as 2s. Doubles with each attempt up to max.
    /// Defaults to 2s.
    #[schemars(extend("pattern" = DURATION, "x-kubernetes-validations" = [GREATER_THAN_ZERO]))]
    pub min: Option<String>,
    /// Maximum wait between two attempts, such as 10m, unless the service asks for a longer wait.
    /// Defaults to 10m.
    #[schemars(extend("pattern" = DURATION, "x-kubernetes-validations" = [GREATER_THAN_ZERO]))]
    pub max: Option<String>,
}

/// TemplateSpec defines a message template. Exactly one of the fields must be set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.inline) != has(self.configMapKeyRef)",
        "message": "exactly one of inline and configMapKeyRef must be set",
    }
]))]
pub struct TemplateSpec {
    /// Text of the template.
    pub inline: Option<String>,
    /// Key of a ConfigMap that contains the template. Must be in the same namespace.
    pub config_map_key_ref: Option<KeyReference>,
}

/// KeyReference names a key of an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct KeyReference {
    /// Name of the object.
    pub name: String,
    /// Key in the data of the object.
    pub key: String,
}
