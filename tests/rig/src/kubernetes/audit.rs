//! What service accounts asked of an API server, as its audit log has it.

use std::fs;

use serde_json::{Value, json};

use super::{KubeApiServer, new_folder};

const LOG: &str = "audit.log";

/// A request about a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The service account, as `namespace:name`.
    pub account: String,
    /// get, list, watch, create, update, patch, delete …
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource: `alerts/status`.
    pub resource: String,
    /// The object, where one is named.
    pub name: String,
    /// Whether its roles allow that.
    pub is_allowed: bool,
}

impl KubeApiServer {
    /// Starts one that notes what service accounts ask.
    pub async fn start_audited() -> Self {
        let everything = json!({"level": "Metadata", "userGroups": ["system:serviceaccounts"], "omitStages": ["RequestReceived"]});
        let rules = json!([everything, {"level": "None"}]);
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

    /// Every request about a resource that a service account has made of a server that was started
    /// so.
    pub fn asked(&self) -> Vec<Asked> {
        let log =
            fs::read_to_string(self.files.path(LOG)).expect("the server notes what it is asked");
        // The last line may be half written.
        let entries = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter_map(|entry| asked(&entry)).collect()
    }
}

/// Discovery and the like are about no resource.
fn asked(entry: &Value) -> Option<Asked> {
    let object = entry.get("objectRef")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = match object["subresource"].as_str() {
        Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
        None => text(&object["resource"]),
    };
    Some(Asked {
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
