//! The embedded nats-server of `tidings up` and of an edge (`tidings ingest --edge`): a child
//! process with its own token and data folder.
//!
//! Tidings forwards its log lines, and restarts it on the same port if it exits, or if it keeps a
//! write error after its disk has room again. The kernel kills it when Tidings dies. If that fails,
//! the next start finds it by its process id and ends it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tidings_core::runtime::config::Flag;

use crate::flags::flag;

mod child;
mod executable;
mod folder;
mod restart;

pub use child::become_nats_server;
pub use restart::Restarter;

/// The hidden subcommand that turns a child process into nats-server.
pub const CHILD_COMMAND: &str = "become-nats-server";

/// How tools reach the nats-server of a running `up` or edge. Stored as `nats.json` in the data
/// folder, with mode 0600.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// The URL of the server, `nats://127.0.0.1:PORT`.
    pub url: String,
    /// The token that the server requires.
    pub token: String,
    /// The process id of the server.
    pub pid: u32,
}

impl Contact {
    /// The settings of a connection to it. `origin` is where they come from.
    pub fn flags(&self, origin: &str) -> [Flag; 2] {
        [("nats.url", &self.url), ("nats.token", &self.token)]
            .map(|(key, value)| flag(origin, key, value))
    }
}

/// A supervised nats-server.
pub struct NatsServer {
    /// How to reach it.
    pub contact: Contact,
    /// The storage limit of JetStream, in bytes.
    pub storage_limit: u64,
    data: PathBuf,
    stopping: Arc<AtomicBool>,
    restart: Arc<AtomicBool>,
    supervisor: Option<std::thread::JoinHandle<()>>,
    /// Locks the data folder until this is dropped.
    _lock: File,
}

impl NatsServer {
    /// Starts a nats-server in a data folder, which is created if missing. Its garbage collector
    /// aims at using at most `memory` bytes.
    ///
    /// # Errors
    /// The folder cannot be written or is in use, no nats-server is found, it is too old, or it
    /// does not start.
    pub fn start(
        executable: Option<&Path>,
        data: &Path,
        storage_limit: Option<u64>,
        memory: u64,
    ) -> anyhow::Result<Self> {
        let executable = executable::find(executable)?;
        let data = folder::prepare(data)?;
        let lock = folder::lock(&data)?;
        child::end_stale(&data);
        let storage_limit = storage_limit.map_or_else(|| folder::storage_limit(&data), Ok)?;
        let port = free_port()?;
        let token = format!("{:032x}", rand::random::<u128>());
        folder::write_private(
            &data.join("nats.conf"),
            &configuration(&data, port, &token, storage_limit),
        )?;
        let mut contact = Contact {
            url: format!("nats://127.0.0.1:{port}"),
            token,
            pid: 0,
        };
        let (stopping, restart) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (started, first) = std::sync::mpsc::channel();
        let supervisor = {
            let (stopping, restart) = (stopping.clone(), restart.clone());
            let (data, contact) = (data.clone(), contact.clone());
            // The kernel ties a child to the thread that starts it, so this thread must live as
            // long as the process.
            std::thread::spawn(move || {
                let stop = child::Requests {
                    stopping: &stopping,
                    restart: &restart,
                };
                child::supervise(&executable, &data, memory, contact, &stop, &started);
            })
        };
        contact.pid = first.recv().context("cannot start nats-server")??;
        Ok(Self {
            contact,
            storage_limit,
            data,
            stopping,
            restart,
            supervisor: Some(supervisor),
            _lock: lock,
        })
    }

    /// What restarts the server while it keeps write errors.
    pub fn restarter(&self) -> Restarter {
        Restarter {
            data: self.data.clone(),
            requested: self.restart.clone(),
        }
    }

    /// Ends the server and waits until it has exited.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// How to reach the nats-server of the `tidings up` that uses this data folder.
///
/// # Errors
/// No `tidings up` uses the folder.
pub fn contact(data: &Path) -> anyhow::Result<Contact> {
    let path = data.join("nats.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: start `tidings up` with --data {}, or pass --nats URL",
            path.display(),
            data.display()
        )
    })?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} was not written by `tidings up`", path.display()))
}

/// Returns a free port. If another process takes the port first, nats-server logs an error.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn configuration(data: &Path, port: u16, token: &str, storage_limit: u64) -> String {
    let store = serde_json::Value::from(data.join("jetstream").to_string_lossy());
    format!(
        "# Written by Tidings; changes are lost.\n\
         listen: \"127.0.0.1:{port}\"\n\
         authorization {{ token: \"{token}\" }}\n\
         max_payload: 8MB\n\
         jetstream {{\n\
         \x20 store_dir: {store}\n\
         \x20 max_file_store: {storage_limit}\n\
         \x20 max_memory_store: 64MB\n\
         \x20 sync_interval: \"1s\"\n\
         }}\n"
    )
}
