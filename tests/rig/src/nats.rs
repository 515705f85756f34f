//! A nats-server for one test.

use std::path::{Path, PathBuf};
use std::process::{Command as BlockingCommand, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::port::free_port;
use crate::wait::eventually;

/// A nats-server with JetStream on a loopback port. It keeps port and store over
/// [`NatsServer::kill`] and [`NatsServer::restart`].
pub struct NatsServer {
    child: Child,
    config: PathBuf,
    port: u16,
    url: String,
}

impl NatsServer {
    /// The path of the executable: NATS_SERVER's, PATH's or the project's own, as the project's
    /// script finds it.
    pub fn executable() -> &'static Path {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/nats-server.sh");
            let found = BlockingCommand::new(script)
                .stderr(Stdio::inherit())
                .output()
                .expect("the script can be run");
            assert!(
                found.status.success(),
                "there is no usable nats-server; see above"
            );
            String::from_utf8_lossy(&found.stdout).trim().into()
        })
    }

    /// Starts one whose store is in `folder`, with more lines in its configuration.
    pub async fn start(folder: &Path, more: &str) -> Self {
        let port = free_port();
        let config = folder.join("nats.conf");
        let store = folder.join("jetstream");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\njetstream {{ store_dir: {store:?}, max_file_store: 100GB, sync_interval: 1s }}\n{more}\n"
        );
        std::fs::write(&config, text).expect("the rig's folder is writable");
        let child = run(&config);
        let server = Self {
            child,
            config,
            port,
            url: format!("nats://127.0.0.1:{port}"),
        };
        greets(server.port).await;
        server
    }

    /// Where clients connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it at once, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.child
            .kill()
            .await
            .expect("a child of ours can be killed");
    }

    /// Stops it without an end, as a machine that hangs: connections stay open, and nothing
    /// answers.
    pub fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on after [`NatsServer::freeze`].
    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Starts it again, with what it had stored.
    pub async fn restart(&mut self) {
        self.child = run(&self.config);
        greets(self.port).await;
    }
}

/// Waits until a server greets, as it does once it has read its store.
pub(crate) async fn greets(port: u16) {
    eventually("nats-server takes connections", async || {
        let connection = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut greeting = String::new();
        BufReader::new(connection)
            .read_line(&mut greeting)
            .await
            .ok()?;
        greeting.starts_with("INFO").then_some(())
    })
    .await;
}

/// Sends a signal to a child that has not ended.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .expect("a process that has not ended has an id");
    kill_process(id, signal).expect("a child of ours can be signalled");
}

pub(crate) fn run(config: &Path) -> Child {
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
