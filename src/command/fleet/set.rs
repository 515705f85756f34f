//! `tidings fleet set`: changes what the hub knows of a cluster, except its labels.

use anyhow::ensure;
use clap::Args;
use tidings_core::wire::Cluster;

use super::members::{check_namespaces, text_line};
use super::{Fleet, FleetLocation, members};
use crate::command::tool::print_line;

/// The longest address of a dashboard, in bytes.
const MAX_DASHBOARD: usize = 2_000;

/// Arguments of `tidings fleet set`.
#[derive(Args, Debug)]
pub struct SetArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the cluster
    name: String,
    /// Namespace whose Alerts get the cluster's events; repeatable, replaces the former ones
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "visible_to_all")]
    visible_to: Vec<String>,
    /// Show the cluster's events to the Alerts of all namespaces
    #[arg(long)]
    visible_to_all: bool,
    /// Events per second that each ingest process of the cluster may store, averaged over 10 s
    /// [0: no limit]
    #[arg(long, value_name = "NUMBER")]
    events_per_second: Option<u64>,
    /// Bytes per second that each ingest process of the cluster may store, averaged over 10 s
    /// [0: no limit]
    #[arg(long, value_name = "NUMBER")]
    bytes_per_second: Option<u64>,
    /// Address of a dashboard of the cluster; empty for none
    #[arg(long, value_name = "URL")]
    dashboard: Option<String>,
}

impl SetArguments {
    fn changes_something(&self) -> bool {
        self.visible_to_all
            || !self.visible_to.is_empty()
            || self.events_per_second.is_some()
            || self.bytes_per_second.is_some()
            || self.dashboard.is_some()
    }
}

/// Changes a cluster.
///
/// # Errors
/// The cluster does not exist, an argument is invalid, or the server cannot be used.
pub async fn run(arguments: &SetArguments) -> anyhow::Result<()> {
    ensure!(
        arguments.changes_something(),
        "nothing to change: pass --visible-to, --visible-to-all, --events-per-second, \
         --bytes-per-second or --dashboard"
    );
    check_namespaces(&arguments.visible_to)?;
    if let Some(dashboard) = &arguments.dashboard {
        check_dashboard(dashboard)?;
    }
    let fleet = Fleet::open(&arguments.location)?;
    let records = fleet.records_for("fleet-set", &arguments.name).await?;
    fleet.require(&records, &arguments.name).await?;
    let changed = members::change(&records, &arguments.name, |cluster| {
        apply(arguments, cluster);
        Ok(())
    });
    print_line(&text_line(&changed.await?))?;
    Ok(())
}

fn apply(arguments: &SetArguments, cluster: &mut Cluster) {
    if arguments.visible_to_all || !arguments.visible_to.is_empty() {
        cluster.visible_to.clone_from(&arguments.visible_to);
    }
    let events = arguments.events_per_second;
    cluster.events_per_second = events.unwrap_or(cluster.events_per_second);
    let bytes = arguments.bytes_per_second;
    cluster.bytes_per_second = bytes.unwrap_or(cluster.bytes_per_second);
    if let Some(dashboard) = &arguments.dashboard {
        cluster.dashboard.clone_from(dashboard);
    }
}

/// Checks the address of a dashboard.
///
/// # Errors
/// It is too long, or no address.
pub fn check_dashboard(dashboard: &str) -> anyhow::Result<()> {
    ensure!(
        dashboard.len() <= MAX_DASHBOARD,
        "--dashboard: at most {MAX_DASHBOARD} bytes"
    );
    let is_url = ["https://", "http://"]
        .iter()
        .any(|scheme| dashboard.starts_with(scheme));
    ensure!(
        dashboard.is_empty() || is_url,
        "--dashboard {dashboard:?}: expected an address that begins with https:// or http://"
    );
    Ok(())
}
