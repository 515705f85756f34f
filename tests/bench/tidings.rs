//! `tidings up`, started for a scenario.

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

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_tidings");
/// What a start may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// All roles in one process, its nats-server, and a data folder that goes with it.
pub struct Tidings {
    child: Child,
    pid: u32,
    nats_server: u32,
    events: String,
    _folder: TempDir,
}

impl Tidings {
    /// Starts it with a scenario's rules, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start or does not become ready; the log says why.
    pub async fn start(scenario: Scenario, addresses: Addresses) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tidings-bench-")
            .tempdir()?;
        let (rules, data) = (folder.path().join("rules"), folder.path().join("data"));
        scenario.write(&rules, addresses)?;
        let mut child = spawn(&rules, &data)?;
        let pid = child.id().context("tidings has ended at once")?;
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
            child,
            pid,
            nats_server: u32::try_from(nats_server)?,
            events,
            _folder: folder,
        })
    }

    /// What is measured.
    pub fn program(&self) -> Program {
        let endpoint = Endpoint {
            authority: self.events.clone(),
            path: "/".to_owned(),
        };
        Program {
            name: "tidings",
            endpoint,
            processes: vec![("tidings", self.pid), ("nats-server", self.nats_server)],
        }
    }

    /// Ends it; its nats-server ends with it.
    ///
    /// # Errors
    /// It can't be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot end tidings")
    }
}

fn spawn(rules: &Path, data: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(EXECUTABLE);
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
        .with_context(|| format!("cannot start {EXECUTABLE}"))
}

async fn ready(admin: &str) -> anyhow::Result<()> {
    let question = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\n\r\n");
    loop {
        let mut connection = Connection::new(
            TcpStream::connect(admin)
                .await
                .context("cannot connect to /readyz")?,
        )?;
        connection.send(question.as_bytes()).await?;
        if connection.answer().await?.status == 200 {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Its log: both outputs, so that none of them fills up.
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

    /// Where it takes events, and where it tells whether it is ready.
    async fn addresses(&mut self) -> anyhow::Result<(String, String)> {
        let (mut events, mut admin) = (None, None);
        loop {
            if let (Some(events), Some(admin)) = (&events, &admin) {
                return Ok((String::clone(events), String::clone(admin)));
            }
            let Some(line) = self.line().await else {
                bail!("tidings has ended before it was ready")
            };
            let address = || line["address"].as_str().map(str::to_owned);
            match (line["message"].as_str(), line["role"].as_str()) {
                (Some("listening"), Some("ingest")) => events = address(),
                (Some("listening"), Some("admin")) => admin = address(),
                _ => {}
            }
        }
    }

    /// Reads the rest.
    async fn watch(mut self) {
        while self.line().await.is_some() {}
    }

    /// The next line of either; what is amiss is shown.
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
