//! Discovers how the API server serves Alerts and Providers: the API version, and whether they have
//! a status.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::api::ListParams;
use kube::core::{ApiResource, GroupVersionKind, Request};
use kube::{Client, Error};
use serde_json::Value;

use crate::extensions::Extension;
use crate::object::{GRANT_GROUP, GRANT_KIND, GRANT_VERSION, GROUP};

/// The supported versions in order of preference. If one of them is served, all objects can be read
/// in it.
const VERSIONS: [&str; 4] = ["v1beta3", "v1", "v1beta2", "v1beta1"];

/// The plural of ProviderGrant.
const GRANTS: &str = "providergrants";

/// How the API server serves a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedKind {
    /// The kind, its version and its plural name.
    pub resource: ApiResource,
    /// Whether the kind has a status subresource. The CRDs of Flux have none.
    pub has_status: bool,
    /// The extension fields that the schema lacks; `None` if the schema cannot be read.
    pub lacks: Option<BTreeSet<&'static str>>,
}

/// How the API server serves Alerts and Providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedApi {
    /// How it serves Alerts.
    pub alerts: ServedKind,
    /// How it serves Providers.
    pub providers: ServedKind,
    /// How it serves ProviderGrants; `None` if the CRD is not installed.
    pub grants: Option<ServedKind>,
}

/// Discovery failed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The API server did not respond.
    #[error("discovery of {GROUP} failed: {0}")]
    Request(#[source] Error),
    /// A CRD is missing.
    #[error(
        "CRD not found: {0} of {GROUP} in a supported version ({versions}); install the CRDs of \
         Tidings or of Flux",
        versions = VERSIONS.join(", ")
    )]
    NotServed(&'static str),
}

impl ServedApi {
    /// How it serves Alerts, Providers or ProviderGrants.
    pub fn of(&self, kind: &str) -> &ServedKind {
        match (kind, &self.grants) {
            ("Alert", _) => &self.alerts,
            (GRANT_KIND, Some(grants)) => grants,
            _ => &self.providers,
        }
    }

    /// Whether the schemas of both kinds could be read.
    pub(super) fn has_schemas(&self) -> bool {
        self.alerts.lacks.is_some() && self.providers.lacks.is_some()
    }

    /// Discovers the served versions, and also the fields if `reads_schemas`. By default, every
    /// account has permission.
    ///
    /// # Errors
    /// The API server did not respond, or a CRD is missing.
    pub async fn discover(client: &Client, reads_schemas: bool) -> Result<Self, DiscoveryError> {
        let mut served_api = Self::discover_versions(client).await?;
        if reads_schemas {
            for served in [&mut served_api.alerts, &mut served_api.providers] {
                served.lacks = served.read_schema(client).await?;
            }
        }
        Ok(served_api)
    }

    async fn discover_versions(client: &Client) -> Result<Self, DiscoveryError> {
        let (mut alerts, mut providers) = (None, None);
        for version in VERSIONS {
            let list = match client
                .list_api_group_resources(&format!("{GROUP}/{version}"))
                .await
            {
                Ok(list) => list,
                Err(Error::Api(status)) if status.is_not_found() => continue,
                Err(error) => return Err(DiscoveryError::Request(error)),
            };
            alerts = alerts.or_else(|| ServedKind::find(&list, version, "Alert", "alerts"));
            providers =
                providers.or_else(|| ServedKind::find(&list, version, "Provider", "providers"));
            if alerts.is_some() && providers.is_some() {
                break;
            }
        }
        let alerts = alerts.ok_or(DiscoveryError::NotServed("Alert"))?;
        Ok(Self {
            alerts,
            providers: providers.ok_or(DiscoveryError::NotServed("Provider"))?,
            grants: Self::discover_grants(client).await?,
        })
    }

    /// The CRD of ProviderGrant is optional.
    async fn discover_grants(client: &Client) -> Result<Option<ServedKind>, DiscoveryError> {
        let api_version = format!("{GRANT_GROUP}/{GRANT_VERSION}");
        let list = match client.list_api_group_resources(&api_version).await {
            Ok(list) => list,
            // For an unknown group, the answer is no Status of Kubernetes.
            Err(Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(DiscoveryError::Request(error)),
        };
        let is_it = |resource: &APIResource| resource.name == GRANTS;
        let gvk = GroupVersionKind::gvk(GRANT_GROUP, GRANT_VERSION, GRANT_KIND);
        Ok(list.resources.iter().any(is_it).then(|| ServedKind {
            resource: ApiResource::from_gvk_with_plural(&gvk, GRANTS),
            has_status: false,
            lacks: None,
        }))
    }
}

impl ServedKind {
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
            lacks: None,
        })
    }

    /// The extension fields that the schema lacks; `None` if the API server does not publish it.
    async fn read_schema(
        &self,
        client: &Client,
    ) -> Result<Option<BTreeSet<&'static str>>, DiscoveryError> {
        let path = format!("/openapi/v3/apis/{}", self.resource.api_version);
        let request = Request::new(path).list(&ListParams::default());
        let request =
            request.map_err(|error| DiscoveryError::Request(Error::BuildRequest(error)))?;
        match client.request::<Value>(request).await {
            Ok(document) => Ok(self.lacking(&document)),
            Err(Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(None),
            Err(error) => Err(DiscoveryError::Request(error)),
        }
    }

    /// The extension fields that the schema in an OpenAPI document lacks.
    fn lacking(&self, document: &Value) -> Option<BTreeSet<&'static str>> {
        let ApiResource {
            group,
            version,
            kind,
            ..
        } = &self.resource;
        let is_it = |schema: &&Value| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.into_iter().flatten().any(|it| {
                it["group"] == **group && it["version"] == **version && it["kind"] == **kind
            })
        };
        let mut schemas = document["components"]["schemas"].as_object()?.values();
        let spec = &schemas.find(is_it)?["properties"]["spec"];
        let rows = Extension::of(kind).filter(|row| !has_field(spec, row.field));
        Some(rows.map(|row| row.field).collect())
    }
}

/// Whether an API server keeps the field at this path.
fn has_field(schema: &Value, path: &str) -> bool {
    let mut schema = schema;
    for key in path.split('.') {
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return true;
        }
        schema = &schema["properties"][key];
    }
    !schema.is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_has_a_status_if_the_server_lists_the_subresource() {
        let resource = |name: &str, kind: &str| {
            json!({
                "name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": [],
            })
        };
        let resources = [
            resource("alerts", "Alert"),
            resource("alerts/status", "Alert"),
            resource("providers", "Provider"),
        ];
        let version = format!("{GROUP}/v1beta2");
        let list = json!({"groupVersion": version, "resources": resources});
        let list: APIResourceList = serde_json::from_value(list).unwrap();
        let alerts = ServedKind::find(&list, "v1beta2", "Alert", "alerts").unwrap();
        assert_eq!(
            (alerts.resource.api_version.as_str(), alerts.has_status),
            (version.as_str(), true)
        );
        assert!(
            !ServedKind::find(&list, "v1beta2", "Provider", "providers")
                .unwrap()
                .has_status
        );
        assert_eq!(
            ServedKind::find(&list, "v1beta2", "Receiver", "receivers"),
            None
        );
    }
}
