//! Alert and Provider as users write them: one form that holds what every API version and our extensions know.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::object::Object;
use crate::problem::{Problem, Severity};

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
    /// Reads the version of an `apiVersion`.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.rsplit_once('/')?.1 {
            "v1beta1" => Some(Self::V1beta1),
            "v1beta2" => Some(Self::V1beta2),
            "v1beta3" | "v1" => Some(Self::V1beta3),
            _ => None,
        }
    }
}

/// `spec` of an Alert.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertSpec {
    /// The Provider, in the Alert's namespace.
    pub provider_ref: Reference,
    /// A threshold (a text) or, as an extension, an exact set (a list).
    pub event_severity: Option<Value>,
    /// The objects whose events are meant.
    pub event_sources: Vec<SourceSpec>,
    /// Patterns of which one must be found in the message.
    pub inclusion_list: Option<Vec<String>>,
    /// Patterns of which none may be found in the message.
    pub exclusion_list: Option<Vec<String>>,
    /// Metadata that every event gets.
    pub event_metadata: Option<BTreeMap<String, String>>,
    /// Shown with every event.
    pub summary: Option<String>,
    /// Nothing is planned for a suspended Alert.
    pub suspend: Option<bool>,
    /// Extension: takes the place of the Provider's channel.
    pub channel: Option<String>,
    /// Extension: the clusters whose events are meant, as globs.
    pub clusters: Option<Vec<String>>,
    /// Extension: the text that is sent.
    pub template: Option<TemplateSpec>,
}

/// One entry of `eventSources`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// The exact kind.
    pub kind: String,
    /// The exact name, or `*`.
    pub name: String,
    /// The exact namespace; the Alert's where there is none.
    pub namespace: Option<String>,
    /// Labels that the object must have.
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// `spec` of a Provider.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// One of the known types.
    #[serde(rename = "type")]
    pub kind: String,
    /// Was how often the object is looked at; unused.
    pub interval: Option<String>,
    /// Where to send to within the service.
    pub channel: Option<String>,
    /// Who is shown as the sender.
    pub username: Option<String>,
    /// The address of the service.
    pub address: Option<String>,
    /// Of one attempt.
    pub timeout: Option<String>,
    /// An HTTP proxy.
    pub proxy: Option<String>,
    /// A Secret with a proxy's address and credentials.
    pub proxy_secret_ref: Option<Reference>,
    /// The Secret with address, token and so on.
    pub secret_ref: Option<Reference>,
    /// The Secret with certificates.
    pub cert_secret_ref: Option<Reference>,
    /// For workload identity, which is not supported.
    pub service_account_name: Option<String>,
    /// Nothing is planned for a suspended Provider.
    pub suspend: Option<bool>,
    /// A CEL expression for the commit status id.
    pub commit_status_expr: Option<String>,
    /// Extension: at most so many deliveries in such a time, as `10/1s`.
    pub rate_limit: Option<String>,
    /// Extension: at most so many deliveries at a time.
    pub max_in_flight: Option<i64>,
    /// Extension: the bounds of retries.
    pub retry: Option<RetrySpec>,
    /// Extension: the pool of workers.
    pub pool: Option<String>,
    /// Extension: the text that is sent.
    pub template: Option<TemplateSpec>,
    /// Extension: whether messages get links to the commit and to a dashboard.
    pub links: Option<bool>,
    /// Extension: what commit statuses say beside their state.
    pub commit_status: Option<CommitStatusSpec>,
}

/// `commitStatus` of a Provider for commit statuses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatusSpec {
    /// `default`, as in Flux, or `qualified`: with cluster and namespace.
    pub id: Option<String>,
    /// Whether progress is told as pending.
    pub pending: Option<bool>,
    /// A pattern for the address that a status links to.
    #[serde(rename = "targetURL")]
    pub target_url: Option<String>,
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
}

/// `retry` of a Provider.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// The age after which a delivery is given up.
    pub max_age: Option<String>,
    /// The upper bound of the first wait.
    pub min: Option<String>,
    /// The upper bound of every wait.
    pub max: Option<String>,
}

/// `template` of an Alert or a Provider: exactly one of the two.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    /// The text itself.
    pub inline: Option<String>,
    /// A key of a ConfigMap in the same namespace.
    pub config_map_key_ref: Option<KeyReference>,
}

/// A key of an object in the same namespace.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KeyReference {
    /// The object's name.
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
        Self { object, problems: Vec::new() }
    }

    /// Refuses the object.
    pub fn error(&mut self, field: &str, sentence: impl Into<String>) {
        self.problems.push(self.object.problem(Severity::Error, field, sentence));
    }

    /// Leaves the object in force.
    pub fn warn(&mut self, field: &str, sentence: impl Into<String>) {
        self.problems.push(self.object.problem(Severity::Warning, field, sentence));
    }

    /// The first reason why the object is refused.
    pub fn refusal(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.severity == Severity::Error)
    }

    /// Refuses a text that is longer than so many characters.
    pub fn at_most(&mut self, field: &str, text: Option<&str>, characters: usize) {
        let length = text.map_or(0, |text| text.chars().count());
        if length > characters {
            self.error(field, format!("has {length} characters; at most {characters} are allowed"));
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
                let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
                self.error(&field, without_value(&error.inner().to_string()));
                None
            }
        }
    }
}

/// serde quotes the value that it did not expect; it may be an address with a secret in it.
fn without_value(message: &str) -> String {
    match (message.find(" \""), message.rfind("\", expected ")) {
        (Some(begin), Some(end)) if begin < end => format!("{}{}", &message[..begin], &message[end + 1..]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_told_by_its_field_and_not_shown() {
        let object = Object::new(json!({"kind": "Provider", "spec": {"type": "slack", "secretRef": "s3cret \", expected b"}}));
        let mut report = Report::new(&object);
        assert!(report.spec::<ProviderSpec>().is_none());
        let problem = &report.problems[0];
        assert_eq!(problem.field.as_deref(), Some("spec.secretRef"));
        assert_eq!(problem.sentence, "invalid type: string, expected struct Reference");
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let object = Object::new(json!({"spec": {"providerRef": {"name": "p"}, "eventSources": [], "eventSeverity": null}}));
        assert!(Report::new(&object).spec::<AlertSpec>().unwrap().event_severity.is_none());
    }
}
