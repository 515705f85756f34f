//! Three API servers, and a NATS server with the files of `tidings fleet`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_nats::{Client, ConnectOptions, jetstream};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidings_core::model::access::Access;
use tidings_core::{DeadLetter, Message};
use tidings_rig::{Cable, KubeApiServer, NAMESPACE, Process, Rig, Role, eventually};
use tokio::process::Command;

use crate::TIDINGS;
use crate::object::objects;

/// The members of the fleet.
pub const MEMBERS: [&str; 2] = ["eu", "us"];
/// The namespace of the service accounts in `deploy/`, and of the Leases.
const ACCOUNTS: &str = "tidings";

/// A cluster: an API server with the CRDs, the RBAC rules of `deploy/`, and the namespace of
/// [`tidings_rig::event`].
pub struct Cluster {
    pub server: KubeApiServer,
}

impl Cluster {
    async fn start() -> Self {
        let server = KubeApiServer::start().await;
        server.install_crds().await;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let deploy = deploy.display().to_string();
        let apply = ["apply", "--server-side", "--kustomize", &deploy];
        server.kubectl(&apply).await.expect_success();
        let create = ["create", "namespace", NAMESPACE];
        server.kubectl(&create).await.expect_success();
        Self { server }
    }

    /// `kubectl apply` in the namespace of events.
    pub async fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.server.apply(NAMESPACE, &list.to_string()).await;
    }

    /// The kubeconfig of a service account, as `docs/fleet.md` writes it.
    pub async fn kubeconfig(&self, account: &str) -> PathBuf {
        let file = self.server.kubeconfig_for(ACCOUNTS, account).await;
        let text = std::fs::read_to_string(&file).expect("the rig wrote the file");
        let mut kubeconfig: Value = serde_json::from_str(&text).expect("the rig writes JSON");
        kubeconfig["contexts"][0]["context"]["namespace"] = ACCOUNTS.into();
        let user = &mut kubeconfig["users"][0]["user"];
        let token = user["token"].as_str().unwrap_or_default().to_owned();
        let token_file = file.with_extension("token");
        std::fs::write(&token_file, token).expect("the rig's folder is writable");
        // A relative path begins at the folder of the kubeconfig.
        let token_file = token_file.file_name().expect("it is a file");
        *user = json!({"tokenFile": token_file.to_string_lossy()});
        std::fs::write(&file, kubeconfig.to_string()).expect("the rig's folder is writable");
        file
    }

    /// Waits until the status of an object has a field, and returns the status.
    pub async fn status_with(&self, kind: &str, name: &str, field: &str) -> Value {
        let client = self.server.client().await;
        let api = objects(&client, NAMESPACE, "v1beta3", kind);
        let what = format!("{kind} {name} in {} has {field}", self.server.url());
        eventually(&what, async || {
            let object = json!(api.get(name).await.ok()?);
            let status = object["status"].clone();
            (!status[field].is_null()).then_some(status)
        })
        .await
    }

    /// The Kubernetes Events about dead letters.
    pub async fn dead_letter_events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.server.client().await, NAMESPACE);
        let list = api.list(&ListParams::default()).await;
        let mut events = list.expect("the API server responds").items;
        events.retain(|event| event.reason.as_deref() == Some("NotificationDispatchFailed"));
        events
    }
}

/// Only one test at a time runs three API servers.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A hub and two members.
pub struct Fleet {
    pub rig: Rig,
    pub hub: Cluster,
    pub eu: Cluster,
    pub us: Cluster,
    dir: PathBuf,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Fleet {
    pub async fn start() -> Self {
        let turn = TURN.lock().await;
        let (hub, eu, us) = tokio::join!(Cluster::start(), Cluster::start(), Cluster::start());
        let rig = Rig::start_configured(TIDINGS, async |folder, port| {
            let dir = folder.join("fleet");
            let listen = format!("127.0.0.1:{port}");
            fleet(&["init", text(&dir), "--listen", &listen]).await;
            dir.join("nats.conf")
        })
        .await;
        let dir = rig.folder().join("fleet");
        let started = Self {
            rig,
            hub,
            eu,
            us,
            dir,
            _turn: turn,
        };
        for name in MEMBERS {
            started.run(&["add", name]).await;
        }
        started
    }

    /// Runs `tidings fleet` with these arguments.
    pub async fn run(&self, arguments: &[&str]) {
        let (action, rest) = arguments.split_first().expect("an action is given");
        fleet(&[&[action, "--dir", text(&self.dir)], rest].concat()).await;
    }

    /// Runs a router and a worker with the rules of all clusters and of the rig's folder.
    pub async fn roles(&self) -> [Process; 2] {
        self.rig.run_all(self.configured_roles().await).await
    }

    /// The roles that [`Fleet::roles`] runs. Needs all API servers.
    pub async fn configured_roles(&self) -> [Role; 2] {
        let router = self.role(Role::router(), "router").await;
        [router, self.role(Role::worker(), "worker").await]
    }

    async fn role(&self, role: Role, name: &str) -> Role {
        let account = format!("tidings-{name}");
        let mut role = role
            .in_cluster(&self.hub.kubeconfig(&account).await)
            .env("TIDINGS_KUBERNETES__NAMESPACE", ACCOUNTS)
            .args(["--rules", text(self.rig.rules().folder())]);
        for (member, cluster) in MEMBERS.iter().zip([&self.eu, &self.us]) {
            let file = cluster.kubeconfig(&account).await;
            let source = format!("cluster={member}:{}", file.display());
            role = role.args(["--rules", &source]);
        }
        self.with_credentials(role, name)
    }

    /// Runs an ingest for each member.
    pub async fn members(&self) -> [Process; 2] {
        self.rig
            .run_all(MEMBERS.map(|name| self.member(name)))
            .await
    }

    /// The ingest of a member.
    pub fn member(&self, name: &str) -> Role {
        let role = Role::ingest().args(["--cluster", name]);
        self.with_credentials(role, name)
    }

    /// The edge of a member, which reaches the hub over a cable.
    pub fn edge(&self, name: &str, cable: &Cable) -> Role {
        let data = self.rig.folder().join(format!("edge-{name}"));
        let role = Role::edge(&cable.url(), &data).args(["--cluster", name]);
        self.with_credentials(role, name)
    }

    fn with_credentials(&self, role: Role, name: &str) -> Role {
        role.env("TIDINGS_NATS__CREDENTIALS", text(&self.credentials(name)))
    }

    fn credentials(&self, name: &str) -> PathBuf {
        self.dir.join(format!("creds/{name}.creds"))
    }

    /// What `tidings test` says about an event of a member, with the rules of all sources.
    pub async fn explain(&self, cluster: &str, event: &Value) -> Value {
        let file = self.rig.folder().join("event.json");
        std::fs::write(&file, event.to_string()).expect("the rig's folder is writable");
        let (hub, folder) = (self.hub.server.kubeconfig(), self.rig.rules().folder());
        let members = MEMBERS.iter().zip([&self.eu, &self.us]);
        let members = members.map(|(name, cluster)| {
            let file = cluster.server.kubeconfig();
            format!("cluster={name}:{}", file.display())
        });
        let mut command = Command::new(TIDINGS);
        command
            .args(["test", "--output", "json", "--cluster", cluster])
            .args(["--event", text(&file), "--kubeconfig", text(&hub)])
            .args(["--rules", "cluster", "--rules", text(folder)]);
        for member in members {
            command.args(["--rules", &member]);
        }
        let output = command.output().await;
        let output = output.expect("the executable can be started");
        assert!(
            output.status.code().is_some_and(|code| code < 2),
            "{output:?}"
        );
        serde_json::from_slice(&output.stdout).expect("the output is JSON")
    }

    /// Runs a tool with the credentials of an operator.
    pub async fn tool(&self, arguments: &[&str]) {
        let mut command = Command::new(TIDINGS);
        let command = command
            .args(arguments)
            .args(["--nats", self.rig.url()])
            .env(
                "TIDINGS_NATS__CREDENTIALS",
                text(&self.credentials("tools")),
            );
        let output = command.output().await;
        let output = output.expect("the executable can be started");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Waits until all events are routed and no delivery is left.
    pub async fn drained(&self) {
        let (client, _) = self.client("tools").await;
        let jetstream = jetstream::new(client);
        eventually("all events are routed and delivered", async || {
            let events = jetstream.get_stream("EVENTS").await.ok()?;
            let router = events.consumer_info("router").await.ok()?;
            let is_routed = router.num_pending == 0 && router.num_ack_pending == 0;
            let mut deliveries = jetstream.get_stream("DELIVERIES").await.ok()?;
            let left = deliveries.info().await.ok()?.state.messages;
            (is_routed && left == 0).then_some(())
        })
        .await;
    }

    /// Waits until the hub has stored this many events.
    pub async fn has_stored(&self, count: usize) {
        let (client, _) = self.client("tools").await;
        let jetstream = jetstream::new(client);
        eventually("the hub has stored all events", async || {
            let mut events = jetstream.get_stream("EVENTS").await.ok()?;
            let stored = events.info().await.ok()?.state.messages;
            (stored >= count as u64).then_some(())
        })
        .await;
    }

    /// The messages of the events on the hub, in order.
    pub async fn stored(&self) -> Vec<String> {
        let stored = self.all::<tidings_core::Event>("EVENTS").await;
        stored.into_iter().map(|event| event.message).collect()
    }

    /// All dead letters, oldest first.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.all("DEAD").await
    }

    /// All messages of a stream that never lost one.
    async fn all<T: Message + Default>(&self, stream: &str) -> Vec<T> {
        let (client, _) = self.client("tools").await;
        let stream = jetstream::new(client).get_stream(stream).await;
        let mut stream = stream.expect("the roles created the stream");
        let info = stream.info().await.expect("the server answers");
        let last = info.state.last_sequence;
        let mut all = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await;
            let payload = message.expect("nothing was deleted").payload;
            all.push(T::decode(payload).expect("the stream holds such messages"));
        }
        all
    }

    /// A NATS client with the credentials of a user, and what the server refuses it.
    pub async fn client(&self, name: &str) -> (Client, Arc<Mutex<Vec<String>>>) {
        let file = self.credentials(name);
        let credentials = std::fs::read_to_string(file).expect("the file was issued");
        let access = Access::of_credentials(&credentials);
        let violations = Arc::<Mutex<Vec<String>>>::default();
        let collected = violations.clone();
        let client = ConnectOptions::with_credentials(&credentials)
            .expect("the file was issued")
            .custom_inbox_prefix(access.inbox_prefix().expect("a user has an inbox"))
            .event_callback(move |event| {
                collected.lock().push(event.to_string());
                std::future::ready(())
            })
            .connect(self.rig.url())
            .await
            .expect("nats-server responds");
        (client, violations)
    }
}

/// Runs `tidings fleet`.
async fn fleet(arguments: &[&str]) {
    let mut command = Command::new(TIDINGS);
    let output = command.arg("fleet").args(arguments).output().await;
    let output = output.expect("the executable can be started");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the rig's paths are text")
}
