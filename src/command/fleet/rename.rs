//! `tidings fleet rename`: gives a cluster another name, in two steps.
//!
//! The first step adds the new name with credentials of its own, so that both names are valid while
//! the ingest is changed over. The second, `--finish`, removes the former name. What is stored
//! under the former name keeps it.

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tidings_core::bus::Bus;
use tidings_core::bus::clusters::{ClusterRecords, former_names};
use tidings_core::bus::heartbeats::is_alive;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::failpoint::reach;
use tidings_core::wire::Cluster;
use tidings_rules::Alert;

use super::content::Content;
use super::holders::Kind;
use super::members::check_member_name;
use super::remove::{Plan, print_all};
use super::{Fleet, FleetLocation, Output};
use crate::audit::{ManualAction, record_of_tool};
use crate::command::rules;
use crate::command::tool::{count, print_line};
use crate::flags::{AsFlags as _, KubernetesFlags, RulesFlags, settings};

/// The most former names of a cluster.
const MOST_FORMER_NAMES: usize = 16;

/// Arguments of `tidings fleet rename`.
#[derive(Args, Debug)]
pub struct RenameArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the cluster
    old: String,
    /// New name
    new: String,
    /// Second step: revoke the credentials of the old name, and delete its record
    #[arg(long)]
    finish: bool,
    /// Lose the events that wait on edges under the old name, or may wait on silent ones, instead
    /// of refusing --finish
    #[arg(long, requires = "finish")]
    discard_waiting: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Confirm the step
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Output format; json prints one object
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
}

/// An Alert that selects one of the two names only.
struct AffectedAlert {
    name: String,
    /// Whether it selects the new name. Else it selects the old one.
    selects_new: bool,
}

/// What a step changes.
struct Changes {
    content: Content,
    /// Ids of commit statuses, old and new.
    statuses: Vec<(String, String)>,
    comments: usize,
    alerts: Vec<AffectedAlert>,
    /// Taps whose filter names the old name, with the filter.
    taps: Vec<(String, String)>,
    /// Processes of the old name that run.
    running: usize,
}

/// Carries out one step of a rename. A step that was interrupted can be repeated.
///
/// # Errors
/// A name is invalid or not found, --yes is missing, the rules cannot be read, or the server or
/// folder cannot be used.
pub async fn run(arguments: &RenameArguments) -> anyhow::Result<()> {
    let (old, new) = (&arguments.old, &arguments.new);
    ensure!(old != new, "cluster {old}: the new name is the same");
    check_member_name(new)?;
    let fleet = Fleet::open_to_change(&arguments.location)?;
    let bus = fleet.bus().await?;
    let records = fleet.records(&bus).await?;
    let taken = fleet.check_not_taken(&records, Kind::Cluster, new);
    taken.await?;
    let before = before(arguments, &records).await?;
    if arguments.finish && fleet.knows(&records, old).await? {
        fleet.check_revocable(old)?;
    }
    let alerts = alerts(arguments).await?;
    let taps = fleet.taps_of(old)?;
    let changes = Changes::of(&bus, arguments, alerts, taps).await?;
    let is_json = arguments.output == Output::Json;
    if !is_json {
        print_all(&changes.lines(arguments))?;
    }
    if arguments.yes {
        if arguments.finish && !arguments.discard_waiting {
            changes.content.edges.check(old)?;
        }
        let action = ManualAction::on("fleet-rename", format!("{old} to {new}"));
        record_of_tool(&bus, action).await;
        match arguments.finish {
            false => fleet.prepare(&records, old, before).await?,
            true => {
                let plan = Plan {
                    discards: false,
                    deletes_states: false,
                };
                fleet.retire(&bus, &records, old, plan).await?;
            }
        }
    }
    if is_json {
        print_line(&changes.json(arguments).to_string())?;
    } else if arguments.yes {
        print_all(&fleet.next_step(arguments)?)?;
    }
    ensure!(
        arguments.yes || arguments.dry_run,
        "nothing was changed: pass --yes to carry out this step, or --dry-run"
    );
    Ok(())
}

/// The record of the new name as this step needs it.
async fn before(
    arguments: &RenameArguments,
    records: &ClusterRecords,
) -> anyhow::Result<(Cluster, Option<u64>)> {
    let (old, new) = (&arguments.old, &arguments.new);
    let (renamed, revision) = records.load(new).await?;
    let is_renamed = |cluster: &Cluster| cluster.former_names.contains(old);
    if arguments.finish {
        let renamed = renamed.filter(is_renamed).with_context(|| {
            format!("cluster {new} is no new name of {old}: run the command without --finish first")
        })?;
        return Ok((renamed, revision));
    }
    if let Some(renamed) = renamed {
        ensure!(
            is_renamed(&renamed),
            "cluster {new} exists: choose another name"
        );
        return Ok((renamed, revision));
    }
    let (former, _) = records.load(old).await?;
    let former =
        former.with_context(|| format!("cluster {old} not found: see `tidings fleet list`"))?;
    // A name that another cluster got since stays with that one.
    let clusters = records.all().await?;
    let names = former_names(&clusters, old).filter(|name| name != new);
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.push(old.clone());
    if names.len() > MOST_FORMER_NAMES {
        bail!("cluster {old} was renamed {MOST_FORMER_NAMES} times: remove it, and add {new}");
    }
    let renamed = Cluster {
        name: new.clone(),
        former_names: names,
        added_at: Some(to_proto(jiff::Timestamp::now())),
        public_key: String::new(),
        revoked_at: None,
        binds_ids: true,
        ..former
    };
    Ok((renamed, revision))
}

/// The Alerts that select one of the names only, if rules are given.
async fn alerts(arguments: &RenameArguments) -> anyhow::Result<Vec<AffectedAlert>> {
    let flags = [arguments.rules.flags(), arguments.kubernetes.flags()].concat();
    let settings = settings(&arguments.location.common, flags)?;
    if settings.rules.sources.is_empty() {
        return Ok(Vec::new());
    }
    let loaded = rules::load(&settings).await?;
    let alerts = loaded.rules.alerts();
    let affected = |alert: &Alert| {
        let globs = alert.clusters.as_ref()?;
        let [old, new] = [&arguments.old, &arguments.new].map(|name| globs.is_match(name));
        (old != new).then(|| AffectedAlert {
            name: format!("{}/{}", alert.namespace, alert.name),
            selects_new: new,
        })
    };
    Ok(alerts.filter_map(|alert| affected(alert)).collect())
}

impl Changes {
    async fn of(
        bus: &Bus,
        arguments: &RenameArguments,
        alerts: Vec<AffectedAlert>,
        taps: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let [old, new] = [&arguments.old, &arguments.new].map(|name| name.to_lowercase());
        let content = match arguments.finish {
            true => Content::reported(bus, &arguments.old).await?,
            false => Content::of(bus, &arguments.old, None).await?,
        };
        let renamed = |id: &String| {
            let rest = id.strip_prefix(&format!("{old}/"))?;
            Some((id.clone(), format!("{new}/{rest}")))
        };
        let statuses = content
            .ids
            .statuses
            .ids
            .iter()
            .filter_map(renamed)
            .collect();
        let part = format!("/{}/", arguments.old);
        let comments = content.ids.comments.ids.iter();
        let comments = comments.filter(|mark| mark.contains(&part)).count();
        bus.sample_clock().await?;
        let now = bus.clock().now();
        let alive = content.heartbeats.iter();
        let running = alive.filter(|report| is_alive(report, now)).count();
        Ok(Self {
            content,
            statuses,
            comments,
            alerts,
            taps,
            running,
        })
    }

    /// What changes, for people.
    fn lines(&self, arguments: &RenameArguments) -> Vec<String> {
        let (old, new) = (&arguments.old, &arguments.new);
        let content = &self.content;
        let mut lines = Vec::new();
        if arguments.finish {
            lines.push(format!(
                "{old}: its credentials will be revoked, its record will be deleted"
            ));
            for line in content.edges.lines() {
                lines.push(format!("{old}: {line}"));
            }
            if self.running > 0 {
                lines.push(format!(
                    "{old}: {} with this name and will answer 503",
                    match self.running {
                        1 => "1 process runs".to_owned(),
                        number => format!("{number} processes run"),
                    }
                ));
            }
        } else {
            lines.push(format!(
                "{new}: gets the labels, namespaces, quota and dashboard of {old}, and credentials \
                 of its own; those of {old} stay valid until --finish"
            ));
        }
        if content.events.stored > 0 || !content.deliveries.is_empty() {
            lines.push(format!(
                "{old}: {} stored events, {} ready and {} parked deliveries keep this name",
                content.events.stored,
                content.ready(),
                content.parked()
            ));
        }
        for (from, to) in &self.statuses {
            lines.push(format!("commit status {from} becomes {to}"));
        }
        if self.comments > 0 {
            lines.push(format!(
                "{} on change requests: the next event writes a new one",
                count(self.comments, "comment")
            ));
        }
        lines.extend(content.ids.statuses.rest("commit statuses"));
        lines.extend(content.ids.comments.rest("comments"));
        let open = &content.ids.open_incidents;
        lines.extend(open.ids.iter().map(|key| {
            format!(
                "incident {key} is open: the next success of its object under {new} resolves it"
            )
        }));
        lines.extend(open.rest("open incidents"));
        for alert in &self.alerts {
            let (selected, other) = match alert.selects_new {
                true => (new, old),
                false => (old, new),
            };
            lines.push(format!(
                "alert {}: spec.clusters selects {selected} and not {other}",
                alert.name
            ));
        }
        for (tap, filter) in &self.taps {
            lines.push(format!(
                "tap {tap}: its filter {filter} does not select {new}; add a tap for {new}"
            ));
        }
        lines
    }

    fn json(&self, arguments: &RenameArguments) -> Value {
        let (mut report, content_ids) = (self.content.json(), &self.content.ids);
        let pair = |(from, to): &(String, String)| json!({"from": from, "to": to});
        let alert = |alert: &AffectedAlert| {
            json!({
                "alert": alert.name,
                "selects": if alert.selects_new { &arguments.new } else { &arguments.old },
            })
        };
        report["cluster"] = json!(arguments.old);
        report["newName"] = json!(arguments.new);
        report["step"] = json!(if arguments.finish {
            "finish"
        } else {
            "prepare"
        });
        report["done"] = json!(arguments.yes);
        report["running"] = json!(self.running);
        report["commitStatuses"] = self.statuses.iter().map(pair).collect();
        report["commitStatusesNotListed"] = json!(content_ids.statuses.more);
        report["comments"] = json!(self.comments);
        report["commentsNotListed"] = json!(content_ids.comments.more);
        report["alerts"] = self.alerts.iter().map(alert).collect();
        let tap = |(name, filter): &(String, String)| json!({"tap": name, "filter": filter});
        report["taps"] = self.taps.iter().map(tap).collect();
        report
    }
}

impl Fleet {
    /// Issues credentials for the new name and stores its record. Nothing happens if that is done.
    async fn prepare(
        &self,
        records: &ClusterRecords,
        old: &str,
        (renamed, revision): (Cluster, Option<u64>),
    ) -> anyhow::Result<()> {
        if !renamed.public_key.is_empty() {
            return Ok(());
        }
        let new = renamed.name.clone();
        let issued = self.issue(&new).await?;
        reach("fleet:issued");
        let renamed = Cluster {
            public_key: issued.public_key,
            ..renamed
        };
        records.take_name(&new, Some(old)).await?;
        let stored = records.store(&renamed, revision).await?;
        ensure!(
            stored,
            "cluster {old} is renamed by another process; try again"
        );
        Ok(())
    }

    /// What to do after a step.
    fn next_step(&self, arguments: &RenameArguments) -> anyhow::Result<Vec<String>> {
        let (old, new) = (&arguments.old, &arguments.new);
        if arguments.finish {
            return Ok(vec![
                format!("cluster {old} is now {new}"),
                format!(
                    "if `rules.sources` has cluster={old}:…: change it to cluster={new}:… when \
                     `tidings deliveries list` shows nothing in namespaces {old}:…"
                ),
            ]);
        }
        let file = self.folder.path(&super::folder::member_credentials(new))?;
        Ok(vec![
            format!(
                "{}: pass it to `tidings ingest --cluster {new}` as nats.credentials",
                file.display()
            ),
            format!(
                "if `rules.sources` has cluster={old}:…: leave it for now, its Alerts see the \
                 events of both names"
            ),
            format!(
                "when no ingest runs as {old} any more: `tidings fleet rename {old} {new} --finish`"
            ),
        ])
    }
}
