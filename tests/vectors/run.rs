//! Runs `tidings test`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::TIDINGS;
use crate::case::Input;

/// The time limit of a run.
const LIMIT: Duration = Duration::from_secs(60);

/// The result of a run.
pub struct Run {
    /// The exit status.
    pub status: i32,
    /// The JSON on standard output, or the error.
    pub output: Result<Output, String>,
    stderr: String,
}

/// The JSON on standard output.
#[derive(Debug, Default, Deserialize)]
pub struct Output {
    pub alerts: Vec<Verdict>,
    pub deliveries: Vec<Delivery>,
}

#[derive(Debug, Deserialize)]
pub struct Verdict {
    pub alert: String,
    pub verdict: String,
}

#[derive(Debug, Deserialize)]
pub struct Delivery {
    pub alert: String,
    pub outcome: String,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub requests: Vec<PlannedRequest>,
    #[serde(default)]
    pub detail: String,
}

#[derive(Debug, Deserialize)]
pub struct PlannedRequest {
    pub method: String,
    pub url: String,
    #[serde(default)]
    pub body: Value,
}

impl Run {
    /// Runs the executable with these arguments and environment variables.
    pub async fn new(input: &Input, arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("vectors-")
            .tempdir()
            .expect("the temporary folder is writable");
        let rules = folder.path().join("rules");
        let event = folder.path().join("event.json");
        std::fs::create_dir(&rules).expect("the folder is new");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": input.rules});
        std::fs::write(rules.join("rules.json"), list.to_string()).expect("the folder is writable");
        let text = input
            .event_text
            .clone()
            .unwrap_or_else(|| input.event.to_string());
        std::fs::write(&event, text).expect("the folder is writable");

        let mut command = Command::new(TIDINGS);
        command
            .args(["test", "--output", "json", "--rules"])
            .arg(rules)
            .arg("--event")
            .arg(event)
            .args(arguments);
        if let Some(labels) = &input.labels {
            command.args(["--labels", labels]);
        }
        if input.no_cross_namespace_refs {
            command.arg("--no-cross-namespace-refs");
        }
        for name in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
        ] {
            command.env_remove(name);
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(LIMIT, command.output()).await {
            Err(_) => Self::without_output(format!("the executable did not end within {LIMIT:?}")),
            Ok(Err(error)) => Self::without_output(format!("cannot run the executable: {error}")),
            Ok(Ok(done)) => Self {
                status: done.status.code().unwrap_or(-1),
                output: serde_json::from_slice(&done.stdout).map_err(|error| {
                    format!(
                        "standard output is not the expected JSON: {error} ({})",
                        done.status
                    )
                }),
                stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            },
        }
    }

    fn without_output(problem: String) -> Self {
        Self {
            status: -1,
            output: Err(problem),
            stderr: String::new(),
        }
    }

    /// Details for the report of a case that differs.
    pub fn details(&self) -> Vec<String> {
        let errors = self
            .stderr
            .lines()
            .take(5)
            .map(|line| format!("stderr: {line}"));
        let deliveries = self
            .output
            .iter()
            .flat_map(|output| &output.deliveries)
            .filter(|delivery| !delivery.detail.is_empty());
        errors
            .chain(deliveries.map(|delivery| {
                format!(
                    "{}: {}: {}",
                    delivery.alert, delivery.outcome, delivery.detail
                )
            }))
            .collect()
    }
}
