//! A nats-server for one test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::limited_disk::launched;
use crate::port::free_port;
use crate::tool::tool;
use crate::wait::eventually;

/// A nats-server with JetStream on a loopback port. Port and store stay the same after
/// [`NatsServer::kill`] and [`NatsServer::restart`].
pub struct NatsServer {
    child: Child,
    config: PathBuf,
    launcher: Vec<String>,
    port: u16,
    url: String,
    responds: AtomicBool,
}

impl NatsServer {
    /// The path of the executable, as `tools/nats-server.sh` finds it.
    pub fn executable() -> &'static Path {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| {
            tool("nats-server.sh").expect("no usable nats-server; see the output above")
        })
    }

    /// The path of an older executable. `None` if this machine cannot install one; an error in CI.
    pub fn previous_executable() -> Option<PathBuf> {
        tool("nats-server-previous.sh")
    }

    /// Starts a server with its store in `folder`; `more` is appended to its configuration.
    pub async fn start(folder: &Path, more: &str) -> Self {
        Self::start_by(folder, more, Vec::new()).await
    }

    /// Like [`NatsServer::start`], run by a command.
    pub(crate) async fn start_by(folder: &Path, more: &str, launcher: Vec<String>) -> Self {
        let port = free_port();
        let config = folder.join("nats.conf");
        let store = folder.join("jetstream");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {store:?}, max_file_store: 100GB, sync_interval: 1s }}\n\
             {more}\n"
        );
        std::fs::write(&config, text).expect("the rig's folder is writable");
        Self::run(config, port, launcher).await
    }

    /// Starts a server with an existing configuration that listens on this port.
    pub(crate) async fn start_configured(config: PathBuf, port: u16) -> Self {
        Self::run(config, port, Vec::new()).await
    }

    async fn run(config: PathBuf, port: u16, launcher: Vec<String>) -> Self {
        let child = run_by(&launcher, Self::executable(), &config);
        let server = Self {
            child,
            config,
            launcher,
            port,
            url: format!("nats://127.0.0.1:{port}"),
            responds: true.into(),
        };
        accepts_clients(server.port).await;
        server
    }

    /// The URL for clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// Whether the test has neither killed nor frozen the server.
    pub(crate) fn responds(&self) -> bool {
        self.responds.load(Ordering::Relaxed)
    }

    /// Kills the server, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.responds.store(false, Ordering::Relaxed);
        self.child
            .kill()
            .await
            .expect("a child process can be killed");
    }

    /// Ends the server, as an operator does.
    pub async fn terminate(&mut self) {
        self.responds.store(false, Ordering::Relaxed);
        signal(&self.child, Signal::TERM);
        self.child
            .wait()
            .await
            .expect("a child process can be waited for");
    }

    /// Stops the server like a machine that hangs: connections stay open without responses.
    pub fn freeze(&self) {
        self.responds.store(false, Ordering::Relaxed);
        signal(&self.child, Signal::STOP);
    }

    /// Resumes the server after [`NatsServer::freeze`].
    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
        self.responds.store(true, Ordering::Relaxed);
    }

    /// Starts the server again with its stored messages.
    pub async fn restart(&mut self) {
        self.child = run_by(&self.launcher, Self::executable(), &self.config);
        accepts_clients(self.port).await;
        self.responds.store(true, Ordering::Relaxed);
    }
}

/// Waits until a server greets its clients. It does so after it has read its store.
pub(crate) async fn accepts_clients(port: u16) {
    eventually("nats-server accepts connections", async || {
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

/// Sends a signal to a running child process.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let id = child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .expect("a running process has an id");
    kill_process(id, signal).expect("a child process accepts signals");
}

pub(crate) fn run(executable: &Path, config: &Path) -> Child {
    run_by(&[], executable, config)
}

fn run_by(launcher: &[String], executable: &Path, config: &Path) -> Child {
    launched(launcher, executable)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server can be started")
}
