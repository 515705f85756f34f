//! The subcommands about the clusters of a fleet.

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tidings_core::bus::clusters::ClusterRecords;
use tidings_core::model::origin;
use tidings_core::model::time::to_proto;
use tidings_core::wire::Cluster;

use super::holders::Kind;
use super::permissions::User;
use super::set::check_dashboard;
use super::{Fleet, FleetLocation, labels, pool_worker, taps};
use crate::command::ListOutput;
use crate::command::list::{self, Row};
use crate::command::tool::{print_line, time};

/// The name of the user of the system account, which has a file beside those of members.
const SYSTEM: &str = "system";
/// How often a record is changed again after another process changed it.
const MAX_TRIES: usize = 5;

/// Arguments of `tidings fleet add`.
#[derive(Args, Debug)]
pub struct AddArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the cluster
    name: String,
    /// Label of the cluster; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Namespace whose Alerts get the cluster's events; repeatable [default: all namespaces]
    #[arg(long, value_name = "NAMESPACE")]
    visible_to: Vec<String>,
    /// Events per second that each ingest process of the cluster may store, averaged over 10 s
    /// [default: no limit]
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    events_per_second: u64,
    /// Bytes per second that each ingest process of the cluster may store, averaged over 10 s
    /// [default: no limit]
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    bytes_per_second: u64,
    /// Address of a dashboard of the cluster, for links in messages
    #[arg(long, value_name = "URL")]
    dashboard: Option<String>,
}

/// Arguments of `tidings fleet list`.
#[derive(Args, Debug)]
pub struct ListArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Output format; json prints one array, jsonl one object per line
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

/// Arguments of commands about one cluster.
#[derive(Args, Debug)]
pub struct NameArguments {
    #[command(flatten)]
    pub location: FleetLocation,
    /// Name of the cluster or tap
    pub name: String,
}

/// Arguments of `tidings fleet label`.
#[derive(Args, Debug)]
pub struct LabelArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the cluster
    name: String,
    /// KEY=VALUE sets a label, KEY- removes it
    #[arg(required = true, value_name = "CHANGE", allow_hyphen_values = true)]
    changes: Vec<String>,
}

/// Adds a cluster. A run that failed can be repeated.
///
/// # Errors
/// The cluster exists, an argument is invalid, or the server or folder cannot be used.
pub async fn add(arguments: AddArguments) -> anyhow::Result<()> {
    let cluster = described(&arguments)?;
    let fleet = Fleet::open_to_change(&arguments.location)?;
    let name = &arguments.name;
    let records = fleet.records_for("fleet-add", name).await?;
    let taken = fleet.check_not_taken(&records, Kind::Cluster, name);
    taken.await?;
    ensure!(
        records.load(name).await?.0.is_none(),
        "cluster {name} exists: `tidings fleet rotate {name}` issues new credentials"
    );
    let issued = fleet.issue(name).await?;
    let cluster = Cluster {
        added_at: Some(to_proto(jiff::Timestamp::now())),
        public_key: issued.public_key,
        ..cluster
    };
    records.take_name(name, None).await?;
    let revision = records.load(name).await?.1;
    let stored = records.store(&cluster, revision).await?;
    ensure!(stored, "cluster {name} was added by another process");
    fleet.print_issued(name)
}

fn described(arguments: &AddArguments) -> anyhow::Result<Cluster> {
    check_member_name(&arguments.name)?;
    let mut labels = labels::Labels::new();
    labels::apply(&mut labels, &arguments.labels)?;
    check_namespaces(&arguments.visible_to)?;
    let dashboard = arguments.dashboard.clone().unwrap_or_default();
    check_dashboard(&dashboard)?;
    Ok(Cluster {
        name: arguments.name.clone(),
        labels,
        visible_to: arguments.visible_to.clone(),
        events_per_second: arguments.events_per_second,
        bytes_per_second: arguments.bytes_per_second,
        dashboard,
        binds_ids: true,
        ..Cluster::default()
    })
}

/// Checks a new name: the credentials of the hub's own users must not be replaced.
pub fn check_member_name(name: &str) -> anyhow::Result<()> {
    labels::check_name(name)?;
    let is_reserved = [SYSTEM, "cluster", origin::FOLDER].contains(&name);
    let is_of_hub = User::HUB.iter().any(|(user, _)| *user == name) || is_reserved;
    ensure!(
        !is_of_hub,
        "cluster {name}: this name is reserved; choose another name"
    );
    Ok(())
}

/// Checks the namespaces that see a cluster.
///
/// # Errors
/// One is no name of a namespace.
pub fn check_namespaces(namespaces: &[String]) -> anyhow::Result<()> {
    for namespace in namespaces {
        labels::check_namespace(namespace)?;
    }
    Ok(())
}

/// Lists the clusters, taps, and workers of pools.
///
/// # Errors
/// The server or folder cannot be used.
pub async fn list_all(arguments: &ListArguments) -> anyhow::Result<()> {
    let fleet = Fleet::open(&arguments.location)?;
    let records = fleet.records(&fleet.bus().await?).await?;
    let clusters = records.all().await?;
    let mut rows: Vec<_> = clusters.values().map(row).collect();
    rows.extend(taps::rows(&fleet)?);
    rows.extend(pool_worker::rows(&fleet));
    list::print(arguments.output, HEADERS, &rows)?;
    Ok(())
}

/// The line of a cluster, for people.
pub fn text_line(cluster: &Cluster) -> String {
    let labels = cluster.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let credentials = match cluster.revoked_at {
        Some(at) => format!("revoked {}", time(Some(at))),
        None => "valid".to_owned(),
    };
    let visible_to = match cluster.visible_to.is_empty() {
        true => "all namespaces".to_owned(),
        false => cluster.visible_to.join(","),
    };
    format!(
        "{} {credentials}, visible to {visible_to}, labels {}{}",
        cluster.name,
        labels.join(","),
        limits(cluster)
    )
}

/// The quota and the dashboard, as far as they are set.
fn limits(cluster: &Cluster) -> String {
    let mut text = String::new();
    for (limit, unit) in [
        (cluster.events_per_second, "events/s"),
        (cluster.bytes_per_second, "bytes/s"),
    ] {
        if limit > 0 {
            text += &format!(", at most {limit} {unit}");
        }
    }
    if !cluster.dashboard.is_empty() {
        text += &format!(", dashboard {}", cluster.dashboard);
    }
    text
}

/// The headers of the list on a terminal.
const HEADERS: &[&str] = &[
    "KIND",
    "NAME",
    "CREDENTIALS",
    "VISIBLE TO OR FILTER",
    "LABELS",
];

fn row(cluster: &Cluster) -> Row {
    let labels = cluster.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Row {
        line: format!("member {}", text_line(cluster)),
        cells: vec![
            "member".to_owned(),
            cluster.name.clone(),
            match cluster.revoked_at {
                Some(_) => "revoked".to_owned(),
                None => "valid".to_owned(),
            },
            match cluster.visible_to.is_empty() {
                true => "*".to_owned(),
                false => cluster.visible_to.join(","),
            },
            labels.join(","),
        ],
        json: as_json(cluster),
    }
}

fn as_json(cluster: &Cluster) -> Value {
    json!({
        "kind": "member",
        "name": cluster.name,
        "labels": cluster.labels,
        "visibleTo": cluster.visible_to,
        "addedAt": time(cluster.added_at),
        "publicKey": cluster.public_key,
        "revokedAt": cluster.revoked_at.map(|at| time(Some(at))),
        "eventsPerSecond": cluster.events_per_second,
        "bytesPerSecond": cluster.bytes_per_second,
        "dashboard": cluster.dashboard,
        "formerNames": cluster.former_names,
    })
}

/// Issues new credentials, and revokes the former ones.
///
/// # Errors
/// The cluster does not exist, or the server or folder cannot be used.
pub async fn rotate(arguments: &NameArguments) -> anyhow::Result<()> {
    let (fleet, records) = existing(arguments, "fleet-rotate").await?;
    let name = &arguments.name;
    fleet.check_revocable(name)?;
    let issued = fleet.issue(name).await?;
    change(&records, name, |cluster| {
        cluster.public_key = issued.public_key.clone();
        cluster.revoked_at = None;
        Ok(())
    })
    .await?;
    fleet.print_issued(name)
}

/// Revokes all credentials of a cluster.
///
/// # Errors
/// The cluster does not exist, or the server or folder cannot be used.
pub async fn revoke(arguments: &NameArguments) -> anyhow::Result<()> {
    let (fleet, records) = existing(arguments, "fleet-revoke").await?;
    let name = &arguments.name;
    fleet.revoke(name).await?;
    change(&records, name, |cluster| {
        cluster.revoked_at = Some(to_proto(jiff::Timestamp::now()));
        Ok(())
    })
    .await?;
    print_line(&format!("credentials of cluster {name} revoked"))?;
    Ok(())
}

/// Changes the labels of a cluster.
///
/// # Errors
/// The cluster does not exist, a label is invalid, or the server cannot be used.
pub async fn label(arguments: &LabelArguments) -> anyhow::Result<()> {
    let fleet = Fleet::open(&arguments.location)?;
    let records = fleet.records_for("fleet-label", &arguments.name).await?;
    fleet.require(&records, &arguments.name).await?;
    let changed = change(&records, &arguments.name, |cluster| {
        labels::apply(&mut cluster.labels, &arguments.changes)
    });
    print_line(&text_line(&changed.await?))?;
    Ok(())
}

async fn existing(
    arguments: &NameArguments,
    action: &'static str,
) -> anyhow::Result<(Fleet, ClusterRecords)> {
    let fleet = Fleet::open_to_change(&arguments.location)?;
    let records = fleet.records_for(action, &arguments.name).await?;
    fleet.require(&records, &arguments.name).await?;
    Ok((fleet, records))
}

fn require(cluster: Option<Cluster>, name: &str) -> anyhow::Result<Cluster> {
    cluster.with_context(|| format!("cluster {name} not found: see `tidings fleet list`"))
}

/// Changes a record, also while others change it.
pub async fn change(
    records: &ClusterRecords,
    name: &str,
    change: impl Fn(&mut Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<Cluster> {
    for _ in 0..MAX_TRIES {
        let (cluster, revision) = records.load(name).await?;
        let mut cluster = require(cluster, name)?;
        change(&mut cluster)?;
        if records.store(&cluster, revision).await? {
            return Ok(cluster);
        }
    }
    bail!("cluster {name} is changed by another process; try again")
}
