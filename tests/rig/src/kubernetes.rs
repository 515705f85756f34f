//! A Kubernetes API for one test or one test binary: a real kube-apiserver on a real etcd.
//!
//! There are no controllers: namespaces have no default service account and are never deleted, and
//! aggregated roles such as `view` are empty.

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
pub use audit::AuditedRequest;
use files::Files;
use guarded::{Cleaner, Guarded};
pub use kubectl::KubectlOutput;

/// An API server with its own etcd. Port and data stay the same after [`KubeApiServer::kill`] and
/// [`KubeApiServer::restart`]. Both servers end with the test, even if the test is killed.
pub struct KubeApiServer {
    // Dropped in this order: the API server, its etcd, their folder.
    server: Option<Guarded>,
    etcd: Option<Guarded>,
    port: u16,
    etcd_port: u16,
    arguments: Vec<String>,
    files: Files,
    folder: TempDir,
}

/// A copy of etcd's data.
pub struct Snapshot(TempDir);

impl KubeApiServer {
    /// The folder of kube-apiserver, etcd and kubectl. `tools/kubernetes.sh` builds missing ones.
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
                "no usable kube-apiserver; see the output above"
            );
            String::from_utf8_lossy(&found.stdout).trim().into()
        })
    }

    /// The server that the tests of a binary share, with the project's CRDs. Each test uses its own
    /// namespace.
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

    /// Starts a server without the project's CRDs.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Like [`KubeApiServer::start`], with more flags of kube-apiserver.
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

    /// Its URL: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// A temporary folder, removed with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the API server, as `kill -9` does. Its etcd continues.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Stops the API server like a machine that hangs: connections stay open without responses.
    pub fn freeze(&self) {
        self.running().freeze();
    }

    /// Resumes the API server after [`KubeApiServer::freeze`].
    pub fn thaw(&self) {
        self.running().thaw();
    }

    /// Restarts the API server on the same port with the same data, and waits until it is ready.
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
                .filter(|body| body == "ok")
        })
        .await;
    }

    /// Copies etcd's data. The API server and etcd are stopped during the copy.
    pub async fn snapshot(&mut self) -> Snapshot {
        self.stop();
        let copy = tempfile::tempdir().expect("the temporary folder is writable");
        copy_folder(&self.etcd_data(), copy.path());
        self.run_etcd();
        self.restart().await;
        Snapshot(copy)
    }

    /// Restores a snapshot, as an operator does after a disaster: the API server assigns resource
    /// versions a second time.
    pub async fn restore(&mut self, snapshot: &Snapshot) {
        self.stop();
        fs::remove_dir_all(self.etcd_data()).expect("etcd has stopped");
        copy_folder(snapshot.0.path(), &self.etcd_data());
        self.run_etcd();
        self.restart().await;
    }

    /// Makes etcd discard all revisions before the current one. [`KubeApiServer::restart`] then
    /// clears the API server's cache, and a watch from an older version gets 410.
    pub async fn compact(&self) {
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("the client's settings are valid");
        let call = async |path: &str, body: Value| {
            let url = format!("http://127.0.0.1:{}/v3/{path}", self.etcd_port);
            let answer = client
                .post(url)
                .body(body.to_string())
                .send()
                .await
                .expect("etcd responds");
            let answer = answer
                .error_for_status()
                .expect("etcd accepts the request")
                .text()
                .await
                .expect("etcd responds");
            serde_json::from_str::<Value>(&answer).expect("etcd responds with JSON")
        };
        let current = call("kv/range", json!({"key": "AA=="})).await["header"]["revision"].clone();
        call(
            "kv/compaction",
            json!({"revision": current, "physical": true}),
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
            // No other member connects.
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            // A killed process loses nothing, because the kernel keeps what it wrote.
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
            // These lines are about closed connections, and are logged at each start.
            let lines: Vec<_> = log
                .lines()
                .filter(|line| !line.contains("addrConn"))
                .collect();
            eprintln!(
                "--- the end of the log of kube-apiserver:\n{}",
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
        // Features that no test needs are off, since all tests share the cores.
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
        .expect("cp can be started");
    assert!(copied.success(), "cannot copy {}", from.display());
}
