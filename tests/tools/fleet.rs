//! A fleet: a NATS server with the files of `tidings fleet init`, and roles with the credentials
//! that it issued.

mod client;
mod edge;
mod forbidden;
mod keys;
mod life;
mod pool_worker;
mod reference;
mod removal;
mod renaming;
mod taps;
mod uses;

use std::path::{Path, PathBuf};

use async_nats::jetstream;
use tidings_core::model::token::Token;
use tidings_rig::{Process, Rig, Role, eventually};

use client::Intruder;

use crate::TIDINGS;
use crate::command::{Ended, text, tidings, tidings_with};

/// A hub without roles.
struct Fleet {
    rig: Rig,
    dir: PathBuf,
}

impl Fleet {
    async fn start() -> Self {
        Self::start_with(|_| Vec::new()).await
    }

    /// Starts a hub with more arguments of `tidings fleet init`. The closure gets the rig's
    /// folder.
    async fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let rig = Rig::start_configured(TIDINGS, async |folder, port| {
            let dir = folder.join("fleet");
            let listen = format!("127.0.0.1:{port}");
            let init = ["fleet", "init", text(&dir), "--listen", &listen];
            let more = arguments(folder);
            let more: Vec<_> = more.iter().map(String::as_str).collect();
            let ended = tidings(&[&init[..], &more].concat()).await;
            assert_eq!(ended.status, Some(0), "{ended:?}");
            dir.join("nats.conf")
        })
        .await;
        let dir = rig.folder().join("fleet");
        Self { rig, dir }
    }

    /// Runs `tidings fleet` with these arguments.
    async fn run(&self, arguments: &[&str]) -> Ended {
        let (action, rest) = arguments.split_first().unwrap();
        let dir = text(&self.dir);
        tidings(&[&["fleet", action, "--dir", dir], rest].concat()).await
    }

    /// Runs `tidings fleet` with these arguments until it reaches a fail point, which kills it.
    async fn run_until(&self, point: &str, arguments: &[&str]) {
        let (action, rest) = arguments.split_first().unwrap();
        let dir = text(&self.dir);
        let arguments = [&["fleet", action, "--dir", dir], rest].concat();
        let ended = tidings_with(&[("FAIL_POINT", point)], &arguments).await;
        assert_eq!(ended.status, None, "{point} is reached: {ended:?}");
    }

    /// Runs another tool with the credentials of the tools.
    async fn tool(&self, arguments: &[&str]) -> Ended {
        let file = self.credentials("tools");
        let variables = [("TIDINGS_NATS__CREDENTIALS", text(&file))];
        let nats = ["--nats", self.rig.url()];
        tidings_with(&variables, &[arguments, &nats[..]].concat()).await
    }

    /// The names of the clusters.
    async fn names(&self) -> Vec<String> {
        let listed = self.run(&["list", "--output", "jsonl"]).await.json();
        let names = listed
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned());
        names.collect()
    }

    /// Waits until this many deliveries are parked.
    async fn parked(&self, count: usize) {
        eventually(&format!("{count} deliveries are parked"), async || {
            let listed = self.tool(&["deliveries", "list", "--output", "json"]).await;
            let rows = listed.json().swap_remove(0);
            (rows.as_array()?.len() == count).then_some(())
        })
        .await;
    }

    /// A client of the hub's streams, with the credentials of the tools.
    async fn streams(&self) -> jetstream::Context {
        let tools = Intruder::connect(self.rig.url(), &self.credentials("tools")).await;
        jetstream::new(tools.client)
    }

    async fn add(&self, name: &str) {
        let added = self.run(&["add", name]).await;
        assert_eq!(added.lines().len(), 1, "{added:?}");
    }

    /// A role with credentials of the fleet.
    fn with_credentials(&self, role: Role, name: &str) -> Role {
        let file = self.credentials(name);
        role.env("TIDINGS_NATS__CREDENTIALS", text(&file))
    }

    fn credentials(&self, name: &str) -> PathBuf {
        self.dir.join(format!("creds/{name}.creds"))
    }

    /// Runs a router and a worker.
    async fn hub(&self) -> [Process; 2] {
        let router = self.with_credentials(Role::router(), "router");
        let worker = self.with_credentials(Role::worker(), "worker");
        let router = self.rig.run(router).await;
        [router, self.rig.run(worker).await]
    }

    fn ingest(&self, name: &str) -> Role {
        self.with_credentials(Role::ingest().args(["--cluster", name]), name)
    }

    /// The ingest of a cluster whose name is too long for a file.
    fn ingest_of(&self, name: &str) -> Role {
        let file = match name.len() > 100 {
            true => Token::new(name).to_string(),
            false => name.to_owned(),
        };
        self.with_credentials(Role::ingest().args(["--cluster", name]), &file)
    }
}

/// Asserts that a process did nothing that its credentials do not permit.
fn assert_permitted(process: &Process) {
    for code in ["nats-server-error", "storage-write-failed", "pull-failed"] {
        let events = process.log_events(code);
        let errors: Vec<_> = events.iter().map(|event| event.field("error")).collect();
        assert!(errors.is_empty(), "{code}: {errors:?}");
    }
}

fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}
