//! Runs Tidings as its users do: real processes on a real nats-server, with scripted receivers as providers.
//!
//! ```text
//!  test ── post ─► ingest ─► nats-server ─► router ─► nats-server ─► worker ── POST ─► Receiver
//!    └──────────────────── Ledger: posted = received + dead, id by id ──────────────────────┘
//! ```
//!
//! A test waits for conditions with [`eventually`], never for time to pass. Dropping a [`Rig`] or a [`Process`] kills
//! what it started; when the test fails, the last lines of each process's log are printed.

mod authority;
mod event;
mod ledger;
mod nats;
mod port;
mod process;
mod receiver;
mod rules;
mod wait;

pub use authority::Authority;
pub use event::event;
pub use ledger::{Balance, Ledger};
pub use nats::NatsServer;
pub use port::free_port;
pub use process::{Answer, Process, Role};
pub use receiver::{Received, Receiver, Reply};
pub use rules::{Manifest, NAMESPACE, Rules, alert, provider};
pub use wait::{PATIENCE, eventually, eventually_within};

use std::path::{Path, PathBuf};

use async_nats::jetstream;
use tempfile::TempDir;
use tidings_core::{DeadLetter, Message};

/// A nats-server with an empty store, and a folder of rules.
pub struct Rig {
    executable: PathBuf,
    folder: TempDir,
    nats: NatsServer,
    rules: Rules,
}

impl Rig {
    /// Starts a nats-server; `executable` is the tidings under test, `env!("CARGO_BIN_EXE_tidings")` in a test.
    pub async fn start(executable: &str) -> Self {
        Self::start_with(executable, |_| String::new()).await
    }

    /// The same, with more lines in nats-server's configuration, made for the rig's folder: `tls { … }`.
    pub async fn start_with(executable: &str, configuration: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("tidings-rig-").tempdir().expect("the temporary folder is writable");
        let nats = NatsServer::start(folder.path(), &configuration(folder.path())).await;
        let rules = Rules::in_folder(folder.path().join("rules"));
        Self { executable: executable.into(), folder, nats, rules }
    }

    /// A folder of this rig's own, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The rules that all roles of this rig read.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The nats-server that the roles share.
    pub fn nats(&mut self) -> &mut NatsServer {
        &mut self.nats
    }

    /// Where clients of that server connect to.
    pub fn url(&self) -> &str {
        self.nats.url()
    }

    /// Starts a role and waits until it says that it is ready.
    pub async fn run(&self, role: Role) -> Process {
        let process = self.spawn(role);
        process.ready().await;
        process
    }

    /// Starts a role.
    pub fn spawn(&self, role: Role) -> Process {
        Process::spawn(&self.executable, role.arguments(self.nats.url(), self.rules.folder(), self.folder.path()))
    }

    /// All dead letters, oldest first.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let Ok(mut stream) = self.jetstream().await.get_stream("DEAD").await else {
            return Vec::new();
        };
        let state = stream.info().await.expect("the server tells a stream's state").state.clone();
        let mut letters = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                letters.push(DeadLetter::decode(message.payload).expect("DEAD holds dead letters"));
            }
        }
        letters
    }

    /// Waits until no delivery is ready, in work or parked.
    pub async fn drained(&self) {
        let jetstream = self.jetstream().await;
        eventually("no delivery is left in DELIVERIES", async || {
            let mut stream = jetstream.get_stream("DELIVERIES").await.ok()?;
            (stream.info().await.ok()?.state.messages == 0).then_some(())
        })
        .await;
    }

    /// A client of the rig's nats-server.
    pub async fn jetstream(&self) -> jetstream::Context {
        let client = async_nats::connect(self.nats.url()).await.expect("the rig's nats-server takes connections");
        jetstream::new(client)
    }
}
