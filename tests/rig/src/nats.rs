//! A nats-server for one test.

use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, Stdio};
use std::sync::OnceLock;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::port::free_port;
use crate::wait::eventually;

/// A nats-server with JetStream on a loopback port. It keeps port and store over [`NatsServer::kill`] and
/// [`NatsServer::restart`].
pub struct NatsServer {
    child: Child,
    config: PathBuf,
    port: u16,
    url: String,
}

impl NatsServer {
    /// The path of the executable: NATS_SERVER's, PATH's or the project's own, as the project's script finds it.
    pub fn executable() -> &'static Path {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/nats-server.sh");
            let found = BlockingCommand::new(script).stderr(Stdio::inherit()).output().expect("the script can be run");
            assert!(found.status.success(), "there is no usable nats-server; see above");
            String::from_utf8_lossy(&found.stdout).trim().into()
        })
    }

    /// Starts one whose store is in `folder`.
    pub async fn start(folder: &Path) -> Self {
        let port = free_port();
        let config = folder.join("nats.conf");
        let store = folder.join("jetstream");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\njetstream {{ store_dir: {store:?}, max_file_store: 100GB, sync_interval: 1s }}\n"
        );
        std::fs::write(&config, text).expect("the rig's folder is writable");
        let child = run(&config);
        let server = Self { child, config, port, url: format!("nats://127.0.0.1:{port}") };
        server.greets().await;
        server
    }

    /// Where clients connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it at once, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child of ours can be killed");
    }

    /// Starts it again, with what it had stored.
    pub async fn restart(&mut self) {
        self.child = run(&self.config);
        self.greets().await;
    }

    /// It greets once it has read its store.
    async fn greets(&self) {
        eventually("nats-server takes connections", async || {
            let connection = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let mut greeting = String::new();
            BufReader::new(connection).read_line(&mut greeting).await.ok()?;
            greeting.starts_with("INFO").then_some(())
        })
        .await;
    }
}

fn run(config: &Path) -> Child {
    Command::new(NatsServer::executable())
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server can be started")
}
