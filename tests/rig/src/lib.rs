//! Runs Tidings as its users do: real processes on a real nats-server, with scripted receivers as
//! providers.
//!
//! ```text
//!  test ── post ─► ingest ─► nats-server ─► router ─► nats-server ─► worker ── POST ─► Receiver
//!    └──────────────────── Ledger: posted = received + dead, id by id ──────────────────────┘
//! ```
//!
//! A test waits for conditions with [`eventually`], never for time to pass. Dropping a [`Rig`] or a
//! [`Process`] kills what it started. Dropping a [`Rig`] also asserts that no delivery or event is
//! left on its bus. A test that fails prints the end of each process's log.

mod authority;
mod cable;
mod event;
mod forge;
mod kubernetes;
mod ledger;
mod limited_disk;
mod log;
mod memory_limit;
mod nats;
mod nats_cluster;
mod percentile;
mod port;
mod poster;
mod process;
mod receiver;
mod rules;
mod tool;
mod unfinished;
mod wait;

pub use authority::{Authority, self_signed};
pub use cable::Cable;
pub use event::event;
pub use forge::{Forge, LOGIN, Rejection, Status};
pub use kubernetes::{AuditedRequest, KubeApiServer, KubectlOutput, Snapshot};
pub use ledger::{Balance, Ledger};
pub use limited_disk::LimitedDisk;
pub use log::LogEvent;
pub use nats::NatsServer;
pub use nats_cluster::NatsCluster;
pub use percentile::percentile;
pub use port::free_port;
pub use poster::{Posted, post_during, post_steadily};
pub use process::{HttpResponse, Process, Role, get};
pub use receiver::{Received, Receiver, Reply};
pub use rules::{Manifest, NAMESPACE, Rules, alert, config_map, grant, provider, secret};
pub use tool::tool;
pub use wait::{PATIENCE, eventually, eventually_within};

use std::path::{Path, PathBuf};

use async_nats::jetstream;
use tempfile::TempDir;
use tidings_core::{DeadLetter, Message, wire};

use unfinished::Unfinished;

/// A nats-server with an empty store, or a cluster of them, and a folder of rules.
pub struct Rig {
    executable: PathBuf,
    folder: TempDir,
    nats: Option<NatsServer>,
    url: String,
    rules: Rules,
    unfinished: Unfinished,
}

/// A bound for tests whose number of posts depends on how soon a change takes effect.
pub const ONE_FOR_EACH_POST: u64 = 1000;

impl Rig {
    /// Starts a nats-server. `executable` is `env!("CARGO_BIN_EXE_tidings")` in a test.
    pub async fn start(executable: &str) -> Self {
        Self::start_with(executable, |_| String::new()).await
    }

    /// Starts a rig with these rules, and `tidings up` on it.
    pub async fn up<const N: usize>(executable: &str, rules: [Manifest; N]) -> (Self, Process) {
        let rig = Self::start(executable).await;
        rig.rules().put(rules);
        let up = rig.run(Role::up()).await;
        (rig, up)
    }

    /// Like [`Rig::start`], with more lines in nats-server's configuration, such as `tls { … }`.
    /// The closure gets the rig's folder.
    pub async fn start_with(executable: &str, configuration: impl FnOnce(&Path) -> String) -> Self {
        let folder = new_folder();
        let nats = NatsServer::start(folder.path(), &configuration(folder.path())).await;
        let url = nats.url().to_owned();
        Self::new(executable, folder, Some(nats), url)
    }

    /// Starts a nats-server with the configuration file that `configure` writes for a folder and a
    /// port.
    pub async fn start_configured(
        executable: &str,
        configure: impl AsyncFnOnce(&Path, u16) -> PathBuf,
    ) -> Self {
        let (folder, port) = (new_folder(), free_port());
        let config = configure(folder.path(), port).await;
        let nats = NatsServer::start_configured(config, port).await;
        let url = nats.url().to_owned();
        Self::new(executable, folder, Some(nats), url)
    }

    /// Starts a nats-server with its store on a small disk. `None` if this machine cannot mount
    /// one.
    pub async fn start_on_disk(executable: &str, mebibytes: u32) -> Option<(Self, LimitedDisk)> {
        let folder = new_folder();
        let disk = LimitedDisk::mount(&folder.path().join("jetstream"), mebibytes).await?;
        let nats = NatsServer::start_by(folder.path(), "", disk.launcher()).await;
        let url = nats.url().to_owned();
        Some((Self::new(executable, folder, Some(nats), url), disk))
    }

    /// Starts a cluster of three servers, with three replicas of each stream.
    pub async fn start_on_cluster(executable: &str) -> (Self, NatsCluster) {
        Self::start_on_cluster_of(executable, NatsServer::executable()).await
    }

    /// Like [`Rig::start_on_cluster`], with servers of this executable.
    pub async fn start_on_cluster_of(executable: &str, server: &Path) -> (Self, NatsCluster) {
        let folder = new_folder();
        let cluster = NatsCluster::start(folder.path(), server).await;
        let rig = Self::new(executable, folder, None, cluster.url());
        (rig, cluster)
    }

    fn new(executable: &str, folder: TempDir, nats: Option<NatsServer>, url: String) -> Self {
        Self {
            executable: executable.into(),
            rules: Rules::in_folder(folder.path().join("rules")),
            unfinished: Unfinished::new(url.clone()),
            folder,
            nats,
            url,
        }
    }

    /// A temporary folder, removed with the rig.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of rules that all roles of this rig read.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The nats-server that the roles share. Panics on a cluster.
    pub fn nats(&mut self) -> &mut NatsServer {
        self.nats.as_mut().expect("the rig has one nats-server")
    }

    /// The process id of the nats-server. Panics on a cluster.
    pub fn nats_id(&self) -> u32 {
        let nats = self.nats.as_ref().expect("the rig has one nats-server");
        nats.id()
    }

    /// The URL of the nats-server, or of all servers of the cluster, separated by commas.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts a role and waits until it is ready.
    pub async fn run(&self, role: Role) -> Process {
        let process = self.spawn(role);
        process.ready().await;
        process
    }

    /// Starts several roles and waits until all of them are ready.
    pub async fn run_all<const N: usize>(&self, roles: [Role; N]) -> [Process; N] {
        let processes = roles.map(|role| self.spawn(role));
        for process in &processes {
            process.ready().await;
        }
        processes
    }

    /// Starts a role without waiting for it.
    pub fn spawn(&self, role: Role) -> Process {
        self.spawn_of(&self.executable, role)
    }

    /// Like [`Rig::spawn`], with this executable.
    pub fn spawn_of(&self, executable: &Path, role: Role) -> Process {
        let role = if self.nats.is_none() {
            role.env("TIDINGS_NATS__REPLICAS", "3")
        } else {
            role
        };
        Process::spawn(
            executable,
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
            .expect("the server reports a stream's state")
            .state
            .clone();
        let mut dead = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                dead.push(DeadLetter::decode(message.payload).expect("DEAD holds dead letters"));
            }
        }
        dead
    }

    /// All outcomes in the stream OUTCOMES, oldest first.
    pub async fn outcomes(&self) -> Vec<wire::Outcome> {
        let mut stream = self
            .jetstream()
            .await
            .get_stream("OUTCOMES")
            .await
            .expect("the roles created the stream");
        let last = stream
            .info()
            .await
            .expect("the server reports a stream's state")
            .state
            .last_sequence;
        let mut outcomes = Vec::new();
        for sequence in 1..=last {
            let message = stream
                .get_raw_message(sequence)
                .await
                .expect("nothing was deleted from the stream");
            outcomes.push(wire::Outcome::decode(message.payload).expect("OUTCOMES holds outcomes"));
        }
        outcomes
    }

    /// Waits until all events are routed and no delivery is ready, in progress or parked. Without
    /// the first, DELIVERIES is also empty before the router has read the events.
    pub async fn drained(&self) {
        self.routed().await;
        let jetstream = self.jetstream().await;
        eventually("no delivery is left in DELIVERIES", async || {
            let mut stream = jetstream.get_stream("DELIVERIES").await.ok()?;
            (stream.info().await.ok()?.state.messages == 0).then_some(())
        })
        .await;
    }

    /// Waits until the router has read all events and finished with them.
    pub async fn routed(&self) {
        let jetstream = self.jetstream().await;
        eventually("the router has finished with all events", async || {
            let stream = jetstream.get_stream("EVENTS").await.ok()?;
            let router = stream.consumer_info("router").await.ok()?;
            (router.num_pending == 0 && router.num_ack_pending == 0).then_some(())
        })
        .await;
    }

    /// Gives the reason why this test leaves up to `most` deliveries on the bus. Dropping the rig
    /// panics if it finds more, or events that are not routed. A test that posts until something
    /// happens leaves up to [`ONE_FOR_EACH_POST`].
    pub fn leaves_deliveries(&self, most: u64, _reason: &'static str) {
        self.unfinished.expect(most);
    }

    /// Gives the reason why deliveries are lost in this test. Dropping another rig panics if the
    /// roles found a loss.
    pub fn expects_losses(&self, _reason: &'static str) {
        self.unfinished.expect_losses();
    }

    /// The server's counts of DELIVERIES as the roles last recorded them.
    pub async fn recorded_counts(&self) -> Option<wire::DeliveryCounts> {
        unfinished::recorded_counts(&self.jetstream().await).await
    }

    /// A JetStream client of the rig's bus.
    pub async fn jetstream(&self) -> jetstream::Context {
        let servers: Vec<String> = self.url.split(',').map(str::to_owned).collect();
        let client = async_nats::connect(servers)
            .await
            .expect("the rig's nats-server accepts connections");
        jetstream::new(client)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.nats.as_ref().is_some_and(NatsServer::responds) {
            self.unfinished.assert_none();
        }
    }
}

fn new_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidings-rig-")
        .tempdir()
        .expect("the temporary folder is writable")
}
