//! What an API server knows of Alert and Provider: the version to read, and whether they have a
//! status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error};

use crate::object::GROUP;

/// The versions that are read, the preferred one first. Where one of them is served, every object
/// can be read in it.
const VERSIONS: [&str; 4] = ["v1beta3", "v1", "v1beta2", "v1beta1"];

/// How a kind is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The kind, its version and its name in paths.
    pub resource: ApiResource,
    /// Whether there is a status that can be written; Flux's own CRDs have none.
    pub has_status: bool,
}

/// What can be done with rules on this API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How Alerts are served.
    pub alerts: Served,
    /// How Providers are served.
    pub providers: Served,
}

/// It is not known how rules are served.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The API server does not answer.
    #[error("the API server can't be asked which versions of {GROUP} it serves: {0}")]
    Asking(#[source] Error),
    /// A CRD is missing.
    #[error(
        "the API server knows no {0} of {GROUP} in a version that is read ({versions}): install the CRDs of Tidings or of Flux",
        versions = VERSIONS.join(", ")
    )]
    NotServed(&'static str),
}

impl Capabilities {
    /// How a kind is served, Alert or Provider.
    pub fn of(&self, kind: &str) -> &Served {
        if kind == "Alert" {
            &self.alerts
        } else {
            &self.providers
        }
    }

    /// Asks the API server. Every account may.
    ///
    /// # Errors
    /// It does not answer, or a CRD is missing.
    pub async fn discover(client: &Client) -> Result<Self, DiscoverError> {
        let (mut alerts, mut providers) = (None, None);
        for version in VERSIONS {
            let list = match client
                .list_api_group_resources(&format!("{GROUP}/{version}"))
                .await
            {
                Ok(list) => list,
                Err(Error::Api(status)) if status.is_not_found() => continue,
                Err(error) => return Err(DiscoverError::Asking(error)),
            };
            alerts = alerts.or_else(|| Served::find(&list, version, "Alert", "alerts"));
            providers = providers.or_else(|| Served::find(&list, version, "Provider", "providers"));
            if alerts.is_some() && providers.is_some() {
                break;
            }
        }
        let alerts = alerts.ok_or(DiscoverError::NotServed("Alert"))?;
        Ok(Self {
            alerts,
            providers: providers.ok_or(DiscoverError::NotServed("Provider"))?,
        })
    }
}

impl Served {
    fn find(list: &APIResourceList, version: &str, kind: &str, plural: &str) -> Option<Self> {
        let has = |name: &str| {
            list.resources
                .iter()
                .any(|resource| resource.name == name && resource.kind == kind)
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, kind), plural);
        has(plural).then(|| Self {
            resource,
            has_status: has(&format!("{plural}/status")),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_has_a_status_where_the_server_lists_one() {
        let resource = |name: &str, kind: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": []});
        let resources = [
            resource("alerts", "Alert"),
            resource("alerts/status", "Alert"),
            resource("providers", "Provider"),
        ];
        let list = json!({"groupVersion": "notification.toolkit.fluxcd.io/v1beta2", "resources": resources});
        let list: APIResourceList = serde_json::from_value(list).unwrap();
        let alerts = Served::find(&list, "v1beta2", "Alert", "alerts").unwrap();
        assert_eq!(
            (alerts.resource.api_version.as_str(), alerts.has_status),
            ("notification.toolkit.fluxcd.io/v1beta2", true)
        );
        assert!(
            !Served::find(&list, "v1beta2", "Provider", "providers")
                .unwrap()
                .has_status
        );
        assert_eq!(
            Served::find(&list, "v1beta2", "Receiver", "receivers"),
            None
        );
    }
}
