//! Flux's guides, followed with kubectl: services receive messages, `kubectl get` shows status.

use serde_json::{Value, json};
use tidings_rig::{KubeApiServer, Process, Rig, Role, event, eventually};

use crate::TIDINGS;
use crate::services::Services;

const COMMIT: &str = "8ba2d1c0a4e4b1c2d3e4f5a6b7c8d9e0f1a2b3c4";

/// The manifests of the guide for v1beta1; the Secret is created by another command.
const V1BETA1: &str = "
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: Provider
metadata:
  name: slack
spec:
  type: slack
  channel: general
  secretRef:
    name: slack-url
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: Alert
metadata:
  name: on-call-webapp
spec:
  providerRef:
    name: slack
  eventSeverity: info
  eventSources:
    - kind: GitRepository
      name: '*'
    - kind: Kustomization
      name: '*'
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: Provider
metadata:
  name: errors
spec:
  type: slack
  channel: errors
  address: ADDRESS/services/errors
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: Alert
metadata:
  name: errors-only
spec:
  providerRef:
    name: errors
  eventSources:
    - kind: Kustomization
      name: webapp
";

/// The Providers of the guide for v1beta2.
const V1BETA2: &str = "
apiVersion: notification.toolkit.fluxcd.io/v1beta2
kind: Provider
metadata:
  name: slack
spec:
  type: slack
  channel: general
  address: ADDRESS/services/slack
---
apiVersion: notification.toolkit.fluxcd.io/v1beta2
kind: Provider
metadata:
  name: teams
spec:
  type: msteams
  secretRef:
    name: teams-url
---
apiVersion: notification.toolkit.fluxcd.io/v1beta2
kind: Provider
metadata:
  name: discord
spec:
  type: discord
  secretRef:
    name: discord-url
---
apiVersion: notification.toolkit.fluxcd.io/v1beta2
kind: Provider
metadata:
  name: generic
spec:
  type: generic
  address: ADDRESS/generic
---
apiVersion: notification.toolkit.fluxcd.io/v1beta2
kind: Provider
metadata:
  name: github-status
spec:
  type: github
  address: ADDRESS/org/webapp
  secretRef:
    name: github-token
";

/// An Alert of that guide for one of its Providers.
fn alert_v1beta2(provider: &str) -> String {
    format!(
        "---
apiVersion: notification.toolkit.fluxcd.io/v1beta2
kind: Alert
metadata:
  name: webapp-{provider}
spec:
  summary: production cluster
  providerRef:
    name: {provider}
  eventSeverity: info
  eventSources:
    - kind: Kustomization
      name: webapp
  exclusionList:
    - \"waiting.*socket\"
"
    )
}

/// A namespace with `tidings up`, and the services of a guide.
struct Guide {
    server: &'static KubeApiServer,
    namespace: String,
    services: Services,
    _rig: Rig,
    up: Process,
}

impl Guide {
    async fn start() -> Self {
        let server = KubeApiServer::shared().await;
        let namespace = server.namespace().await;
        let rig = Rig::start(TIDINGS).await;
        let role = Role::up()
            .in_cluster(&server.kubeconfig())
            .args(["--watch-namespace", &namespace]);
        let up = rig
            .run(role.env("TIDINGS_KUBERNETES__NAMESPACE", &namespace))
            .await;
        Self {
            server,
            namespace,
            services: Services::start().await,
            _rig: rig,
            up,
        }
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments: Vec<_> = ["--namespace", &self.namespace]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.server.kubectl(&arguments).await.expect_success()
    }

    /// `kubectl create secret generic`, as in the guides.
    async fn create_secret(&self, name: &str, key: &str, value: &str) {
        self.kubectl(&[
            "create",
            "secret",
            "generic",
            name,
            &format!("--from-literal={key}={value}"),
        ])
        .await;
    }

    async fn apply(&self, manifests: &str) {
        self.server
            .apply(
                &self.namespace,
                &manifests.replace("ADDRESS", &self.services.address),
            )
            .await;
    }

    /// Waits until `kubectl get` prints these rows, without the last column, the age.
    async fn shows(&self, what: &str, rows: &[&[&str]]) {
        eventually(
            &format!("`kubectl get {what}` prints {rows:?}"),
            async || {
                let printed = self.kubectl(&["get", what]).await;
                let lines = printed.lines().filter(|line| !line.is_empty());
                let printed: Vec<Vec<_>> = lines
                    .map(|line| line.split_whitespace().collect())
                    .collect();
                let without_age = printed.iter().map(|row| &row[..row.len() - 1]);
                without_age.eq(rows.iter().copied()).then_some(())
            },
        )
        .await;
    }

    /// Posts an event about the Kustomization `webapp`, as kustomize-controller does.
    async fn post(&self, severity: &str, message: &str) {
        let mut event = event(message);
        event["involvedObject"]["namespace"] = self.namespace.as_str().into();
        event["involvedObject"]["name"] = "webapp".into();
        event["severity"] = severity.into();
        event["metadata"] =
            json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{COMMIT}")});
        assert_eq!(
            self.up.post(&event).await.expect("ingest responds").status,
            202
        );
    }
}

/// Whether a body contains a text.
fn contains(body: &Value, text: &str) -> bool {
    body.to_string().contains(text)
}

#[tokio::test]
async fn the_guide_for_v1beta1_works() {
    let guide = Guide::start().await;
    let webhook = format!("{}/services/webhook", guide.services.address);
    guide.create_secret("slack-url", "url", &webhook).await;
    guide.apply(V1BETA1).await;
    let header = ["NAME", "READY", "STATUS"];
    guide
        .shows(
            "alerts",
            &[
                &header,
                &["errors-only", "True", "Initialized"],
                &["on-call-webapp", "True", "Initialized"],
            ],
        )
        .await;
    guide
        .shows(
            "providers",
            &[
                &header,
                &["errors", "True", "Initialized"],
                &["slack", "True", "Initialized"],
            ],
        )
        .await;

    guide.post("info", "the webapp is up to date").await;
    let request = guide.services.receives("/services/webhook").await;
    assert_eq!(request.body["channel"], "general");
    assert!(
        contains(&request.body, "the webapp is up to date")
            && contains(&request.body, "kustomization/webapp"),
        "{request:?}"
    );

    guide.post("error", "the webapp does not build").await;
    let request = guide.services.receives("/services/errors").await;
    assert!(
        contains(&request.body, "the webapp does not build"),
        "the default severity of v1beta1 is error: {request:?}"
    );
}

#[tokio::test]
async fn the_guide_for_v1beta2_works() {
    let guide = Guide::start().await;
    let address = |path: &str| format!("{}{path}", guide.services.address);
    guide
        .create_secret("teams-url", "address", &address("/teams/webhook"))
        .await;
    guide
        .create_secret("discord-url", "address", &address("/api/webhooks/1/token"))
        .await;
    guide
        .create_secret("github-token", "token", "ghp_test")
        .await;
    guide.apply(V1BETA2).await;
    let providers = ["discord", "generic", "github-status", "slack", "teams"];
    guide.apply(&providers.map(alert_v1beta2).concat()).await;
    let names = providers.map(|provider| (provider, format!("webapp-{provider}")));
    let header: &[&str] = &["NAME", "READY", "STATUS"];
    let alerts = names
        .each_ref()
        .map(|(_, alert)| [alert.as_str(), "True", "Initialized"]);
    let alerts: Vec<_> = [header]
        .into_iter()
        .chain(alerts.iter().map(|row| &row[..]))
        .collect();
    guide.shows("alerts", &alerts).await;
    let rows = providers.map(|provider| [provider, "True", "Initialized"]);
    let rows: Vec<_> = [header]
        .into_iter()
        .chain(rows.iter().map(|row| &row[..]))
        .collect();
    guide.shows("providers", &rows).await;

    guide.post("info", "waiting for the socket").await;
    guide.post("info", "Reconciliation finished").await;
    for path in [
        "/services/slack",
        "/teams/webhook",
        "/api/webhooks/1/token/slack",
        "/generic",
    ] {
        let request = guide.services.receives(path).await;
        assert!(
            contains(&request.body, "Reconciliation finished")
                && contains(&request.body, "production cluster"),
            "{request:?}"
        );
    }
    let status = guide
        .services
        .receives(&format!("/api/v3/repos/org/webapp/statuses/{COMMIT}"))
        .await;
    assert_eq!(
        (&status.body["state"], &status.body["description"]),
        (&"success".into(), &"reconciliation succeeded".into())
    );
    assert_eq!(status.headers["authorization"], "Bearer ghp_test");
    assert!(
        !guide
            .services
            .requests()
            .iter()
            .any(|request| contains(&request.body, "waiting")),
        "the exclusion list matches that message"
    );
}
