//! Starts, restarts and ends the nats-server process, and forwards its log.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{
    Pid, Signal, kill_process, set_parent_process_death_signal, test_kill_process,
};
use tidings_core::runtime::codes::log as codes;

use super::folder::write_private;
use super::{CHILD_COMMAND, Contact};

/// How long nats-server may take to exit before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a nats-server that exited is restarted.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// What the other threads ask the supervisor for.
pub struct Requests<'a> {
    /// To end nats-server.
    pub stopping: &'a AtomicBool,
    /// To restart it once.
    pub restart: &'a AtomicBool,
}

/// Keeps nats-server running until `stopping`. Sends the first process id to `started`, or the
/// error if the first start fails.
pub fn supervise(
    executable: &Path,
    data: &Path,
    memory: u64,
    mut contact: Contact,
    requests: &Requests<'_>,
    started: &Sender<anyhow::Result<u32>>,
) {
    while !requests.stopping.load(Ordering::SeqCst) {
        let child = spawn(executable, &data.join("nats.conf"), memory).and_then(|mut child| {
            contact.pid = child.id();
            let contact = serde_json::to_string(&contact)?;
            // Without the file nobody would find a server that is left behind.
            let written = write_private(&data.join("nats.json"), &contact);
            if written.is_err() {
                end(&mut child);
            }
            written.map(|()| child)
        });
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(
                    code = codes::NATS_SERVER_NOT_STARTED,
                    error = format!("{error:#}"),
                    "cannot start nats-server"
                );
                if started.send(Err(error)).is_ok() {
                    return;
                }
                sleep(Duration::from_secs(1));
                continue;
            }
        };
        let _ = started.send(Ok(child.id()));
        watch(&mut child, requests);
    }
    let _ = fs::remove_file(data.join("nats.json"));
}

/// Returns when the child has exited, by itself or because of a request.
fn watch(child: &mut Child, requests: &Requests<'_>) {
    let forward = child
        .stderr
        .take()
        .map(|log| std::thread::spawn(move || forward_log(BufReader::new(log))));
    loop {
        let restart = requests.restart.swap(false, Ordering::SeqCst);
        if restart || requests.stopping.load(Ordering::SeqCst) {
            end(child);
            break;
        }
        if let Ok(Some(status)) = child.try_wait() {
            tracing::error!(
                code = codes::NATS_SERVER_EXITED,
                %status,
                "nats-server exited, restarting it"
            );
            sleep(RESTART_DELAY);
            break;
        }
        sleep(Duration::from_millis(50));
    }
    if let Some(forward) = forward {
        let _ = forward.join();
    }
}

fn end(child: &mut Child) {
    signal(child.id(), Signal::TERM);
    let begin = Instant::now();
    while begin.elapsed() < END_TIMEOUT {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(executable: &Path, configuration: &Path, memory: u64) -> anyhow::Result<Child> {
    let tidings = std::env::current_exe().context("cannot find the path of this executable")?;
    Command::new(tidings)
        .args([CHILD_COMMAND, &std::process::id().to_string()])
        .args([executable, configuration])
        .env("GOMEMLIMIT", memory.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal must reach nats-server only after the roles have stopped.
        .process_group(0)
        .spawn()
        .context("cannot start nats-server")
}

/// Replaces this process by nats-server. The kernel kills it when the parent dies.
///
/// # Errors
/// nats-server cannot be started. Does not return otherwise.
pub fn become_nats_server(
    parent: u32,
    executable: &Path,
    configuration: &Path,
) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie nats-server to its parent process")?;
    // The parent may have died before the line above.
    ensure!(
        std::os::unix::process::parent_id() == parent,
        "the parent process has exited"
    );
    Err(Command::new(executable).arg("-c").arg(configuration).exec())
        .context("cannot start nats-server")
}

/// Logs each line of nats-server, `[pid] date time [LVL] text`, at the level for LVL.
fn forward_log(lines: impl BufRead) {
    for line in lines.lines().map_while(Result::ok) {
        let (head, text) = line
            .split_once("] ")
            .map_or(("", line.as_str()), |(head, rest)| {
                rest.split_once("] ")
                    .map_or((head, rest), |(level, text)| (level, text))
            });
        match head.rsplit('[').next().unwrap_or_default() {
            "ERR" | "FTL" => {
                tracing::error!(
                    target: "nats_server",
                    code = codes::NATS_SERVER_LOG,
                    line = %text,
                    "nats-server"
                );
            }
            "WRN" => {
                tracing::warn!(
                    target: "nats_server",
                    code = codes::NATS_SERVER_LOG,
                    line = %text,
                    "nats-server"
                );
            }
            "INF" => {
                tracing::debug!(
                    target: "nats_server",
                    code = codes::NATS_SERVER_LOG,
                    line = %text,
                    "nats-server"
                );
            }
            _ => {
                tracing::info!(
                    target: "nats_server",
                    code = codes::NATS_SERVER_LOG,
                    %line,
                    "nats-server"
                );
            }
        }
    }
}

/// Ends a nats-server that an earlier run left in this folder.
pub fn end_stale(data: &Path) {
    let Ok(stale) = super::contact(data) else {
        return;
    };
    let command_line = fs::read(format!("/proc/{}/cmdline", stale.pid)).unwrap_or_default();
    let configuration: PathBuf = data.join("nats.conf");
    // The process id may belong to another process by now.
    if !String::from_utf8_lossy(&command_line).contains(&*configuration.to_string_lossy()) {
        return;
    }
    tracing::warn!(
        code = codes::NATS_SERVER_STALE,
        pid = stale.pid,
        "stopping the nats-server of an earlier run"
    );
    signal(stale.pid, Signal::TERM);
    let begin = Instant::now();
    while begin.elapsed() < END_TIMEOUT && is_running(stale.pid) {
        sleep(Duration::from_millis(20));
    }
    signal(stale.pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn is_running(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| test_kill_process(pid).is_ok())
}
