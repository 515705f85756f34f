//! A console, the namespaces `own` and `foreign` with the same rules, and accounts with rights.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test too, but clippy.toml allows it in test functions only"
)]

use std::fs;
use std::path::Path;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tidings_rig::{
    KubeApiServer, Manifest, PATIENCE, Process, Receiver, Reply, Rig, Role, event, eventually,
    free_port, provider,
};
use tidings_rules::testing;
use tokio::time::timeout;

use super::Case;
use crate::TIDINGS;

const RBAC: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/deploy/components/console-kubernetes/rbac.yaml"
);
const GROUP: &str = "notification.toolkit.fluxcd.io";
/// The accounts in `own`, what they may do there, and whether in all namespaces.
const ACCOUNTS: [(&str, &[&str], &[&str], bool); 4] = [
    ("reader", &["get"], &["alerts", "providers"], false),
    (
        "operator",
        &["get", "update"],
        &["alerts", "providers"],
        false,
    ),
    ("half", &["get", "update"], &["alerts"], false),
    ("admin", &["get", "update"], &["alerts", "providers"], true),
];

pub struct Bed {
    pub server: &'static KubeApiServer,
    rig: Rig,
    pub up: Process,
    console: String,
    client: Client,
    pub own: String,
    pub foreign: String,
    /// The id of the event about an object of each namespace.
    pub own_event: String,
    pub foreign_event: String,
    /// The sequence of the dead letter that names each namespace only.
    pub own_dead: u64,
    pub foreign_dead: u64,
    _receivers: [Receiver; 2],
}

impl Bed {
    pub async fn start() -> Self {
        let server = KubeApiServer::shared().await;
        let base = server.namespace().await;
        let (own, foreign) = (format!("{base}-own"), format!("{base}-foreign"));
        for name in [&own, &foreign] {
            let created = server.kubectl(&["create", "namespace", name]).await;
            created.expect_success();
        }
        for account in ACCOUNTS {
            permit(server, &own, account).await;
        }
        let rig = Rig::start(TIDINGS).await;
        let (wrong, slow) = (Receiver::start().await, Receiver::start().await);
        wrong.answer_with(Reply::Status(404));
        slow.answer_with(Reply::Status(503));
        for (part, namespace) in [("own", &own), ("foreign", &foreign)] {
            rig.rules()
                .put(rules(part, namespace, wrong.url(), slow.url()));
        }
        let cross = json!([{"kind": "Kustomization", "name": "*", "namespace": own}]);
        let cross = testing::alert("cross-foreign", "hook-foreign").with("eventSources", cross);
        let pasted = json!([{"kind": "Kustomization", "name": "*", "namespace": "apps"}]);
        let pasted = testing::alert("apps-foreign", "hook-foreign").with("eventSources", pasted);
        let lost = testing::alert("lost-foreign", "nobody-foreign").with("suspend", true);
        rig.rules()
            .put([cross, pasted, lost].map(|alert| alert.in_namespace(&foreign)));
        let console = format!("127.0.0.1:{}", free_port());
        let reviewer = reviewer(server, &base).await;
        let role = Role::up()
            .args(["--kubeconfig", &reviewer, "--console", &console])
            .env("TIDINGS_INGEST__LABELS", "false")
            .env("TIDINGS_CONSOLE__KUBERNETES__ENABLED", "true");
        let up = rig.run(role).await;
        // The foreign event first: whoever has seen the own one in a stream has passed it.
        for (part, namespace) in [("foreign", &foreign), ("own", &own)] {
            let mut event = event(&format!("{part} happened"));
            event["involvedObject"]["namespace"] = namespace.as_str().into();
            event["involvedObject"]["name"] = format!("app-{part}").into();
            let commit = "main@sha1:abcdef0123456789abcdef0123456789abcdef01";
            event["metadata"] = json!({ "kustomize.toolkit.fluxcd.io/revision": commit });
            assert_eq!(up.post(&event).await.unwrap().status, 202);
        }
        let mut bed = Self {
            server,
            rig,
            up,
            console,
            client: Client::builder().no_proxy().build().unwrap(),
            own,
            foreign,
            own_event: String::new(),
            foreign_event: String::new(),
            own_dead: 0,
            foreign_dead: 0,
            _receivers: [wrong, slow],
        };
        bed.find_dead_letters().await;
        bed
    }

    /// Waits for the dead letters, and for the deliveries that are parked.
    async fn find_dead_letters(&mut self) {
        let admin = self.token("admin").await;
        let dead_letters = eventually("three dead letters, two parked deliveries", async || {
            let parked = self.json(&admin, "/api/deliveries").await;
            let dead = self.json(&admin, "/api/dead").await;
            let is_parked = parked["deliveries"].as_array()?.len() == 2;
            (dead["stored"] == 3 && is_parked).then(|| dead["deadLetters"].clone())
        });
        let dead_letters = dead_letters.await;
        let of_alert = |alert: &str| {
            let mut dead_letters = dead_letters.as_array().unwrap().iter();
            let is_of =
                |dead_letter: &&Value| dead_letter["alert"].as_str().unwrap().ends_with(alert);
            let dead_letter = dead_letters.find(is_of).unwrap();
            let id = dead_letter["eventId"].as_str().unwrap().to_owned();
            (id, dead_letter["sequence"].as_u64().unwrap())
        };
        (self.own_event, self.own_dead) = of_alert("/all-own");
        (self.foreign_event, self.foreign_dead) = of_alert("/all-foreign");
        // What was last seen of the rules comes from the stream of outcomes.
        eventually("the last errors are shown", async || {
            let answer = self.json(&admin, "/api/providers").await;
            let mut providers = answer["providers"].as_array()?.iter();
            let all = providers.all(|provider| provider["seen"]["lastError"].is_object());
            all.then_some(())
        })
        .await;
    }

    /// A token of an account, for the console.
    pub async fn token(&self, account: &str) -> String {
        self.server
            .token_of(&self.own, account, &["tidings-console"])
            .await
    }

    fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.console);
        self.client.request(method, url).bearer_auth(token)
    }

    /// Status and text of the answer. Of a stream: the text until the own event.
    pub async fn answer(&self, token: &str, case: &Case) -> (u16, String) {
        let mut request = self.request(case.method.clone(), &case.path, token);
        if case.method == Method::POST {
            request = request.json(&case.body);
        }
        let is_stream = case.route == "/api/events";
        if is_stream {
            request = request.header("last-event-id", "0-0");
        }
        let mut answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let mut text = String::new();
        while !(is_stream && text.contains("own happened")) {
            let chunk = timeout(PATIENCE, answer.chunk()).await.unwrap().unwrap();
            let Some(chunk) = chunk else { break };
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        (status, text)
    }

    /// The answer to a request for a live stream.
    pub async fn stream(&self, token: &str) -> Response {
        let request = self.request(Method::GET, "/api/events", token);
        request.send().await.unwrap()
    }

    pub async fn json(&self, token: &str, path: &str) -> Value {
        let answer = self.request(Method::GET, path, token).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn act(&self, token: &str, path: &str, body: &Value) -> Response {
        let request = self.request(Method::POST, path, token).json(body);
        request.send().await.unwrap()
    }

    /// The answer to an action that is done.
    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Value {
        let answer = self.act(token, path, body).await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{path} {body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Status and code of the answer to an action that is refused.
    pub async fn error(&self, token: &str, path: &str, body: &Value) -> (u16, String) {
        let answer = self.act(token, path, body).await;
        let status = answer.status().as_u16();
        let answer: Value = answer.json().await.unwrap();
        (status, answer["code"].as_str().unwrap().to_owned())
    }

    pub fn leave(&self) {
        self.rig.leaves_deliveries(2, "a receiver answers 503");
    }
}

/// An Alert whose deliveries die, and one whose deliveries are parked.
fn rules(part: &str, namespace: &str, wrong: &str, slow: &str) -> [Manifest; 4] {
    let name = |rule: &str| format!("{rule}-{part}");
    [
        provider(&name("hook"), wrong),
        provider(&name("slow"), slow).with("retry", json!({"min": "1h", "max": "1h"})),
        testing::alert(&name("all"), &name("hook")),
        testing::alert(&name("wait"), &name("slow")),
    ]
    .map(|rule| rule.in_namespace(namespace))
}

/// A service account, and a role that is bound to it.
async fn permit(
    server: &KubeApiServer,
    namespace: &str,
    (name, verbs, resources, in_all): (&str, &[&str], &[&str], bool),
) {
    let (prefix, role_name) = match in_all {
        true => ("Cluster", format!("{namespace}-{name}")),
        false => ("", name.to_owned()),
    };
    let rbac = "rbac.authorization.k8s.io";
    let role = format!("{prefix}Role");
    let rules = json!([{"apiGroups": [GROUP], "resources": resources, "verbs": verbs}]);
    let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let items = json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {
            "apiVersion": format!("{rbac}/v1"),
            "kind": role,
            "metadata": {"name": role_name},
            "rules": rules,
        },
        {
            "apiVersion": format!("{rbac}/v1"),
            "kind": format!("{role}Binding"),
            "metadata": {"name": role_name},
            "roleRef": {"apiGroup": rbac, "kind": role, "name": role_name},
            "subjects": [subject],
        },
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    server.apply(namespace, &list.to_string()).await;
}

/// The kubeconfig of an account that may do only what the component permits.
async fn reviewer(server: &KubeApiServer, namespace: &str) -> String {
    let kubeconfig = server.kubeconfig_for(namespace, "tidings-router").await;
    let manifests = fs::read_to_string(Path::new(RBAC)).unwrap();
    let (role, binding) = manifests.split_once("---").unwrap();
    server.apply(namespace, role).await;
    // As Kustomize does; the binding of each test has its own name.
    let binding = binding.replacen("tidings-console-review", namespace, 1);
    let binding = format!("{}\n    namespace: {namespace}\n", binding.trim_end());
    server.apply(namespace, &binding).await;
    kubeconfig.display().to_string()
}
