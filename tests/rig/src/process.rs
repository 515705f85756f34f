//! Processes of `tidings`.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::cable::Cable;
use crate::limited_disk::{LimitedDisk, launched};
use crate::log::{Log, LogEvent};
use crate::memory_limit::MemoryLimit;
use crate::nats::{NatsServer, signal};
use crate::port::free_port;
use crate::wait::{PATIENCE, eventually};

/// A subcommand with its arguments and environment.
#[derive(Clone, Debug)]
pub struct Role {
    subcommand: &'static str,
    shares_server: bool,
    /// Another address of the rig's server.
    nats: Option<String>,
    kubeconfig: Option<PathBuf>,
    extra: Vec<String>,
    environment: Vec<(String, String)>,
    memory: Option<u64>,
    launcher: Vec<String>,
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

    /// `tidings bridge`
    pub fn bridge() -> Self {
        Self::new("bridge")
    }

    /// `tidings up` on the rig's nats-server.
    pub fn up() -> Self {
        Self::new("up")
    }

    /// `tidings up` with its own nats-server.
    pub fn up_with_own_server() -> Self {
        Self {
            shares_server: false,
            ..Self::new("up")
        }
    }

    /// `tidings ingest --edge` with its data in a folder, for the hub at this address.
    pub fn edge(hub: &str, data: &Path) -> Self {
        let edge = Self {
            nats: Some(hub.to_owned()),
            ..Self::ingest()
        };
        edge.args(["--edge", "--data", &data.display().to_string()])
    }

    fn new(subcommand: &'static str) -> Self {
        Self {
            subcommand,
            shares_server: true,
            nats: None,
            kubeconfig: None,
            extra: Vec::new(),
            environment: Vec::new(),
            memory: None,
            launcher: Vec::new(),
        }
    }

    /// Limits the memory of the process and its children, in bytes.
    pub fn within_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Runs where a limited disk is mounted.
    pub fn on(mut self, disk: &LimitedDisk) -> Self {
        self.launcher = disk.launcher();
        self
    }

    /// Connects to the rig's nats-server over a cable.
    pub fn over(mut self, cable: &Cable) -> Self {
        self.nats = Some(cable.url());
        self
    }

    /// Reads rules from the cluster of a kubeconfig instead of the rig's folder.
    pub fn in_cluster(mut self, kubeconfig: &Path) -> Self {
        self.kubeconfig = Some(kubeconfig.to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.extra.extend(arguments.map(str::to_owned));
        self
    }

    /// Adds an environment variable.
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
            push("--nats", self.nats.unwrap_or_else(|| nats.to_owned()));
        } else {
            push("--data", folder.join("data").display().to_string());
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            push("--kubeconfig", kubeconfig.display().to_string());
        }
        if !matches!(self.subcommand, "ingest" | "bridge") {
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
            memory: self.memory,
            launcher: self.launcher,
            admin,
            listen,
        }
    }
}

/// How a process is started and restarted.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    memory: Option<u64>,
    /// The command that runs the executable, if any.
    launcher: Vec<String>,
    admin: u16,
    listen: u16,
}

/// A process of the executable under test. Dropping it kills it.
pub struct Process {
    executable: PathBuf,
    launch: Launch,
    child: Child,
    memory: Option<MemoryLimit>,
    log: Log,
}

/// The response of an HTTP endpoint of Tidings.
#[derive(Debug)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub body: String,
}

impl HttpResponse {
    async fn read(response: reqwest::Response) -> Result<Self, reqwest::Error> {
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await?,
        })
    }

    /// The field `code` of an error; empty for any other response.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The problem of a part in a response of `/readyz`; `None` if it has no problem.
    pub fn problem(&self, part: &str) -> Option<&str> {
        let mut lines = self.body.lines();
        lines.find_map(|line| line.strip_prefix(part)?.strip_prefix(": "))
    }
}

impl Process {
    pub(crate) fn spawn(executable: &Path, launch: Launch) -> Self {
        let log = Log::default();
        let memory = launch.memory.map(MemoryLimit::new);
        let child = run(executable, &launch, memory.as_ref(), &log);
        Self {
            executable: executable.to_owned(),
            launch,
            child,
            memory,
            log,
        }
    }

    /// Waits until it is ready.
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

    /// Waits until it is not ready because of a part whose problem contains `text`.
    pub async fn is_not_ready(&self, part: &str, text: &str) {
        eventually(&format!("{part:?} is not ready: {text}"), async || {
            let readiness = self.readiness_if_up().await?;
            let is_expected = readiness.problem(part)?.contains(text);
            (readiness.status == 503 && is_expected).then_some(())
        })
        .await;
    }

    /// The response of `/readyz`.
    pub async fn readiness(&self) -> HttpResponse {
        self.readiness_if_up().await.expect("/readyz responds")
    }

    /// The response of `/readyz`; `None` while the port is closed.
    pub async fn readiness_if_up(&self) -> Option<HttpResponse> {
        let response = CLIENT
            .get(format!("{}/readyz", self.admin()))
            .send()
            .await
            .ok()?;
        HttpResponse::read(response).await.ok()
    }

    /// The response of a path of the admin address, such as `/scaling`.
    pub async fn get(&self, path: &str) -> HttpResponse {
        get(&format!("{}{path}", self.admin())).await
    }

    /// The id of the running process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("a running process has an id")
    }

    /// The most memory that it and its children used, in bytes. Needs [`Role::within_memory`].
    pub fn peak_memory(&self) -> u64 {
        let memory = self.memory.as_ref();
        memory.expect("the role has a memory limit").peak()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        let ended = self.child.try_wait();
        ended.expect("a child process can be asked").is_none()
    }

    /// The URL of `/livez`, `/readyz` and `/metrics`.
    pub fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.launch.admin)
    }

    /// The URL for events.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.launch.listen)
    }

    /// Posts an event.
    ///
    /// # Errors
    /// There was no response, so the event may be stored or not.
    pub async fn post(&self, event: &Value) -> Result<HttpResponse, reqwest::Error> {
        self.post_text(event.to_string()).await
    }

    /// Posts a body that need not be an event.
    ///
    /// # Errors
    /// There was no response.
    pub async fn post_text(&self, body: String) -> Result<HttpResponse, reqwest::Error> {
        let response = CLIENT
            .post(self.address())
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        HttpResponse::read(response).await
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.admin());
        CLIENT
            .get(url)
            .send()
            .await
            .expect("/metrics responds")
            .text()
            .await
            .expect("/metrics responds with text")
    }

    /// The sum of a metric's samples whose line contains `labels`; 0 if there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics().await;
        let samples = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(labels));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until the sum of a metric's samples is `expected`: a process may count something a
    /// moment after it answered.
    ///
    /// # Panics
    /// After [`PATIENCE`], with the sum.
    pub async fn counts(&self, name: &str, labels: &str, expected: f64) {
        let is_equal = |sum: f64| (sum - expected).abs() < f64::EPSILON;
        self.counts_until(name, labels, is_equal).await;
    }

    /// Waits until the sum of a metric's samples is above 0.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub async fn counts_any(&self, name: &str, labels: &str) {
        self.counts_until(name, labels, |sum| sum > 0.0).await;
    }

    async fn counts_until(&self, name: &str, labels: &str, is_expected: impl Fn(f64) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let sum = self.metric(name, labels).await;
            if is_expected(sum) {
                return;
            }
            assert!(Instant::now() < end, "{name} of {labels:?} is {sum}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it, as `kill -9` does.
    pub async fn kill(&mut self) {
        self.child
            .kill()
            .await
            .expect("a child process can be killed");
    }

    /// Stops the process like a machine that hangs.
    pub fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Resumes the process after [`Process::freeze`].
    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Sends SIGTERM, as Kubernetes does, and waits until it has ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        signal(&self.child, Signal::TERM);
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(crate::PATIENCE).await
    }

    /// Like [`Process::ended`], with another limit.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| {
            panic!(
                "`tidings {}` does not end within {limit:?}",
                self.launch.arguments[0]
            )
        });
        ended.expect("a child process can be waited for")
    }

    /// Restarts an ended process with the same arguments, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.restart_without(&[]).await;
    }

    /// Like [`Process::restart`], without these environment variables.
    pub async fn restart_without(&mut self, variables: &[&str]) {
        self.launch
            .environment
            .retain(|(name, _)| !variables.contains(&name.as_str()));
        self.child = run(
            &self.executable,
            &self.launch,
            self.memory.as_ref(),
            &self.log,
        );
        self.ready().await;
    }

    /// Ends it as Kubernetes does, and starts it again by another executable.
    ///
    /// # Panics
    /// It does not end cleanly.
    pub async fn replace(&mut self, executable: &Path) {
        let status = self.terminate().await;
        assert!(status.success(), "it ends cleanly on SIGTERM: {status}");
        executable.clone_into(&mut self.executable);
        self.restart().await;
    }

    /// Restarts an ended process with the same arguments and environment, without waiting.
    pub fn respawn(&mut self) {
        self.child = run(
            &self.executable,
            &self.launch,
            self.memory.as_ref(),
            &self.log,
        );
    }

    /// Every line of its standard output and standard error.
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

    /// Waits for a log event with this code, and with each text in its field.
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

    /// Waits for a line that is not a log event, such as the error that ends a process.
    pub async fn prints(&self, text: &str) -> String {
        self.log.line_with(text).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!(
                "--- the end of the log of `tidings {}`:",
                self.launch.arguments.join(" ")
            );
            log.iter()
                .skip(log.len().saturating_sub(40))
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // The error means that another test installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .expect("the client's settings are valid")
});

/// The response of any address, such as the monitoring port of a nats-server.
///
/// # Panics
/// There is no response.
pub async fn get(url: &str) -> HttpResponse {
    let response = CLIENT.get(url).send().await.expect("the address responds");
    HttpResponse::read(response)
        .await
        .expect("the response is complete")
}

/// The HTTP client of all tests.
pub(crate) fn client() -> &'static reqwest::Client {
    &CLIENT
}

fn run(executable: &Path, launch: &Launch, memory: Option<&MemoryLimit>, log: &Log) -> Child {
    let mut command = match memory.and_then(MemoryLimit::processes) {
        None => launched(&launch.launcher, executable),
        Some(group) => {
            // The shell joins the group and becomes the process.
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
            shell.arg(group).arg(executable);
            shell
        }
    };
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
    if let (Some(memory), Some(id)) = (memory, child.id()) {
        memory.supervise(id);
    }
    log.collect(child.stdout.take().expect("standard output is piped"));
    log.collect(child.stderr.take().expect("standard error is piped"));
    child
}
