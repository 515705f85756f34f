//! Runs Tidings as its users do: real processes on a real nats-server, with scripted receivers as
//! providers.
//!
//! ```text
//!  test ── post ─► ingest ─► nats-server ─► router ─► nats-server ─► worker ── POST ─► Receiver
//!    └──────────────────── Ledger: posted = received + dead, id by id ──────────────────────┘
//! ```
//!
//! A test waits for conditions with [`eventually`], never for time to pass. Dropping a [`Rig`] or a
//! [`Process`] kills what it started; when the test fails, the last lines of each process's log are
//! printed.

mod authority;
mod event;
mod forge;
mod kubernetes;
mod ledger;
mod log;
mod nats;
mod nats_cluster;
mod port;
mod poster;
mod process;
mod receiver;
mod rules;
mod wait;

pub use authority::Authority;
pub use event::event;
pub use forge::{Forge, LOGIN, Refusal, Status};
pub use kubernetes::{Asked, KubeApiServer, Said, Snapshot};
pub use ledger::{Balance, Ledger};
pub use log::LogEvent;
pub use nats::NatsServer;
pub use nats_cluster::NatsCluster;
pub use port::free_port;
pub use poster::{Posted, post_steadily};
pub use process::{Answer, Process, Role};
pub use receiver::{Received, Receiver, Reply};
pub use rules::{Manifest, NAMESPACE, Rules, alert, provider};
pub use wait::{PATIENCE, eventually, eventually_within};

use std::path::{Path, PathBuf};

use async_nats::jetstream;
use tempfile::TempDir;
use tidings_core::{DeadLetter, Message, wire};

/// A nats-server with an empty store, or a cluster of them, and a folder of rules.
pub struct Rig {
    executable: PathBuf,
    folder: TempDir,
    nats: Option<NatsServer>,
    url: String,
    rules: Rules,
}

impl Rig {
    /// Starts a nats-server; `executable` is the tidings under test,
    /// `env!("CARGO_BIN_EXE_tidings")` in a test.
    pub async fn start(executable: &str) -> Self {
        Self::start_with(executable, |_| String::new()).await
    }

    /// The same, with more lines in nats-server's configuration, made for the rig's folder: `tls {
    /// … }`.
    pub async fn start_with(executable: &str, configuration: impl FnOnce(&Path) -> String) -> Self {
        let folder = new_folder();
        let nats = NatsServer::start(folder.path(), &configuration(folder.path())).await;
        let (url, rules) = (
            nats.url().to_owned(),
            Rules::in_folder(folder.path().join("rules")),
        );
        Self {
            executable: executable.into(),
            folder,
            nats: Some(nats),
            url,
            rules,
        }
    }

    /// A rig on a cluster of three servers, with three copies of each stream.
    pub async fn start_on_cluster(executable: &str) -> (Self, NatsCluster) {
        let folder = new_folder();
        let cluster = NatsCluster::start(folder.path()).await;
        let rules = Rules::in_folder(folder.path().join("rules"));
        (
            Self {
                executable: executable.into(),
                folder,
                nats: None,
                url: cluster.url(),
                rules,
            },
            cluster,
        )
    }

    /// A folder of this rig's own, removed at its end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The rules that all roles of this rig read.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The nats-server that the roles share, unless they share a cluster.
    pub fn nats(&mut self) -> &mut NatsServer {
        self.nats.as_mut().expect("the rig has one nats-server")
    }

    /// Where clients of that server connect to; of a cluster all servers, with commas between them.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts a role and waits until it says that it is ready.
    pub async fn run(&self, role: Role) -> Process {
        let process = self.spawn(role);
        process.ready().await;
        process
    }

    /// Starts processes side by side, and waits until all of them are ready.
    pub async fn run_all<const N: usize>(&self, roles: [Role; N]) -> [Process; N] {
        let processes = roles.map(|role| self.spawn(role));
        for process in &processes {
            process.ready().await;
        }
        processes
    }

    /// Starts a role.
    pub fn spawn(&self, role: Role) -> Process {
        let role = if self.nats.is_none() {
            role.env("TIDINGS_NATS__REPLICAS", "3")
        } else {
            role
        };
        Process::spawn(
            &self.executable,
            role.arguments(&self.url, self.rules.folder(), self.folder.path()),
        )
    }

    /// All dead letters, oldest first.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let Ok(mut stream) = self.jetstream().await.get_stream("DEAD").await else {
            return Vec::new();
        };
        let state = stream
            .info()
            .await
            .expect("the server tells a stream's state")
            .state
            .clone();
        let mut letters = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                letters.push(DeadLetter::decode(message.payload).expect("DEAD holds dead letters"));
            }
        }
        letters
    }

    /// What has been told of attempts, oldest first.
    pub async fn outcomes(&self) -> Vec<wire::Outcome> {
        let mut stream = self
            .jetstream()
            .await
            .get_stream("OUTCOMES")
            .await
            .expect("the roles have made it");
        let last = stream
            .info()
            .await
            .expect("the server tells a stream's state")
            .state
            .last_sequence;
        let mut outcomes = Vec::new();
        for sequence in 1..=last {
            let message = stream
                .get_raw_message(sequence)
                .await
                .expect("nothing has left it");
            outcomes.push(wire::Outcome::decode(message.payload).expect("OUTCOMES holds outcomes"));
        }
        outcomes
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
        let servers: Vec<String> = self.url.split(',').map(str::to_owned).collect();
        let client = async_nats::connect(servers)
            .await
            .expect("the rig's nats-server takes connections");
        jetstream::new(client)
    }
}

fn new_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidings-rig-")
        .tempdir()
        .expect("the temporary folder is writable")
}
