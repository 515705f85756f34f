//! Runs the executable: commands that end, and commands that print until they are stopped.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tidings_rig::{NatsServer, PATIENCE};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::TIDINGS;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The lines of its output.
    ///
    /// # Panics
    /// The command failed.
    pub fn lines(&self) -> Vec<&str> {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stdout.lines().collect()
    }

    /// Its output, with one JSON value per line.
    ///
    /// # Panics
    /// The command failed.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.lines()
            .into_iter()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    /// Asserts that it failed, with an error on standard error that contains each of these texts.
    pub fn assert_error_names(&self, texts: &[&str]) {
        assert!(self.status.is_some_and(|status| status != 0), "{self:?}");
        assert_eq!(self.stdout, "", "errors go to standard error");
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "the error names {text:?}: {}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

/// Runs `tidings` until it ends.
pub async fn tidings(arguments: &[&str]) -> Ended {
    tidings_with(&[], arguments).await
}

/// Like [`tidings`], with more environment variables.
pub async fn tidings_with(environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = command(arguments);
    command.envs(environment.iter().copied());
    let output = timeout(PATIENCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("`tidings {}` does not end", arguments.join(" ")));
    let output = output.expect("the executable can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is text");
    Ended {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the rig's paths are text")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(TIDINGS);
    command
        .args(arguments)
        .env("NATS_SERVER", NatsServer::executable())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A command that prints lines until it is stopped.
pub struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    /// Starts `tidings`.
    pub fn tidings(arguments: &[&str]) -> Self {
        Self::start(command(arguments))
    }

    /// Starts any command.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the executable can be started");
        let lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        Self { child, lines }
    }

    /// The next line of its output.
    pub async fn next(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line())
            .await
            .expect("another line is printed in time");
        line.expect("the output is text")
            .expect("the command still runs")
    }

    /// The next lines, up to and including the first that contains `last`.
    pub async fn until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.next().await);
            if lines.last().is_some_and(|line| line.contains(last)) {
                return lines;
            }
        }
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .expect("the command still runs");
        kill_process(id, Signal::INT).expect("a child process accepts signals");
    }

    /// Reads the rest of its output until it ends.
    pub async fn ended(mut self) -> ExitStatus {
        let end = async {
            while let Ok(Some(_)) = self.lines.next_line().await {}
            self.child
                .wait()
                .await
                .expect("a child process has an exit status")
        };
        timeout(PATIENCE, end).await.expect("the command ends")
    }

    /// Kills it, as `kill -9` does, and returns the lines that it printed before.
    pub async fn kill(mut self) -> Vec<String> {
        self.child
            .kill()
            .await
            .expect("a child process can be killed");
        let mut lines = Vec::new();
        while let Ok(Some(line)) = self.lines.next_line().await {
            lines.push(line);
        }
        lines
    }

    /// Closes its output, as `head` does after its last line.
    pub fn close(self) -> Child {
        self.child
    }
}
