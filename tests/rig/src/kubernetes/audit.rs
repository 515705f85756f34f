//! The requests of service accounts, from the audit log of an API server.

use std::fs;

use serde_json::{Value, json};

use super::{KubeApiServer, new_folder};

const LOG: &str = "audit.log";

/// A request for a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditedRequest {
    /// The service account, as `namespace:name`.
    pub account: String,
    /// get, list, watch, create, update, patch, delete …
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource: `alerts/status`.
    pub resource: String,
    /// The object's name, if the request has one.
    pub name: String,
    /// Whether RBAC allowed it.
    pub is_allowed: bool,
}

impl KubeApiServer {
    /// Starts a server that audits the requests of service accounts.
    pub async fn start_audited() -> Self {
        let accounts = json!({
            "level": "Metadata",
            "userGroups": ["system:serviceaccounts"],
            "omitStages": ["RequestReceived"],
        });
        let rules = json!([accounts, {"level": "None"}]);
        let folder = new_folder();
        let policy = folder.path().join("audit-policy.json");
        let text =
            json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}).to_string();
        fs::write(&policy, text).expect("the rig's folder is writable");
        let flags = [
            ("audit-policy-file", policy),
            ("audit-log-path", folder.path().join(LOG)),
        ];
        let flags = flags.map(|(flag, path)| format!("--{flag}={}", path.display()));
        Self::start_in(folder, flags.into()).await
    }

    /// All requests of service accounts for resources, to a server from
    /// [`KubeApiServer::start_audited`].
    pub fn audited_requests(&self) -> Vec<AuditedRequest> {
        let log =
            fs::read_to_string(self.files.path(LOG)).expect("the server writes its audit log");
        // The last line may be incomplete.
        let entries = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter_map(|entry| audited(&entry)).collect()
    }
}

/// `None` for discovery and other requests without a resource.
fn audited(entry: &Value) -> Option<AuditedRequest> {
    let object = entry.get("objectRef")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = match object["subresource"].as_str() {
        Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
        None => text(&object["resource"]),
    };
    Some(AuditedRequest {
        account: entry["user"]["username"]
            .as_str()?
            .strip_prefix("system:serviceaccount:")?
            .to_owned(),
        verb: text(&entry["verb"]),
        group: text(&object["apiGroup"]),
        resource,
        name: text(&object["name"]),
        is_allowed: entry["annotations"]["authorization.k8s.io/decision"] == "allow",
    })
}
