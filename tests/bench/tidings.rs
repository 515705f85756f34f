//! Runs `tidings up` for a scenario.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;
use tidings_rig::NatsServer;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::endpoint::{Endpoint, Program};
use crate::http::Connection;
use crate::scenario::{Addresses, Scenario};

/// The executable of this build.
pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_tidings");
/// Time for a start on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// All roles in one process, its nats-server, and a temporary data folder.
pub struct Tidings {
    name: &'static str,
    child: Child,
    pid: u32,
    nats_server: u32,
    events: String,
    _folder: TempDir,
}

impl Tidings {
    /// Starts an executable with a scenario's rules, and waits until it is ready.
    ///
    /// # Errors
    /// The process does not start or does not become ready; its log shows why.
    pub async fn start(
        name: &'static str,
        executable: &Path,
        scenario: Scenario,
        addresses: Addresses,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tidings-bench-")
            .tempdir()?;
        let (rules, data) = (folder.path().join("rules"), folder.path().join("data"));
        scenario.write(&rules, addresses)?;
        let mut child = spawn(executable, &rules, &data)?;
        let pid = child.id().context("tidings ended at once")?;
        let mut log = Log::of(&mut child)?;
        let started = timeout(READY_WITHIN, async {
            let (events, admin) = log.addresses().await?;
            spawn_local(log.watch());
            ready(&admin).await?;
            anyhow::Ok(events)
        });
        let events = started.await.context("tidings does not become ready")??;
        let contact = fs::read_to_string(data.join("nats.json"))
            .context("cannot read the nats.json of tidings")?;
        let nats_server = serde_json::from_str::<Value>(&contact)?["pid"]
            .as_u64()
            .context("nats.json has no pid")?;
        Ok(Self {
            name,
            child,
            pid,
            nats_server: u32::try_from(nats_server)?,
            events,
            _folder: folder,
        })
    }

    /// The program to measure.
    pub fn program(&self) -> Program {
        let endpoint = Endpoint {
            authority: self.events.clone(),
            path: "/".to_owned(),
        };
        Program {
            name: self.name,
            endpoint,
            processes: vec![("tidings", self.pid), ("nats-server", self.nats_server)],
        }
    }

    /// Kills the process; its nats-server ends with it.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot end tidings")
    }
}

fn spawn(executable: &Path, rules: &Path, data: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(executable);
    command.args([
        "up",
        "--log-format",
        "json",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    command
        .arg("--rules")
        .arg(rules)
        .arg("--data")
        .arg(data)
        .env("NATS_SERVER", NatsServer::executable());
    for proxy in ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
        .spawn()
        .with_context(|| format!("cannot start {}", executable.display()))
}

async fn ready(admin: &str) -> anyhow::Result<()> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\n\r\n");
    loop {
        let mut connection = Connection::new(
            TcpStream::connect(admin)
                .await
                .context("cannot connect to /readyz")?,
        )?;
        connection.send(request.as_bytes()).await?;
        if connection.response().await?.status == 200 {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Standard output and standard error, both read so that neither pipe fills up.
struct Log {
    output: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Log {
    fn of(child: &mut Child) -> anyhow::Result<Self> {
        let output = child
            .stdout
            .take()
            .context("the output of tidings is not piped")?;
        let errors = child
            .stderr
            .take()
            .context("the log of tidings is not piped")?;
        Ok(Self {
            output: BufReader::new(output).lines(),
            errors: BufReader::new(errors).lines(),
        })
    }

    /// The addresses of the event endpoint and of the admin port.
    async fn addresses(&mut self) -> anyhow::Result<(String, String)> {
        let (mut events, mut admin) = (None, None);
        loop {
            if let (Some(events), Some(admin)) = (&events, &admin) {
                return Ok((String::clone(events), String::clone(admin)));
            }
            let Some(line) = self.line().await else {
                bail!("tidings ended before it was ready")
            };
            let address = || line["address"].as_str().map(str::to_owned);
            match (line["code"].as_str(), line["role"].as_str()) {
                (Some("listening"), Some("ingest")) => events = address(),
                (Some("listening"), Some("admin")) => admin = address(),
                _ => {}
            }
        }
    }

    /// Reads the rest of the log.
    async fn watch(mut self) {
        while self.line().await.is_some() {}
    }

    /// The next line of either output; warnings and errors are printed.
    async fn line(&mut self) -> Option<Value> {
        let line = tokio::select! {
            line = self.errors.next_line() => line.ok()??,
            line = self.output.next_line() => line.ok()??,
        };
        let fields: Value = serde_json::from_str(&line).unwrap_or_default();
        if !matches!(fields["level"].as_str(), Some("INFO" | "DEBUG" | "TRACE")) {
            eprintln!("{line}");
        }
        Some(fields)
    }
}
