//! A cluster of three nats-servers for one test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::nats::{accepts_clients, run, signal};
use crate::port::free_port;
use crate::process::client;
use crate::wait::eventually_within;

/// The smallest cluster that survives the loss of one server.
const SERVERS: usize = 3;
/// A cluster on a busy machine needs time to elect a leader.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster of nats-servers with JetStream on loopback ports. Ports and stores stay the same when
/// servers are killed and restarted.
pub struct NatsCluster {
    members: Vec<Member>,
}

struct Member {
    name: String,
    executable: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    /// Where it reports its health.
    monitor: u16,
    child: Option<Child>,
}

impl NatsCluster {
    /// Starts servers of this executable, with stores in `folder`, and waits until they have a
    /// leader.
    pub(crate) async fn start(folder: &Path, executable: &Path) -> Self {
        let ports: Vec<(u16, u16)> = (0..SERVERS).map(|_| (free_port(), free_port())).collect();
        let routes: Vec<String> = ports
            .iter()
            .map(|(_, route)| format!("\"nats://127.0.0.1:{route}\""))
            .collect();
        let member = |(number, (port, route)): (usize, &(u16, u16))| {
            let name = format!("n{number}");
            let store = folder.join(format!("jetstream-{name}"));
            let config = folder.join(format!("nats-{name}.conf"));
            let log = folder.join(format!("nats-{name}.log"));
            let monitor = free_port();
            let text = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nmax_payload: 8MB\n\
                 http: \"127.0.0.1:{monitor}\"\nlog_file: {log:?}\n\
                 lame_duck_grace_period: 1s\nlame_duck_duration: 30s\n\
                 jetstream {{ store_dir: {store:?}, max_file_store: 20GB, sync_interval: 1s }}\n\
                 cluster {{ name: rig, listen: \"127.0.0.1:{route}\", routes: [{}] }}\n",
                routes.join(", ")
            );
            std::fs::write(&config, text).expect("the rig's folder is writable");
            Member {
                name,
                executable: executable.to_owned(),
                config,
                log,
                port: *port,
                monitor,
                child: None,
            }
        };
        let mut cluster = Self {
            members: ports.iter().enumerate().map(member).collect(),
        };
        cluster.restart().await;
        cluster
    }

    /// The URLs of all servers, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("nats://127.0.0.1:{}", member.port))
            .collect();
        urls.join(",")
    }

    /// Starts every server that does not run, and waits until JetStream responds.
    pub async fn restart(&mut self) {
        for member in &mut self.members {
            if member.child.is_none() {
                member.child = Some(run(&member.executable, &member.config));
                accepts_clients(member.port).await;
            }
        }
        eventually_within(PATIENCE, "JetStream has a leader", async || {
            let answer = self.jetstream().await?.query_account().await;
            answer.is_ok().then_some(())
        })
        .await;
    }

    /// Waits until a stream has a leader, and kills that server, as `kill -9` does. Returns its
    /// name.
    pub async fn kill_leader_of(&mut self, stream: &str) -> String {
        let leader = eventually_within(PATIENCE, &format!("{stream} has a leader"), async || {
            self.leader_of(stream).await
        })
        .await;
        let member = self.members.iter_mut().find(|member| member.name == leader);
        member
            .expect("a server of the cluster leads the stream")
            .kill()
            .await;
        leader
    }

    /// Stops the server that leads a stream for `length`, like a machine that hangs. `None`: the
    /// stream has no leader now.
    pub async fn freeze_leader_of(&self, stream: &str, length: Duration) -> Option<String> {
        let leader = self.leader_of(stream).await?;
        let member = self.members.iter().find(|member| member.name == leader)?;
        let child = member.child.as_ref()?;
        signal(child, Signal::STOP);
        sleep(length).await;
        signal(child, Signal::CONT);
        Some(leader)
    }

    /// Ends each server as the chart does, starts it by another executable, and waits until it has
    /// caught up before the next one.
    pub async fn replace_each(&mut self, executable: &Path) {
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            member.end().await;
            executable.clone_into(&mut member.executable);
            self.restart().await;
            self.members[number].has_caught_up().await;
        }
    }

    /// The version of each server.
    pub async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        for member in &self.members {
            let client = async_nats::connect(format!("127.0.0.1:{}", member.port)).await;
            let client = client.expect("the server accepts connections");
            versions.push(client.server_info().version.clone());
        }
        versions
    }

    /// Kills all servers, as `kill -9` does.
    pub async fn kill_all(&mut self) {
        for member in &mut self.members {
            member.kill().await;
        }
    }

    /// Waits until every replica of a stream is current, so that the next server may be killed.
    pub async fn replicas_are_current(&self, stream: &str) {
        eventually_within(
            PATIENCE,
            &format!("all replicas of {stream} are current"),
            async || {
                let stream = self.jetstream().await?.get_stream(stream).await.ok()?;
                let cluster = stream.cached_info().cluster.clone()?;
                let current = cluster
                    .replicas
                    .iter()
                    .filter(|peer| peer.current && !peer.offline)
                    .count();
                (cluster.leader.is_some() && current == SERVERS - 1).then_some(())
            },
        )
        .await;
    }

    async fn leader_of(&self, stream: &str) -> Option<String> {
        self.jetstream()
            .await?
            .get_stream(stream)
            .await
            .ok()?
            .cached_info()
            .cluster
            .clone()?
            .leader
    }

    /// A client, if a server accepts it soon.
    async fn jetstream(&self) -> Option<jetstream::Context> {
        let servers: Vec<String> = self.url().split(',').map(str::to_owned).collect();
        let client = timeout(Duration::from_secs(5), async_nats::connect(servers))
            .await
            .ok()?
            .ok()?;
        let mut context = jetstream::new(client);
        context.set_timeout(Duration::from_secs(3));
        Some(context)
    }
}

impl Drop for NatsCluster {
    /// Shows what the servers logged last when a test fails.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for member in &self.members {
            let log = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of the log of nats-server {}:", member.name);
            lines
                .iter()
                .skip(lines.len().saturating_sub(40))
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Member {
    /// Ends it in lame duck mode: it hands over what it leads, then its clients.
    async fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::USR2);
            let ended = timeout(PATIENCE, child.wait()).await;
            ended
                .expect("the server ends in lame duck mode")
                .expect("a child process can be waited for");
        }
    }

    /// Waits until it has caught up with the cluster, its streams and their consumers, as the
    /// startup probe of the chart does.
    async fn has_caught_up(&self) {
        let url = format!("http://127.0.0.1:{}/healthz", self.monitor);
        let what = format!("{} has caught up", self.name);
        eventually_within(PATIENCE, &what, async || {
            let answer = client().get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a child process can be killed");
        }
    }
}
