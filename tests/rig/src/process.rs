//! Processes of the executable.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header::HeaderMap;
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::log::{Log, LogEvent};
use crate::nats::{NatsServer, signal};
use crate::port::free_port;
use crate::wait::eventually;

/// What a process is to be: a subcommand, and what is particular about it.
#[derive(Clone, Debug)]
pub struct Role {
    subcommand: &'static str,
    shares_server: bool,
    kubeconfig: Option<PathBuf>,
    extra: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Role {
    /// `tidings ingest`
    pub fn ingest() -> Self {
        Self::new("ingest")
    }

    /// `tidings router`
    pub fn router() -> Self {
        Self::new("router")
    }

    /// `tidings worker`
    pub fn worker() -> Self {
        Self::new("worker")
    }

    /// `tidings up` on the rig's nats-server.
    pub fn up() -> Self {
        Self::new("up")
    }

    /// `tidings up` with a nats-server of its own, as most people run it.
    pub fn up_alone() -> Self {
        Self {
            shares_server: false,
            ..Self::new("up")
        }
    }

    fn new(subcommand: &'static str) -> Self {
        Self {
            subcommand,
            shares_server: true,
            kubeconfig: None,
            extra: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With its rules in the cluster of a kubeconfig, not in the rig's folder.
    pub fn in_cluster(mut self, kubeconfig: &Path) -> Self {
        self.kubeconfig = Some(kubeconfig.to_owned());
        self
    }

    /// With these arguments too.
    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.extra.extend(arguments.map(str::to_owned));
        self
    }

    /// With this environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn arguments(self, nats: &str, rules: &Path, folder: &Path) -> Launch {
        let [admin, listen] = [free_port(), free_port()];
        let mut arguments = vec![
            self.subcommand.to_owned(),
            "--log-format".to_owned(),
            "json".to_owned(),
        ];
        let mut push = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        push("--admin", format!("127.0.0.1:{admin}"));
        if self.shares_server {
            push("--nats", nats.to_owned());
        } else {
            push("--data", folder.join("data").display().to_string());
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            push("--kubeconfig", kubeconfig.display().to_string());
        }
        if self.subcommand != "ingest" {
            push(
                "--rules",
                self.kubeconfig
                    .map_or(rules.display().to_string(), |_| "cluster".to_owned()),
            );
        }
        if matches!(self.subcommand, "ingest" | "up") {
            push("--listen", format!("127.0.0.1:{listen}"));
        }
        arguments.extend(self.extra);
        Launch {
            arguments,
            environment: self.environment,
            admin,
            listen,
        }
    }
}

/// How a process is started, and started again.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    admin: u16,
    listen: u16,
}

/// A process of the executable under test.
pub struct Process {
    executable: PathBuf,
    launch: Launch,
    child: Child,
    log: Log,
}

/// What an HTTP endpoint of ours answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub body: String,
}

impl Process {
    pub(crate) fn spawn(executable: &Path, launch: Launch) -> Self {
        let log = Log::default();
        let child = run(executable, &launch, &log);
        Self {
            executable: executable.to_owned(),
            launch,
            child,
            log,
        }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        let url = format!("{}/readyz", self.admin());
        eventually(
            &format!("`tidings {}` is ready", self.launch.arguments[0]),
            async || {
                let answer = CLIENT.get(&url).send().await.ok()?;
                answer.status().is_success().then_some(())
            },
        )
        .await;
    }

    /// What `/readyz` answers.
    pub async fn readiness(&self) -> Answer {
        self.readiness_if_up().await.expect("/readyz answers")
    }

    /// What `/readyz` answers; nothing while nobody listens.
    pub async fn readiness_if_up(&self) -> Option<Answer> {
        let answer = CLIENT
            .get(format!("{}/readyz", self.admin()))
            .send()
            .await
            .ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Some(Answer {
            status,
            headers,
            body: answer.text().await.ok()?,
        })
    }

    /// The process's id; it must not have ended.
    pub fn id(&self) -> u32 {
        self.child
            .id()
            .expect("a process that has not ended has an id")
    }

    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.launch.admin)
    }

    /// The address that takes events.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.launch.listen)
    }

    /// Posts an event.
    ///
    /// # Errors
    /// There was no answer: whether the event was taken is then open.
    pub async fn post(&self, event: &Value) -> Result<Answer, reqwest::Error> {
        self.post_text(event.to_string()).await
    }

    /// Posts any body.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn post_text(&self, body: String) -> Result<Answer, reqwest::Error> {
        let answer = CLIENT
            .post(self.address())
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await?,
        })
    }

    /// What `/metrics` answers.
    pub async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.admin());
        CLIENT
            .get(url)
            .send()
            .await
            .expect("/metrics answers")
            .text()
            .await
            .expect("/metrics answers with text")
    }

    /// The sum of a counter's samples whose label set contains `labels`, from `/metrics`; 0 when
    /// there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics().await;
        let samples = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Ends it at once, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.child
            .kill()
            .await
            .expect("a child of ours can be killed");
    }

    /// Stops it without an end, as a machine that hangs.
    pub fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on after [`Process::freeze`].
    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Asks it to end, as Kubernetes does, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        signal(&self.child, Signal::TERM);
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(crate::PATIENCE).await
    }

    /// Like [`Process::ended`], with a limit of its own.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| {
            panic!(
                "`tidings {}` does not end within {limit:?}",
                self.launch.arguments[0]
            )
        });
        ended.expect("a child can be waited for")
    }

    /// Starts it again after its end, with the same arguments, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.restart_without(&[]).await;
    }

    /// Like [`Process::restart`], without some variables of its environment.
    pub async fn restart_without(&mut self, variables: &[&str]) {
        self.launch
            .environment
            .retain(|(name, _)| !variables.contains(&name.as_str()));
        self.child = run(&self.executable, &self.launch, &self.log);
        self.ready().await;
    }

    /// Starts it again after its end, with the same arguments and environment, whatever becomes of
    /// it.
    pub fn respawn(&mut self) {
        self.child = run(&self.executable, &self.launch, &self.log);
    }

    /// Every line that it wrote, on standard output and standard error.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The log events with this code.
    pub fn log_events(&self, code: &str) -> Vec<LogEvent> {
        self.log.events(code)
    }

    /// Waits for a log event with this code.
    pub async fn logs(&self, code: &str) -> LogEvent {
        self.logs_with(code, []).await
    }

    /// Waits for a log event with this code, each of whose named fields contains the text.
    pub async fn logs_with<const N: usize>(
        &self,
        code: &str,
        fields: [(&str, &str); N],
    ) -> LogEvent {
        eventually(&format!("log event {code:?} with {fields:?}"), async || {
            self.log.events(code).into_iter().find(|event| {
                fields
                    .iter()
                    .all(|(name, text)| event.field(name).contains(text))
            })
        })
        .await
    }

    /// Waits until it reaches the fail point that its environment names.
    pub async fn reaches_fail_point(&self, name: &str) {
        self.prints(&format!("fail point {name} reached")).await;
    }

    /// Waits for a line that is not a log event of ours, such as the error that ends a process.
    pub async fn prints(&self, text: &str) -> String {
        self.log.line_with(text).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!(
                "--- the log of `tidings {}` ends so:",
                self.launch.arguments.join(" ")
            );
            log.iter()
                .skip(log.len().saturating_sub(40))
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // The error means that another test has done so.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client without TLS can be made")
});

/// The client of everything that a test asks by HTTP.
pub(crate) fn client() -> &'static reqwest::Client {
    &CLIENT
}

fn run(executable: &Path, launch: &Launch, log: &Log) -> Child {
    let mut command = Command::new(executable);
    command
        .args(&launch.arguments)
        .env("NATS_SERVER", NatsServer::executable());
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command.envs(launch.environment.iter().cloned());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("the executable can be started");
    log.collect(child.stdout.take().expect("standard output is piped"));
    log.collect(child.stderr.take().expect("standard error is piped"));
    child
}
