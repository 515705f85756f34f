//! A fleet over TLS, each role with credentials of its own: a release `standard` on the NATS server
//! of a hub, and a release `member` that forwards to it.
//!
//! ```text
//!  sender ─► Service ─► edge (member) ── TLS ─► NATS ─► router, worker (hub) ─► Receiver
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tidings_rig::{Authority, Rig};

use crate::TIDINGS;
use crate::cluster::{HOST, kill_container, output_of, secret};
use crate::load::{balance, post, send_during};
use crate::release::Release;
use crate::usage::measure;

/// The name of the member's cluster.
const MEMBER: &str = "prod-eu";
/// Where each role of the hub finds its credentials.
const CREDENTIALS: &str = "/run/secrets/fleet";

/// The NATS server of a fleet, on the host.
struct Hub {
    rig: Rig,
    authority: Authority,
    url: String,
}

impl Hub {
    async fn start() -> Self {
        let authority = Authority::new();
        let mut url = String::new();
        let rig = Rig::start_configured(TIDINGS, async |folder, port| {
            url = format!("tls://{HOST}:{port}");
            init(&authority, folder, &url, port).await;
            folder.join("fleet/nats.conf")
        })
        .await;
        let hub = Self {
            rig,
            authority,
            url,
        };
        for cluster in ["hub", MEMBER] {
            hub.tool(&["fleet", "add", cluster, "--dir", &hub.dir()])
                .await;
        }
        hub
    }

    fn dir(&self) -> String {
        self.rig.folder().join("fleet").display().to_string()
    }

    async fn tool(&self, arguments: &[&str]) {
        output_of(Path::new(TIDINGS), arguments, "").await;
    }

    /// Writes the Secrets of a namespace: credentials, each for a user, and the authority.
    async fn secrets(&self, namespace: &str, users: &[(&str, &str)]) {
        for (name, user) in users {
            let file = self.rig.folder().join(format!("fleet/creds/{user}.creds"));
            let text = std::fs::read_to_string(file).expect("the fleet has this user");
            secret(namespace, name, &[("nats.creds", &text)]).await;
        }
        secret(namespace, "hub-ca", &[("ca.crt", &self.authority.pem())]).await;
    }

    /// A file with values of the chart.
    fn values(&self, name: &str, values: &Value) -> PathBuf {
        let file = self.rig.folder().join(name);
        std::fs::write(&file, values.to_string()).expect("the folder is writable");
        file
    }

    /// The roles of the hub, as docs/fleet.md shows them.
    async fn standard(&self) -> Release {
        let users = [
            ("nats-ingest", "hub"),
            ("nats-router", "router"),
            ("nats-worker", "worker"),
        ];
        self.secrets("hub", &users).await;
        let role = |name: &str| {
            let secret = format!("nats-{name}");
            json!({
                "autoscaling": {"enabled": false},
                "replicas": 1,
                "extraVolumes": [{"name": "fleet", "secret": {"secretName": secret}}],
                "extraVolumeMounts":
                    [{"name": "fleet", "mountPath": CREDENTIALS, "readOnly": true}],
            })
        };
        let mut router = role("router");
        router
            .as_object_mut()
            .expect("it is an object")
            .remove("autoscaling");
        let path = format!("{CREDENTIALS}/nats.creds");
        let values = json!({
            "cluster": "hub",
            "nats": {
                "enabled": false,
                "external": {"url": self.url, "caSecret": "hub-ca", "replicas": 1},
            },
            "extraEnv": [{"name": "TIDINGS_NATS__CREDENTIALS", "value": path}],
            "ingest": role("ingest"),
            "router": router,
            "worker": role("worker"),
        });
        let file = self.values("hub.json", &values);
        let release = Release {
            name: "tidings",
            namespace: "hub",
            mode: "standard",
            workloads: &[
                "deployment/tidings-ingest",
                "deployment/tidings-router",
                "deployment/tidings-worker",
            ],
        };
        let flag = format!("--values={}", file.display());
        release.installed(&[flag]).await
    }

    async fn member(&self) -> Release {
        let users = [("tidings-nats-credentials", MEMBER)];
        self.secrets("member", &users).await;
        let release = Release {
            name: "member-tidings",
            namespace: "member",
            mode: "member",
            workloads: &["statefulset/member-tidings"],
        };
        release.installed(&self.member_flags()).await
    }

    fn member_flags(&self) -> [String; 4] {
        [
            format!("--set=cluster={MEMBER}"),
            format!("--set=nats.external.url={}", self.url),
            "--set=nats.external.credentialsSecret=tidings-nats-credentials".to_owned(),
            "--set=nats.external.caSecret=hub-ca".to_owned(),
        ]
    }
}

/// Writes the files of a fleet, with a certificate for the address of the host.
async fn init(authority: &Authority, folder: &Path, url: &str, port: u16) {
    let (certificate, key) = authority.certificate_for(HOST);
    for (name, text) in [("hub.pem", certificate), ("hub-key.pem", key)] {
        std::fs::write(folder.join(name), text).expect("the folder is writable");
    }
    let file = |name: &str| folder.join(name).display().to_string();
    let listen = format!("0.0.0.0:{port}");
    let (authority, dir) = (authority.file().display().to_string(), file("fleet"));
    let (certificate, key) = (file("hub.pem"), file("hub-key.pem"));
    let arguments = [
        "fleet",
        "init",
        &dir,
        "--listen",
        &listen,
        "--url",
        url,
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--tls-ca",
        &authority,
        "--storage",
        "5",
    ];
    output_of(Path::new(TIDINGS), &arguments, "").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: run `make e2e`"]
async fn a_member_forwards_everything_to_its_hub_while_both_change() {
    let mut hub = Hub::start().await;
    let standard = hub.standard().await;
    let member = hub.member().await;
    let receiver = standard.receiver().await;
    let address = member.address().await;
    let mut posted = post(&address, "first", 1, Duration::from_secs(1)).await;
    let own = standard.address().await;
    posted.extend(post(&own, "own", 1, Duration::from_secs(1)).await);
    balance("fleet, the first event of each cluster", &posted, &receiver).await;
    member.test().await;

    posted.extend(measure("member", &address).await);
    balance("fleet, undisturbed", &posted, &receiver).await;

    let flags = hub.member_flags();
    let changes = async {
        hub.rig.nats().kill().await;
        println!("killed the NATS server of the hub");
        kill_container("member", "member-tidings-0").await;
        member.ready().await;
        println!("killed the edge while it is cut off");
        hub.rig.nats().restart().await;
        standard.ready().await;
        member.delete_pod("ingest").await;
        for component in ["router", "worker"] {
            standard.delete_pod(component).await;
        }
        println!("deleted a pod of each role");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        member
            .upgrade(&[&flags[..], &["--set=image.tag=next"]].concat())
            .await;
        member.rollback("1").await;
        println!("upgraded the member, and rolled it back");
    };
    posted.extend(send_during(&address, "changes", 10, changes).await);
    balance("fleet, with all changes", &posted, &receiver).await;
    member.uninstall().await;
    standard.uninstall().await;
}
