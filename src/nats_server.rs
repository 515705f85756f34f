//! The nats-server that `up` brings along: a child process with a token and a data folder of its
//! own.
//!
//! Its log goes into ours; it is started again on the same port when it dies; it dies with us, also
//! when we are killed: the kernel sees to that, and what is left over all the same is found by its
//! process id and ended at the next start.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidings_core::runtime::codes::log as codes;

use anyhow::{Context, bail, ensure};
use rustix::fs::FlockOperation;
use rustix::process::{
    Pid, Signal, kill_process, set_parent_process_death_signal, test_kill_process,
};
use serde::{Deserialize, Serialize};

mod executable;

/// The hidden subcommand under which we start ourselves to become nats-server.
pub const CHILD_COMMAND: &str = "become-nats-server";

/// How long it may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Between its death and its next start.
const START_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// What the data may take where the disk is larger, in bytes.
const LARGEST_STORE: u64 = 40 << 30;

/// How the tools find a running `up`: `nats.json` in the data folder, mode 0600.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// `nats://127.0.0.1:PORT`.
    pub url: String,
    /// The server's token.
    pub token: String,
    /// The server's process id.
    pub pid: u32,
}

/// A nats-server that we keep running.
pub struct NatsServer {
    /// How to reach it.
    pub contact: Contact,
    /// What it may store, in bytes.
    pub storage_limit: u64,
    stopping: Arc<AtomicBool>,
    supervisor: Option<std::thread::JoinHandle<()>>,
    /// Held for as long as we use the folder.
    _lock: File,
}

impl NatsServer {
    /// Starts it in a data folder, which is made where it is missing and locked.
    ///
    /// # Errors
    /// The folder can't be written or is in use, there is no nats-server, it is too old, or it does
    /// not start.
    pub fn start(
        executable: Option<&Path>,
        data: &Path,
        storage_limit: Option<u64>,
    ) -> anyhow::Result<Self> {
        let executable = executable::find(executable)?;
        let data = prepare_folder(data)?;
        let lock = lock(&data)?;
        end_stale(&data);
        let storage_limit = storage_limit.map_or_else(|| storage_limit_of(&data), Ok)?;
        let port = free_port()?;
        let token = format!("{:032x}", rand::random::<u128>());
        write_private(
            &data.join("nats.conf"),
            &configuration(&data, port, &token, storage_limit),
        )?;
        let mut contact = Contact {
            url: format!("nats://127.0.0.1:{port}"),
            token,
            pid: 0,
        };
        let stopping = Arc::new(AtomicBool::new(false));
        let (started, first) = std::sync::mpsc::channel();
        let supervisor = {
            let (stopping, contact) = (stopping.clone(), contact.clone());
            // The child's life is tied to the thread that starts it: this one lives as long as we
            // do.
            std::thread::spawn(move || supervise(&executable, &data, contact, &stopping, &started))
        };
        contact.pid = first.recv().context("nats-server was not started")??;
        Ok(Self {
            contact,
            storage_limit,
            stopping,
            supervisor: Some(supervisor),
            _lock: lock,
        })
    }

    /// Ends it and waits for its end.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// How to reach the nats-server of an `up` that runs with this data folder.
///
/// # Errors
/// There is none: a sentence that says what to do.
pub fn contact(data: &Path) -> anyhow::Result<Contact> {
    let path = data.join("nats.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: is `tidings up` running with --data {}? Else give --nats URL",
            path.display(),
            data.display()
        )
    })?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not what `tidings up` wrote", path.display()))
}

/// Becomes nats-server, so that it ends when our parent does.
///
/// # Errors
/// Only if it can't: else it does not return.
pub fn become_nats_server(
    parent: u32,
    executable: &Path,
    configuration: &Path,
) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie nats-server to its parent")?;
    ensure!(
        std::os::unix::process::parent_id() == parent,
        "the parent has ended meanwhile"
    );
    Err(Command::new(executable).arg("-c").arg(configuration).exec())
        .context("cannot start nats-server")
}

fn supervise(
    executable: &Path,
    data: &Path,
    mut contact: Contact,
    stopping: &AtomicBool,
    started: &std::sync::mpsc::Sender<anyhow::Result<u32>>,
) {
    while !stopping.load(Ordering::SeqCst) {
        let child = spawn(executable, &data.join("nats.conf")).and_then(|child| {
            contact.pid = child.id();
            write_private(&data.join("nats.json"), &serde_json::to_string(&contact)?)?;
            Ok(child)
        });
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(
                    code = codes::NATS_SERVER_NOT_STARTED,
                    error = format!("{error:#}"),
                    "cannot start nats-server, retrying"
                );
                if started.send(Err(error)).is_ok() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
        };
        let _ = started.send(Ok(child.id()));
        watch(&mut child, stopping);
    }
    let _ = fs::remove_file(data.join("nats.json"));
}

/// Waits for the child's end, or ends it.
fn watch(child: &mut Child, stopping: &AtomicBool) {
    let forward = child
        .stderr
        .take()
        .map(|log| std::thread::spawn(move || forward_log(BufReader::new(log))));
    loop {
        if stopping.load(Ordering::SeqCst) {
            end(child);
            break;
        }
        if let Ok(Some(status)) = child.try_wait() {
            tracing::error!(code = codes::NATS_SERVER_EXITED, %status, "nats-server exited, restarting it");
            std::thread::sleep(START_AGAIN_AFTER);
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some(forward) = forward {
        let _ = forward.join();
    }
}

fn end(child: &mut Child) {
    signal(child.id(), Signal::TERM);
    let begin = Instant::now();
    while begin.elapsed() < END_WITHIN {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(executable: &Path, configuration: &Path) -> anyhow::Result<Child> {
    let ourselves = std::env::current_exe().context("cannot find our own executable")?;
    Command::new(ourselves)
        .args([CHILD_COMMAND, &std::process::id().to_string()])
        .args([executable, configuration])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal is ours to pass on.
        .process_group(0)
        .spawn()
        .context("cannot start nats-server")
}

/// Its lines, as lines of ours: `[pid] date time [LVL] text`.
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
                tracing::error!(target: "nats_server", code = codes::NATS_SERVER_LOG, line = %text, "nats-server")
            }
            "WRN" => {
                tracing::warn!(target: "nats_server", code = codes::NATS_SERVER_LOG, line = %text, "nats-server")
            }
            "INF" => {
                tracing::debug!(target: "nats_server", code = codes::NATS_SERVER_LOG, line = %text, "nats-server")
            }
            _ => {
                tracing::info!(target: "nats_server", code = codes::NATS_SERVER_LOG, %line, "nats-server")
            }
        }
    }
}

fn prepare_folder(data: &Path) -> anyhow::Result<PathBuf> {
    let unwritable = || {
        format!(
            "the data folder {} can't be used: choose another with --data",
            data.display()
        )
    };
    fs::create_dir_all(data).with_context(unwritable)?;
    let probe = data.join(".writable");
    fs::write(&probe, b"tidings").with_context(unwritable)?;
    let _ = fs::remove_file(&probe);
    data.canonicalize().with_context(unwritable)
}

fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "the data folder {} is in use by another `tidings up`: choose another with --data",
            data.display()
        );
    }
    Ok(file)
}

/// Ends a nats-server that an earlier run left on this folder.
fn end_stale(data: &Path) {
    let Ok(stale) = contact(data) else { return };
    let command_line = fs::read(format!("/proc/{}/cmdline", stale.pid)).unwrap_or_default();
    let is_ours =
        String::from_utf8_lossy(&command_line).contains(&*data.join("nats.conf").to_string_lossy());
    if !is_ours {
        return;
    }
    tracing::warn!(
        code = codes::NATS_SERVER_STALE,
        pid = stale.pid,
        "stopping the nats-server of an earlier run"
    );
    signal(stale.pid, Signal::TERM);
    let begin = Instant::now();
    while begin.elapsed() < END_WITHIN && is_running(stale.pid) {
        std::thread::sleep(Duration::from_millis(20));
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

/// Three quarters of what is free, but not more than streams can use.
fn storage_limit_of(data: &Path) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(data)
        .with_context(|| format!("cannot see how much room there is in {}", data.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(
        free >= 64 << 20,
        "the data folder {} is on a disk with less than 64 MiB left: choose another with --data",
        data.display()
    );
    Ok((free / 4 * 3).min(LARGEST_STORE))
}

/// A port that is free now; whoever takes it before us shows when nats-server starts.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn configuration(data: &Path, port: u16, token: &str, storage_limit: u64) -> String {
    let store = serde_json::Value::from(data.join("jetstream").to_string_lossy());
    format!(
        "# Written by `tidings up`; changes are lost.\n\
         listen: \"127.0.0.1:{port}\"\n\
         authorization {{ token: \"{token}\" }}\n\
         max_payload: 8MB\n\
         jetstream {{\n  store_dir: {store}\n  max_file_store: {storage_limit}\n  max_memory_store: 64MB\n  sync_interval: \"1s\"\n}}\n"
    )
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let unwritable = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(unwritable)?;
    file.set_permissions(Permissions::from_mode(0o600))
        .with_context(unwritable)?;
    file.write_all(text.as_bytes()).with_context(unwritable)
}
