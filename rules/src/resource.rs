//! Alert and Provider as users write them: one form that holds what every API version and our
//! extensions know.

mod schema;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::object::Object;
use crate::problem::{Problem, Severity};
use schema::{DURATION, LONGER_THAN_NOTHING, event_severity};

/// The versions of the API that are read. `v1` is read like `v1beta3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Its guides take `error` as the severity of an Alert that names none.
    V1beta1,
    /// Took over `inclusionList`, `eventMetadata` and more types.
    V1beta2,
    /// The present one.
    V1beta3,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V1beta1, Self::V1beta2, Self::V1beta3];

    /// Reads the version of an `apiVersion`.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.rsplit_once('/')?.1 {
            "v1" => Some(Self::V1beta3),
            name => Self::ALL.into_iter().find(|version| version.name() == name),
        }
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1beta1 => "v1beta1",
            Self::V1beta2 => "v1beta2",
            Self::V1beta3 => "v1beta3",
        }
    }

    /// What an Alert without `eventSeverity` means.
    pub fn default_severity(self) -> &'static str {
        match self {
            Self::V1beta1 => "error",
            Self::V1beta2 | Self::V1beta3 => "info",
        }
    }
}

/// Which events go to which Provider, and what is added to them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertSpec {
    /// The Provider that the events are sent to, in the namespace of the Alert.
    pub provider_ref: Reference,
    /// Which severities are meant: a word is a threshold (info takes all, warn takes warn and
    /// error, error takes error), a list is an exact set. Where nothing is said: error in
    /// v1beta1, info in later versions.
    #[serde(default)]
    #[schemars(schema_with = "event_severity")]
    pub event_severity: Option<Value>,
    /// The objects whose events are meant. An event must come from one of them.
    pub event_sources: Vec<SourceSpec>,
    /// Regular expressions (RE2). If there are any, one of them must be found in the message of
    /// the event.
    pub inclusion_list: Option<Vec<String>>,
    /// Regular expressions (RE2). None of them may be found in the message of the event.
    pub exclusion_list: Option<Vec<String>>,
    /// Metadata that every event gets, such as the name of the cluster or of the region.
    pub event_metadata: Option<BTreeMap<String, String>>,
    /// Shown with every event. Deprecated: write `summary` into eventMetadata.
    #[schemars(length(max = 255))]
    pub summary: Option<String>,
    /// Whether nothing is sent for this Alert until further notice.
    pub suspend: Option<bool>,
    /// Takes the place of the Provider's channel. An extension of Tidings.
    #[schemars(length(max = 2048))]
    pub channel: Option<String>,
    /// The clusters whose events are meant, as names in which `*` stands for anything; every
    /// cluster where this is left out. An extension of Tidings.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub clusters: Option<Vec<String>>,
    /// The text that is sent, in place of that of the Provider. An extension of Tidings.
    pub template: Option<TemplateSpec>,
}

/// Objects whose events are meant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// The API version of the objects. Not compared.
    pub api_version: Option<String>,
    /// The kind of the objects, such as Kustomization. Any kind can be named.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// The name of the object, or `*` for every one.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The namespace of the objects; that of the Alert where this is left out.
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// Labels that the object must have, all of them.
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// Where events are sent to, and how.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// Which service this is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Has no effect. Deprecated.
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub interval: Option<String>,
    /// Where to send to within the service: a channel, a room, a routing key, as the type has it.
    #[schemars(length(max = 2048))]
    pub channel: Option<String>,
    /// Who is shown as the sender.
    #[schemars(length(max = 2048))]
    pub username: Option<String>,
    /// The address of the service, unless the Secret has it. An address that holds a token belongs
    /// into the Secret.
    #[schemars(length(max = 2048))]
    pub address: Option<String>,
    /// How long one attempt may take; 15s where this is left out.
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$"))]
    pub timeout: Option<String>,
    /// The address of an HTTP proxy. Deprecated: use proxySecretRef.
    #[schemars(length(max = 2048), regex(pattern = "^(http|https)://.*$"))]
    pub proxy: Option<String>,
    /// The Secret with address, and perhaps username and password, of an HTTP proxy, in the
    /// namespace of the Provider.
    pub proxy_secret_ref: Option<Reference>,
    /// The Secret with address, token, username, password, headers, as the type needs them, in the
    /// namespace of the Provider.
    pub secret_ref: Option<Reference>,
    /// The Secret with certificates (ca.crt, tls.crt, tls.key), in the namespace of the Provider.
    pub cert_secret_ref: Option<Reference>,
    /// The service account for workload identity, which is not supported: a Provider that names
    /// one is refused.
    pub service_account_name: Option<String>,
    /// Whether nothing is sent to this Provider until further notice. What is planned waits.
    pub suspend: Option<bool>,
    /// A CEL expression for the id of a commit status, over `event`, `alert` and `provider`. For
    /// types that write commit statuses only.
    pub commit_status_expr: Option<String>,
    /// At most so many deliveries in such a time, as in 10/1s. An extension of Tidings.
    #[schemars(
        regex(pattern = r"^0*[1-9][0-9]*/([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"),
        extend("x-kubernetes-validations" = [{"rule": "self.matches('/.*[1-9]')", "message": "must be in a time longer than nothing"}])
    )]
    pub rate_limit: Option<String>,
    /// At most so many deliveries at a time. An extension of Tidings.
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: Option<i64>,
    /// How long, and how often, a delivery that fails is tried again. An extension of Tidings.
    pub retry: Option<RetrySpec>,
    /// The pool of workers that makes the deliveries; `default` where this is left out. An
    /// extension of Tidings.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,63}$"))]
    pub pool: Option<String>,
    /// The text that is sent. An extension of Tidings.
    pub template: Option<TemplateSpec>,
    /// Whether messages get links to the commit and to a dashboard; as the settings say where this
    /// is left out. An extension of Tidings.
    pub links: Option<bool>,
    /// What commit statuses say beside their state. For types that write commit statuses only. An
    /// extension of Tidings.
    pub commit_status: Option<CommitStatusSpec>,
}

/// What commit statuses say beside their state.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatusSpec {
    /// The id of a status where commitStatusExpr makes none: default (kind and name, as in Flux)
    /// or qualified (cluster and namespace before them).
    #[schemars(extend("enum" = ["default", "qualified"]))]
    pub id: Option<String>,
    /// Whether progress is told as pending, also by types that skip it otherwise.
    pub pending: Option<bool>,
    /// A pattern for the address that a status links to, as in https://HOST/{{ cluster }}/{{ name }}; that of the settings
    /// where this is left out.
    #[schemars(length(max = 2048))]
    #[serde(rename = "targetURL")]
    pub target_url: Option<String>,
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Reference {
    /// The name of the object.
    pub name: String,
}

/// The bounds of retries.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.min) || !has(self.max) || duration(self.min) <= duration(self.max)", "message": "min must not be longer than max"}
]))]
pub struct RetrySpec {
    /// The age after which a delivery is given up and becomes a dead letter; 24h where this is
    /// left out.
    #[schemars(extend("pattern" = DURATION, "x-kubernetes-validations" = [LONGER_THAN_NOTHING]))]
    pub max_age: Option<String>,
    /// The upper bound of the first wait; 2s where this is left out.
    #[schemars(extend("pattern" = DURATION, "x-kubernetes-validations" = [LONGER_THAN_NOTHING]))]
    pub min: Option<String>,
    /// The upper bound of every wait; 10m where this is left out.
    #[schemars(extend("pattern" = DURATION, "x-kubernetes-validations" = [LONGER_THAN_NOTHING]))]
    pub max: Option<String>,
}

/// A text of the user's own: exactly one of the two.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.inline) != has(self.configMapKeyRef)", "message": "must hold either inline or configMapKeyRef"}
]))]
pub struct TemplateSpec {
    /// The text itself.
    pub inline: Option<String>,
    /// Where the text stands: a key of a ConfigMap in the same namespace.
    pub config_map_key_ref: Option<KeyReference>,
}

/// A key of an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct KeyReference {
    /// The name of the object.
    pub name: String,
    /// The key.
    pub key: String,
}

/// What is found out about one object while it is checked.
#[derive(Debug)]
pub struct Report<'a> {
    /// The object.
    pub object: &'a Object,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// Begins with nothing wrong.
    pub fn new(object: &'a Object) -> Self {
        Self {
            object,
            problems: Vec::new(),
        }
    }

    /// Refuses the object.
    pub fn error(&mut self, field: &str, sentence: impl Into<String>) {
        self.problems
            .push(self.object.problem(Severity::Error, field, sentence));
    }

    /// Leaves the object in force.
    pub fn warn(&mut self, field: &str, sentence: impl Into<String>) {
        self.problems
            .push(self.object.problem(Severity::Warning, field, sentence));
    }

    /// The first reason why the object is refused.
    pub fn refusal(&self) -> Option<&Problem> {
        self.problems
            .iter()
            .find(|problem| problem.severity == Severity::Error)
    }

    /// Refuses a text that is longer than so many characters.
    pub fn at_most(&mut self, field: &str, text: Option<&str>, characters: usize) {
        let length = text.map_or(0, |text| text.chars().count());
        if length > characters {
            self.error(
                field,
                format!("has {length} characters; at most {characters} are allowed"),
            );
        }
    }

    /// The object's `spec`, or nothing where it can't be read; an Alert may have none.
    pub fn spec<T: DeserializeOwned + Default>(&mut self) -> Option<T> {
        let spec = &self.object.value["spec"];
        if spec.is_null() {
            return Some(T::default());
        }
        match serde_path_to_error::deserialize(spec) {
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

/// serde quotes the value that it did not expect; it may be an address with a secret in it.
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

    #[test]
    fn a_value_of_the_wrong_type_is_told_by_its_field_and_not_shown() {
        let object = Object::new(
            json!({"kind": "Provider", "spec": {"type": "slack", "secretRef": "s3cret \", expected b"}}),
        );
        let mut report = Report::new(&object);
        assert!(report.spec::<ProviderSpec>().is_none());
        let problem = &report.problems[0];
        assert_eq!(problem.field.as_deref(), Some("spec.secretRef"));
        assert_eq!(
            problem.sentence,
            "invalid type: string, expected struct Reference"
        );
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let object = Object::new(
            json!({"spec": {"providerRef": {"name": "p"}, "eventSources": [], "eventSeverity": null}}),
        );
        assert!(
            Report::new(&object)
                .spec::<AlertSpec>()
                .unwrap()
                .event_severity
                .is_none()
        );
    }
}
