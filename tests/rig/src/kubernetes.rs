//! A Kubernetes API for one test, or for one test binary: a real kube-apiserver on a real etcd.
//!
//! There are no controllers: a namespace has no default service account, one that is deleted stays,
//! and aggregated roles such as `view` allow nothing.

mod audit;
mod client;
mod files;
mod guarded;
mod kubectl;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::port::free_port;
use crate::wait::eventually;
pub use audit::Asked;
use files::Files;
use guarded::{Cleaner, Guarded};
pub use kubectl::Said;

/// An API server with an etcd of its own. It keeps port and data over [`KubeApiServer::kill`] and
/// [`KubeApiServer::restart`]; both end with the test, also when that is killed.
pub struct KubeApiServer {
    // Dropped in this order: the API server before its etcd, and both before their folder.
    server: Option<Guarded>,
    etcd: Option<Guarded>,
    port: u16,
    etcd_port: u16,
    arguments: Vec<String>,
    files: Files,
    folder: TempDir,
}

/// What etcd held at a moment.
pub struct Snapshot(TempDir);

impl KubeApiServer {
    /// The folder of kube-apiserver, etcd and kubectl; the project's script builds what is missing.
    pub fn executables() -> &'static Path {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/kubernetes.sh");
            let found = BlockingCommand::new(script)
                .stderr(Stdio::inherit())
                .output()
                .expect("the script can be run");
            assert!(
                found.status.success(),
                "there is no usable kube-apiserver; see above"
            );
            String::from_utf8_lossy(&found.stdout).trim().into()
        })
    }

    /// The one that tests of a binary share, with the project's CRDs; each test takes a namespace
    /// of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<(KubeApiServer, Cleaner)> = OnceCell::const_new();
        let shared = SHARED.get_or_init(|| async {
            let server = Self::start().await;
            let cleaner = Cleaner::start(server.folder());
            server.install_crds().await;
            (server, cleaner)
        });
        &shared.await.0
    }

    /// Starts one without any object of ours.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more flags of kube-apiserver.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(
            new_folder(),
            flags.iter().map(|&flag| flag.to_owned()).collect(),
        )
        .await
    }

    async fn start_in(folder: TempDir, flags: Vec<String>) -> Self {
        let [port, etcd_port] = [free_port(), free_port()];
        let files = Files::write(folder.path(), &url(port));
        let mut arguments = arguments(&files, port, etcd_port);
        arguments.extend(flags);
        let mut server = Self {
            server: None,
            etcd: None,
            port,
            etcd_port,
            arguments,
            files,
            folder,
        };
        server.run_etcd();
        server.restart().await;
        server
    }

    /// Where it is: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// A folder of this server's own, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the API server at once, as `kill -9` does. Its etcd goes on.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Stops the API server without an end: connections stay open, and nothing answers.
    pub fn freeze(&self) {
        self.running().freeze();
    }

    /// Lets it go on after [`KubeApiServer::freeze`].
    pub fn thaw(&self) {
        self.running().thaw();
    }

    /// Starts the API server again, on the same port and with what is stored, and waits until it is
    /// ready.
    pub async fn restart(&mut self) {
        self.server = None;
        let executable = Self::executables().join("kube-apiserver");
        self.server = Some(Guarded::start(
            &executable,
            &self.arguments,
            &self.files.path("kube-apiserver.log"),
        ));
        let client = self.client().await;
        eventually("kube-apiserver is ready", async || {
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .expect("the request is valid");
            client
                .request_text(request)
                .await
                .ok()
                .filter(|answer| answer == "ok")
        })
        .await;
    }

    /// Stops all and copies what etcd holds; then all goes on.
    pub async fn snapshot(&mut self) -> Snapshot {
        self.stop();
        let copy = tempfile::tempdir().expect("the temporary folder is writable");
        copy_folder(&self.etcd_data(), copy.path());
        self.run_etcd();
        self.restart().await;
        Snapshot(copy)
    }

    /// Goes back to a snapshot, as an operator does after a disaster: versions that were given out
    /// are given out again.
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        self.stop();
        fs::remove_dir_all(self.etcd_data()).expect("etcd has stopped");
        copy_folder(snapshot.0.path(), &self.etcd_data());
        self.run_etcd();
        self.restart().await;
    }

    /// Makes etcd forget all versions before the present one. A watch from an older one gets 410
    /// once the API server's own memory has been lost by [`KubeApiServer::restart`].
    pub async fn compact(&self) {
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client can be made");
        let call = async |path: &str, body: Value| {
            let url = format!("http://127.0.0.1:{}/v3/{path}", self.etcd_port);
            let answer = client
                .post(url)
                .body(body.to_string())
                .send()
                .await
                .expect("etcd answers");
            let answer = answer
                .error_for_status()
                .expect("etcd does it")
                .text()
                .await
                .expect("etcd answers");
            serde_json::from_str::<Value>(&answer).expect("etcd answers with JSON")
        };
        let present = call("kv/range", json!({"key": "AA=="})).await["header"]["revision"].clone();
        call(
            "kv/compaction",
            json!({"revision": present, "physical": true}),
        )
        .await;
    }

    fn running(&self) -> &Guarded {
        self.server.as_ref().expect("the API server runs")
    }

    fn stop(&mut self) {
        self.server = None;
        self.etcd = None;
    }

    fn etcd_data(&self) -> PathBuf {
        self.files.path("etcd")
    }

    fn run_etcd(&mut self) {
        let url = format!("http://127.0.0.1:{}", self.etcd_port);
        let arguments = [
            format!("--data-dir={}", self.etcd_data().display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            // No other member ever calls.
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            // What a killed process has written is in the kernel, so nothing is lost by this.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.etcd = Some(Guarded::start(
            &Self::executables().join("etcd"),
            &arguments,
            &self.files.path("etcd.log"),
        ));
    }
}

impl Drop for KubeApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.files.path("kube-apiserver.log")).unwrap_or_default();
            // Said at each start, of connections that are no longer needed.
            let lines: Vec<_> = log
                .lines()
                .filter(|line| !line.contains("addrConn"))
                .collect();
            eprintln!(
                "--- the log of kube-apiserver ends so:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

fn new_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidings-kube-")
        .tempdir()
        .expect("the temporary folder is writable")
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

fn arguments(files: &Files, port: u16, etcd_port: u16) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", files.path(name).display());
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        file("tls-cert-file", "tls.crt"),
        file("tls-private-key-file", "tls.key"),
        file("token-auth-file", "tokens.csv"),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("service-account-signing-key-file", "accounts.key"),
        file("service-account-key-file", "accounts.pub"),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        // Two cores are for all tests: what none of them looks at is off.
        "--endpoint-reconciler-type=none".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = BlockingCommand::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()
        .expect("there is a cp");
    assert!(copied.success(), "{} can't be copied", from.display());
}
