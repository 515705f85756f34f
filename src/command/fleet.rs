//! `tidings fleet`: the credentials of the hub's roles and of the clusters that share it.
//!
//! Each member has a NATS account of its own, and uses the hub's account through imports. So the
//! server replaces the reply subject of each of its requests: within one account, a client could
//! name any subject as the reply, and the server's answer would be stored there.
//!
//! | file | contents |
//! |---|---|
//! | `permissions` | what each user may do |
//! | `claims` | JWTs of operators, accounts and users |
//! | `folder` | keys, credentials and configuration on the disk |
//! | `server` | the configuration of nats-server, and accounts that are pushed to it |
//! | `issue` | credentials of members and taps, and their revocation |
//! | `holders` | who has a name |
//! | `content`, `edges` | what the hub and the edges hold of a cluster |
//! | `init`, `update`, `members`, `labels`, `set`, `taps`, … | one subcommand each |

mod claims;
mod content;
mod edges;
mod folder;
mod holders;
mod init;
mod issue;
mod labels;
mod members;
mod permissions;
mod pool_worker;
mod remove;
mod rename;
mod server;
mod set;
mod taps;
mod update;

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tidings_core::bus::Bus;
use tidings_core::bus::clusters::ClusterRecords;
use tidings_core::bus::connect::connect;
use tidings_core::bus::setup::StreamPolicy;
use tidings_core::runtime::config::{NatsSettings, Settings};

use super::Output;
use super::tool::print_line;
use crate::audit::{ManualAction, record_of_tool};
use crate::flags::{BusFlags, flag, settings};
use folder::{Description, Folder};

/// Arguments of `tidings fleet`.
#[derive(Args, Debug)]
pub struct FleetArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Create the keys, credentials and NATS server configuration of a new fleet
    Init(init::InitArguments),
    /// Add a cluster: issue its credentials and store its record
    Add(members::AddArguments),
    /// Add a tap: issue credentials that can only read events of a filter
    AddTap(taps::AddTapArguments),
    /// List the clusters, taps and workers of pools
    List(members::ListArguments),
    /// Issue new credentials for a cluster or tap and revoke the old ones
    Rotate(members::NameArguments),
    /// Revoke the credentials of a cluster or tap; its connections are closed
    Revoke(members::NameArguments),
    /// Remove a cluster or tap: print what the hub holds of it, and with --yes delete it
    Remove(remove::RemoveArguments),
    /// Rename a cluster in two steps: print what changes, and with --yes do it
    Rename(rename::RenameArguments),
    /// Set (KEY=VALUE) and remove (KEY-) labels of a cluster
    Label(members::LabelArguments),
    /// Change the quota, the namespaces that see the events, or the dashboard of a cluster
    Set(set::SetArguments),
    /// Issue credentials for a worker that serves one pool only
    AddWorker(pool_worker::AddArguments),
    /// Revoke the credentials of such a worker
    RemoveWorker(pool_worker::RemoveArguments),
    /// Issue all credentials again after an upgrade of Tidings, with the same keys
    Update(update::UpdateArguments),
    /// Print what the credentials may do, as Markdown
    Permissions,
}

/// Where the fleet is.
#[derive(Args, Debug, Clone)]
pub struct FleetLocation {
    #[command(flatten)]
    common: BusFlags,
    /// Folder of the fleet, as `tidings fleet init` created it
    #[arg(long, value_name = "DIR", default_value = "fleet")]
    dir: PathBuf,
}

/// An open fleet.
struct Fleet {
    folder: Folder,
    description: Description,
    settings: Settings,
    /// Locks the folder until this is dropped.
    _lock: Option<File>,
}

/// Runs `tidings fleet`.
///
/// # Errors
/// The folder or the NATS server cannot be used, or the cluster does not exist.
pub async fn run(arguments: FleetArguments) -> anyhow::Result<()> {
    match arguments.action {
        Action::Init(arguments) => init::run(&arguments),
        Action::Add(arguments) => members::add(arguments).await,
        Action::List(arguments) => members::list_all(&arguments).await,
        Action::AddTap(arguments) => taps::add(&arguments).await,
        Action::Rotate(arguments) => match taps::find(&arguments.location, &arguments.name)? {
            Some(tap) => tap.rotate().await,
            None => members::rotate(&arguments).await,
        },
        Action::Revoke(arguments) => match taps::find(&arguments.location, &arguments.name)? {
            Some(tap) => tap.revoke().await,
            None => members::revoke(&arguments).await,
        },
        Action::Remove(arguments) => match taps::find(&arguments.location, &arguments.name)? {
            Some(tap) => tap.remove(&arguments).await,
            None => remove::run(&arguments).await,
        },
        Action::Rename(arguments) => rename::run(&arguments).await,
        Action::Label(arguments) => members::label(&arguments).await,
        Action::Set(arguments) => set::run(&arguments).await,
        Action::AddWorker(arguments) => pool_worker::add(&arguments).await,
        Action::RemoveWorker(arguments) => pool_worker::remove(&arguments).await,
        Action::Update(arguments) => update::run(&arguments).await,
        Action::Permissions => {
            for line in permissions::markdown().lines() {
                print_line(line)?;
            }
            Ok(())
        }
    }
}

impl Fleet {
    fn open(location: &FleetLocation) -> anyhow::Result<Self> {
        let (folder, description) = Folder::open(&location.dir)?;
        let first = settings(&location.common, Vec::new())?;
        let mut flags = Vec::new();
        if first.nats.url.is_none() {
            flags.push(flag("fleet.json", "nats.url", &description.url));
        }
        if let (None, Some(ca)) = (&first.nats.tls.ca, &description.ca) {
            let ca = ca.display().to_string();
            flags.push(flag("fleet.json", "nats.tls.ca", &ca));
        }
        let settings = settings(&location.common, flags)?;
        Ok(Self {
            folder,
            description,
            settings,
            _lock: None,
        })
    }

    /// Opens the fleet for a command that changes the folder: one at a time.
    fn open_to_change(location: &FleetLocation) -> anyhow::Result<Self> {
        // A folder without a fleet gets no lock file.
        Folder::open(&location.dir)?;
        let lock = Folder::lock(&location.dir)?;
        let fleet = Self::open(location)?;
        Ok(Self {
            _lock: Some(lock),
            ..fleet
        })
    }

    /// Connects with the credentials of the tools.
    async fn bus(&self) -> anyhow::Result<Bus> {
        self.connect("creds/tools.creds", "tidings fleet").await
    }

    /// Opens the bucket of the clusters, and records what is done.
    async fn records_for(
        &self,
        action: &'static str,
        name: &str,
    ) -> anyhow::Result<ClusterRecords> {
        let bus = self.bus().await?;
        // First, because it creates what is missing.
        let records = self.records(&bus).await?;
        record_of_tool(&bus, ManualAction::on(action, name)).await;
        Ok(records)
    }

    /// Records what is done, if the server can be reached.
    async fn note(&self, action: &'static str, name: &str) {
        if let Ok(bus) = self.bus().await {
            record_of_tool(&bus, ManualAction::on(action, name)).await;
        }
    }

    /// Connects with the credentials of the system account.
    async fn system(&self) -> anyhow::Result<async_nats::Client> {
        let bus = self.connect("creds/system.creds", "tidings fleet").await?;
        Ok(bus.client().clone())
    }

    async fn connect(&self, credentials: &str, name: &str) -> anyhow::Result<Bus> {
        let settings = NatsSettings {
            credentials: Some(self.folder.path(credentials)?),
            ..self.settings.nats.clone()
        };
        connect(&settings, name).await.with_context(|| {
            let servers = settings.url.as_ref().map(ToString::to_string);
            format!("NATS server {}", servers.unwrap_or_default())
        })
    }

    /// Opens the bucket of the clusters, which is created with all streams if it is missing.
    async fn records(&self, bus: &Bus) -> anyhow::Result<ClusterRecords> {
        if let Ok(records) = ClusterRecords::open(bus).await {
            return Ok(records);
        }
        bus.set_up(&self.settings.sizing(), StreamPolicy::Verify)
            .await?;
        Ok(ClusterRecords::open(bus).await?)
    }
}
