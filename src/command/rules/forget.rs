//! `tidings rules forget`: ends the restriction that an object keeps after it lost its fields.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use tidings_core::bus::extensions::{ExtensionRecords, StoredExtensions};
use tidings_core::model::origin;

use crate::audit::{ManualAction, record_of_tool};
use crate::command::tool::{BusArguments, bus, print_line};

/// Arguments of `tidings rules`.
#[derive(Args, Debug)]
pub struct RulesArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Forget which extension fields an Alert or Provider had: end its kept restriction; asks for
    /// --yes
    Forget(ForgetArguments),
}

/// The kinds of objects that have extension fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Alert,
    Provider,
}

#[derive(Args, Debug)]
struct ForgetArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Kind of the object
    kind: Kind,
    /// Object; without NAMESPACE, in the namespace `default`; in a member of the fleet,
    /// CLUSTER:NAMESPACE/NAME
    #[arg(value_name = "[NAMESPACE/]NAME")]
    name: String,
    /// Show what would be forgotten, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Forget without another question
    #[arg(long)]
    yes: bool,
}

/// Runs `tidings rules`.
///
/// # Errors
/// The bus cannot be reached, nothing is known about the object, or `--yes` is missing.
pub async fn run(arguments: RulesArguments) -> anyhow::Result<()> {
    let Action::Forget(arguments) = arguments.action;
    let bus = bus(&arguments.bus).await?;
    let (cluster, _) = named(&arguments.name);
    let records = ExtensionRecords::open(&bus, cluster)
        .await
        .context("cannot open the bucket extensions")?;
    let found = find(&arguments, records.all().await?)?;
    for stored in &found {
        print_line(&line(stored))?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes {
        bail!("nothing forgotten: pass --yes to forget, or --dry-run to only show it");
    }
    let target = found.first().map(object).unwrap_or_default();
    record_of_tool(&bus, ManualAction::on("rules-forget", target)).await;
    for stored in &found {
        records.remove(&stored.record.uid).await?;
    }
    print_line("forgotten; running routers notice it within seconds")?;
    Ok(())
}

/// The records of the object: one, or several if it was recreated.
fn find(
    arguments: &ForgetArguments,
    stored: Vec<StoredExtensions>,
) -> anyhow::Result<Vec<StoredExtensions>> {
    let kind = match arguments.kind {
        Kind::Alert => "Alert",
        Kind::Provider => "Provider",
    };
    let (_, (namespace, name)) = named(&arguments.name);
    let known: Vec<_> = stored.iter().map(object).collect();
    let found: Vec<_> = stored
        .into_iter()
        .filter(|stored| object(stored) == format!("{kind} {namespace}/{name}"))
        .collect();
    if found.is_empty() {
        bail!(
            "nothing is known about {kind} {namespace}/{name}; known objects: {}",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
    }
    Ok(found)
}

/// The member of the fleet, if one is named, and namespace and name.
fn named(text: &str) -> (Option<&str>, (&str, &str)) {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    let (cluster, namespace) = origin::split(namespace);
    (cluster, (namespace, name))
}

fn object(stored: &StoredExtensions) -> String {
    let record = &stored.record;
    format!("{} {}/{}", record.kind, record.namespace, record.name)
}

fn line(stored: &StoredExtensions) -> String {
    let clusters = match stored.record.clusters.as_slice() {
        [] => String::new(),
        clusters => format!("; clusters {}", clusters.join(",")),
    };
    let selector = match stored.record.cluster_selector.as_str() {
        "" => String::new(),
        selector => format!("; clusterSelector {selector}"),
    };
    format!(
        "{}: fields {}{clusters}{selector}",
        object(stored),
        stored.record.fields.join(",")
    )
}
