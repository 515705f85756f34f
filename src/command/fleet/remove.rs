//! `tidings fleet remove`: says what the hub holds of a cluster, and removes the cluster.
//!
//! ```text
//!  revoke ─► its events are routed ─► discard deliveries, if asked
//!         ─► delete heartbeats and states ─► delete the record and the credentials file
//! ```
//!
//! The record is deleted late: until then routers know which namespaces may see the events. Each
//! step can be repeated, so that a run that was interrupted is completed by the next one.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::json;
use tidings_core::bus::Bus;
use tidings_core::bus::clusters::ClusterRecords;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::failpoint::reach;

use super::content::{Content, discard};
use super::folder::{member_account, member_credentials, member_key};
use super::{Fleet, FleetLocation, Output, members};
use crate::audit::{ManualAction, record_of_tool};
use crate::command::tool::{count, print_line};

/// How often it is checked whether the events are routed, and how often at most.
const CHECK_EVERY: Duration = Duration::from_millis(250);
const MOST_CHECKS: u32 = 40;

/// Arguments of `tidings fleet remove`.
#[derive(Args, Debug)]
pub struct RemoveArguments {
    #[command(flatten)]
    pub(super) location: FleetLocation,
    /// Name of the cluster or tap
    pub(super) name: String,
    /// Store its ready and parked deliveries as dead letters, instead of delivering them
    #[arg(long)]
    discard: bool,
    /// Lose the events that wait on edges of the cluster, or may wait on silent ones, instead of
    /// refusing the removal
    #[arg(long)]
    discard_waiting: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Confirm the removal
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) yes: bool,
    /// Output format; json prints one object
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

/// What to do with what the hub holds of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Deliveries become dead letters.
    pub discards: bool,
    /// States are deleted once no delivery waits. Else they are for the cluster's new name.
    pub deletes_states: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Deliveries that became dead letters.
    pub discarded: usize,
    /// Deliveries that still wait.
    pub waiting: usize,
    /// States that were deleted.
    pub states: usize,
}

/// Removes a cluster.
///
/// # Errors
/// The cluster does not exist, --yes is missing, its events are not routed, or the server or folder
/// cannot be used.
pub async fn run(arguments: &RemoveArguments) -> anyhow::Result<()> {
    let fleet = Fleet::open_to_change(&arguments.location)?;
    let bus = fleet.bus().await?;
    let records = fleet.records(&bus).await?;
    let name = &arguments.name;
    fleet.require_known(&records, name).await?;
    let content = Content::reported(&bus, name).await?;
    let plan = Plan {
        discards: arguments.discard,
        deletes_states: true,
    };
    let is_json = arguments.output == Output::Json;
    if !is_json {
        print_all(&lines(name, &content, plan))?;
    }
    if !arguments.yes {
        if is_json {
            print_json(name, &content, None)?;
        }
        ensure!(
            arguments.dry_run,
            "nothing was changed: pass --yes to remove cluster {name}, or --dry-run"
        );
        return Ok(());
    }
    if !arguments.discard_waiting {
        content.edges.check(name)?;
    }
    record_of_tool(&bus, ManualAction::on("fleet-remove", name)).await;
    let done = fleet.retire(&bus, &records, name, plan).await?;
    if is_json {
        return print_json(name, &content, Some(done));
    }
    print_all(&summary(name, done))
}

impl Fleet {
    /// Fails if nothing is known of the cluster, or if its credentials cannot be revoked.
    async fn require_known(&self, records: &ClusterRecords, name: &str) -> anyhow::Result<()> {
        ensure!(
            self.knows(records, name).await?,
            "cluster {name} not found: see `tidings fleet list`"
        );
        self.check_revocable(name)
    }

    /// Whether credentials of the cluster may exist. The key and the account stay after a removal,
    /// so that revocations are not forgotten.
    pub(super) async fn knows(&self, records: &ClusterRecords, name: &str) -> anyhow::Result<bool> {
        Ok(self.has_account(name)? || records.load(name).await?.0.is_some())
    }

    /// Whether an account of a cluster or tap may exist.
    pub(super) fn has_account(&self, name: &str) -> anyhow::Result<bool> {
        let key = format!("keys/{}.nk", member_key(name));
        Ok(self.folder.has(&key)? || self.folder.has(&member_account(name))?)
    }

    /// Checks that the key of the account of a cluster or tap can be used.
    pub(super) fn check_revocable(&self, name: &str) -> anyhow::Result<()> {
        let key = self.folder.existing_key(&member_key(name));
        key.with_context(|| {
            format!(
                "the credentials of {name} cannot be revoked without the key of its account, and \
                 nothing was changed: put the file back from a backup"
            )
        })?;
        Ok(())
    }

    /// Removes a cluster, or its former name.
    pub(super) async fn retire(
        &self,
        bus: &Bus,
        records: &ClusterRecords,
        name: &str,
        plan: Plan,
    ) -> anyhow::Result<Done> {
        if self.knows(records, name).await? {
            self.check_revocable(name)?;
            self.revoke(name).await?;
        }
        if records.load(name).await?.0.is_some() {
            members::change(records, name, |cluster| {
                let now = to_proto(jiff::Timestamp::now());
                cluster.revoked_at.get_or_insert(now);
                Ok(())
            })
            .await?;
        }
        reach("fleet:revoked");
        wait_until_routed(bus, name).await?;
        let content = Content::of(bus, name, None).await?;
        let mut done = Done {
            waiting: content.deliveries.len(),
            ..Done::default()
        };
        if plan.discards {
            done.discarded = discard(bus, name, &content).await?;
            done.waiting = 0;
        }
        content.delete_heartbeats(bus).await?;
        // While a delivery waits, its state must not be older than what is recorded.
        if plan.deletes_states && done.waiting == 0 {
            done.states = bus.delete_states(&content.states).await?;
        }
        reach("fleet:states-deleted");
        records.remove(name).await?;
        reach("fleet:record-deleted");
        self.folder.remove(&member_credentials(name))?;
        Ok(done)
    }
}

/// Without the record, routers would show the events to every namespace.
async fn wait_until_routed(bus: &Bus, name: &str) -> anyhow::Result<()> {
    for _ in 0..MOST_CHECKS {
        if bus.events_of(name).await?.unrouted == 0 {
            return Ok(());
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
    let unrouted = bus.events_of(name).await?.unrouted;
    bail!(
        "the credentials of cluster {name} are revoked, but {unrouted} of its events are not \
         routed yet: check that a router runs, then run the command again"
    )
}

/// What will change, for people.
fn lines(name: &str, content: &Content, plan: Plan) -> Vec<String> {
    let mut lines = vec![format!("cluster {name}: its credentials will be revoked")];
    let mut add = |line: String| lines.push(format!("cluster {name}: {line}"));
    for line in content.edges.lines() {
        add(line);
    }
    let events = content.events;
    if events.stored > 0 {
        add(format!(
            "{} will stay until EVENTS evicts them; {} not routed yet, which is done first",
            number(events.stored, "stored event"),
            events.unrouted
        ));
    }
    if !content.deliveries.is_empty() {
        let result = match plan.discards {
            true => "will become dead letters",
            false => "will still be delivered; --discard makes them dead letters",
        };
        add(format!(
            "{} ready and {} parked deliveries {result}",
            content.ready(),
            content.parked()
        ));
    }
    if !content.dead_letters.is_empty() {
        add(format!(
            "{} will stay: `tidings dead list --cluster {name}`",
            count(content.dead_letters.len(), "dead letter")
        ));
    }
    let waits = !content.deliveries.is_empty() && !plan.discards;
    if plan.deletes_states && !content.states.is_empty() {
        let states = count(content.states.len(), "record");
        add(match waits {
            true => format!("{states} of states will stay while deliveries wait"),
            false => format!("{states} of states will be deleted"),
        });
    }
    if plan.deletes_states {
        let open = &content.ids.open_incidents;
        for key in &open.ids {
            add(format!(
                "incident {key} is open, and no event will resolve it: resolve it at its service"
            ));
        }
        if let Some(rest) = open.rest("open incidents") {
            add(rest);
        }
    }
    if !content.heartbeats.is_empty() {
        add(format!(
            "{} of processes will be deleted",
            count(content.heartbeats.len(), "report")
        ));
    }
    lines
}

fn number(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

fn summary(name: &str, done: Done) -> Vec<String> {
    let mut lines = vec![format!("cluster {name} removed")];
    if done.discarded > 0 {
        let deliveries = match done.discarded {
            1 => "1 delivery".to_owned(),
            number => format!("{number} deliveries"),
        };
        lines.push(format!("{deliveries} discarded"));
    }
    if done.waiting > 0 {
        lines.push(format!(
            "{} still wait; run the command again when they have ended, to delete the records of \
             states",
            done.waiting
        ));
    }
    lines
}

pub(super) fn print_all(lines: &[String]) -> anyhow::Result<()> {
    for line in lines {
        if !print_line(line)? {
            break;
        }
    }
    Ok(())
}

fn print_json(name: &str, content: &Content, done: Option<Done>) -> anyhow::Result<()> {
    let mut report = content.json();
    report["cluster"] = json!(name);
    report["done"] = json!(done.is_some());
    let done = done.unwrap_or_default();
    report["discarded"] = json!(done.discarded);
    report["statesDeleted"] = json!(done.states);
    print_line(&report.to_string())?;
    Ok(())
}
